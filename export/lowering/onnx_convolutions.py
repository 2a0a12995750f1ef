"""Integer convolutions of a trained model written into an ONNX graph, node by node.

Each becomes a ConvInteger (two where its inputs are the sum of two 8-bit numbers), whose sums a
cast and a product make floats of. ONNX Runtime has a fast kernel for it where the weights are
unsigned and the inputs are not; the other way round, which is what its own tool writes, it takes
12 times as long.

The first convolution, of one channel in steps of 10 samples, is one of 10 channels in steps of one
(`rewrites.polyphase_convolution`): twice as fast. With windows of free length it stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..rewrites.polyphase_convolution import by_phases
from .integer_convolutions import IntegerConv2d, integer_convolutions, replace_layer
from .onnx_integers import scope
from .static_convolutions import Grid

if TYPE_CHECKING:
    import onnx

MIDDLE = 128


def with_plain_convolutions(module: nn.Module) -> nn.Module:
    """A copy with float convolutions again, which `write_convolutions` finds by their names."""
    plain = copy.deepcopy(module)
    for name, integer in integer_convolutions(plain).items():
        replace_layer(plain, name, integer.plain())
    return plain


def write_convolutions(model: onnx.ModelProto, layers: Mapping[str, IntegerConv2d]) -> None:
    """Put integers in place of the named float convolutions of a graph."""
    lengths = {
        value.name: value.type.tensor_type.shape.dim[-1].dim_value  # 0 where it is free
        for value in model.graph.value_info
    }
    for layer, integer in layers.items():
        (index,) = [
            i
            for i, node in enumerate(model.graph.node)
            if node.op_type == "Conv" and node.name.startswith(scope(layer))
        ]
        conv = model.graph.node[index]
        written = _Writer(scope(layer), integer, samples=lengths.get(conv.input[0], 0))
        written.write(conv.input[0], conv.output[0])
        del model.graph.node[index]
        for node in reversed(written.nodes):
            model.graph.node.insert(index, node)
        used = {name for node in model.graph.node for name in node.input}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *written.constants])


class _Writer:
    """The nodes and constants in place of one Conv node whose inputs have so many samples."""

    def __init__(self, start: str, integer: IntegerConv2d, *, samples: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._start, self._integer = start, integer
        weight, stride = integer.integers, integer.stride[1]
        self._rows = 0
        if weight.shape[1] == 1 and stride > 1 and samples:
            frames = (samples - weight.shape[3]) // stride + 1
            weight = by_phases(weight, stride)
            self._rows, stride = frames - 1 + weight.shape[3], 1
            self._missing = self._rows * integer.stride[1] - samples
        self._strides = [1, stride]
        self._weight = self._constant("weight", _unsigned(weight))

    def write(self, x: str, out: str) -> None:
        integer, sums = self._integer, list[str]()
        for grid, name in zip(integer.grids, ("coarse", "fine"), strict=False):
            scale, zero = self._grid(grid, name)
            counted = self._node("QuantizeLinear", [x, scale, zero], f"{name}.integers")
            sums.append(self._product(counted, zero, grid, name))
            if len(sums) < integer.halves:
                part = self._node("DequantizeLinear", [counted, scale, zero], name)
                x = self._node("Sub", [x, part], "rest")
        y = sums[0] if len(sums) == 1 else self._node("Add", sums, "sum")
        if integer.bias is not None:
            y = self._node("Add", [y, self._constant("bias", _per_channel(integer.bias))], "biased")
        self.nodes[-1].output[0] = out

    def _product(self, counted: str, zero: str, grid: Grid, name: str) -> str:
        if self._rows:
            counted = self._in_phases(counted, zero, name)
        middle = self._constant("middle", np.uint8(MIDDLE))
        inputs = [counted, self._weight, zero, middle]
        sums = self._node("ConvInteger", inputs, f"{name}.sums", strides=self._strides)
        floats = self._node("Cast", [sums], f"{name}.floats", to=1)
        step = self._constant(f"{name}.steps", _per_channel(self._integer.scales * grid.scale))
        return self._node("Mul", [floats, step], f"{name}.product")

    def _in_phases(self, counted: str, zero: str, name: str) -> str:
        """As `rewrites.polyphase_convolution.in_phases`: [1, stride, 1, rows]."""
        if self._missing > 0:
            pads = self._constant("pads", np.array([0, 0, 0, 0, 0, 0, 0, self._missing]))
            counted = self._node("Pad", [counted, pads, zero], f"{name}.padded")
        elif self._missing < 0:
            ends = [self._constant(n, np.array([v])) for n, v in (("from", 0), ("axis", 3))]
            last = self._constant("to", np.array([self._missing]))
            counted = self._node("Slice", [counted, ends[0], last, ends[1]], f"{name}.cut")
        stride = self._integer.stride[1]
        shape = self._constant("rows", np.array([1, 1, self._rows, stride]))
        rows = self._node("Reshape", [counted, shape], f"{name}.rows")
        return self._node("Transpose", [rows], f"{name}.phases", perm=[0, 3, 1, 2])

    def _grid(self, grid: Grid, name: str) -> tuple[str, str]:
        scale = self._constant(f"{name}.scale", np.float32(grid.scale))
        return scale, self._constant(f"{name}.zero", np.int8(grid.zero_point - MIDDLE))

    def _constant(self, name: str, values: Any) -> str:
        from onnx import numpy_helper

        full = f"{self._start}{name}"
        if all(tensor.name != full for tensor in self.constants):
            self.constants.append(numpy_helper.from_array(np.asarray(values), full))
        return full

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        from onnx import helper

        full = f"{self._start}{name}"
        # Named by its tensor; the prefix is the layer's, by which profiles and bisection find it.
        self.nodes.append(helper.make_node(kind, inputs, [f"{full}:out"], name=full, **attributes))
        return f"{full}:out"


def _unsigned(integers: Tensor) -> Any:
    return (integers.to(torch.int32).numpy() + MIDDLE).astype(np.uint8)


def _per_channel(values: Tensor) -> Any:
    return values.detach().float().numpy().reshape(1, -1, 1, 1)
