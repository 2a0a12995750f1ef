"""Integer convolutions of a trained model written into an ONNX graph, node by node.

Each becomes one QLinearConv in ONNX Runtime (two where its inputs are the sum of two 8-bit
numbers), which multiplies each channel by (input scale) x (weight scale) / (output scale). The
output's scale is 1 for all channels and the weight's has the channel's step in it, so that what
comes out counts steps; the DequantizeLinear behind, which has a scale a channel, makes values of
them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .integer_convolutions import IntegerConv2d, integer_convolutions
from .onnx_integers import scope
from .static_convolutions import Grid

if TYPE_CHECKING:
    import onnx

MIDDLE = np.uint8(128)


def with_plain_convolutions(module: nn.Module) -> nn.Module:
    """A copy with the float convolutions again, which `write_convolutions` finds by their names."""
    plain = copy.deepcopy(module)
    for name, integer in integer_convolutions(plain).items():
        parent = plain.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], integer.conv)
    return plain


def write_convolutions(model: onnx.ModelProto, layers: Mapping[str, IntegerConv2d]) -> None:
    """Put integers in place of the named float convolutions of a graph."""
    for layer, integer in layers.items():
        (index,) = [
            i
            for i, node in enumerate(model.graph.node)
            if node.op_type == "Conv" and node.name.startswith(scope(layer))
        ]
        conv = model.graph.node[index]
        written = _Writer(conv, scope(layer))
        written.write(integer)
        del model.graph.node[index]
        for node in reversed(written.nodes):
            model.graph.node.insert(index, node)
        used = {name for node in model.graph.node for name in node.input}
        kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, *written.constants])


class _Writer:
    """The nodes and constants in place of one Conv node."""

    def __init__(self, conv: onnx.NodeProto, start: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._conv, self._start = conv, start

    def write(self, integer: IntegerConv2d) -> None:
        weights, scales = (t.double().numpy() for t in integer.integers())
        stored = self._constant("weight", weights.astype(np.int8))
        x = self._conv.input[0]
        coarse = self._quantise(x, integer.inputs, "coarse")
        middles = integer.middles.double().numpy()
        y = self._convolve(
            coarse,
            stored,
            scales=scales,
            grid=integer.inputs,
            steps=integer.steps,
            middles=middles,
            name="coarse",
        )
        if integer.fine_steps is not None:
            rest = self._node("Sub", [x, coarse], "rest")
            fine = self._quantise(rest, integer.fine, "fine")
            added = self._convolve(
                fine,
                stored,
                scales=scales,
                grid=integer.fine,
                steps=integer.fine_steps,
                middles=None,
                name="fine",
            )
            y = self._node("Add", [y, added], "sum")
        if integer.conv.bias is not None:
            bias = integer.conv.bias.detach().float().numpy().reshape(1, -1, 1, 1)
            y = self._node("Add", [y, self._constant("bias", bias)], "biased")
        self.nodes[-1].output[0] = self._conv.output[0]

    def _convolve(
        self,
        x: str,
        stored: str,
        *,
        scales: NDArray[np.float64],
        grid: Grid,
        steps: Any,
        middles: NDArray[np.float64] | None,
        name: str,
    ) -> str:
        from onnx import helper

        width = steps.double().numpy()
        per_step = (scales / width).astype(np.float32)
        zeros = self._constant("zeros", np.zeros(len(width), np.int8))
        weight = self._node(
            "DequantizeLinear",
            [stored, self._constant(f"{name}.weight_scales", per_step), zeros],
            f"{name}.weight",
            axis=0,
        )
        inputs = [x, weight]
        if middles is not None and middles.any():
            unit = np.float64(np.float32(grid.scale)) * per_step
            counted = np.round(-middles / width / unit).astype(np.int32)
            bias = self._constant(f"{name}.bias", counted)
            scale = self._constant(f"{name}.bias_scales", unit.astype(np.float32))
            none = self._constant(f"{name}.bias_zeros", np.zeros(len(width), np.int32))
            inputs.append(
                self._node("DequantizeLinear", [bias, scale, none], f"{name}.bias_values", axis=0)
            )
        attributes = {a.name: helper.get_attribute_value(a) for a in self._conv.attribute}
        made = self._node("Conv", inputs, f"{name}.product", **attributes)
        one = self._constant("one", np.float32(1))
        middle = self._constant("middle", MIDDLE)
        counted_out = self._node("QuantizeLinear", [made, one, middle], f"{name}.steps")
        widths = self._constant(f"{name}.widths", width.astype(np.float32))
        middles_of = self._constant("middles", np.full(len(width), MIDDLE))
        return self._node(
            "DequantizeLinear", [counted_out, widths, middles_of], f"{name}.values", axis=1
        )

    def _quantise(self, x: str, grid: Grid, name: str) -> str:
        scale = self._constant(f"{name}.scale", np.float32(grid.scale))
        zero = self._constant(f"{name}.zero", np.uint8(grid.zero_point))
        counted = self._node("QuantizeLinear", [x, scale, zero], f"{name}.integers")
        return self._node("DequantizeLinear", [counted, scale, zero], name)

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
