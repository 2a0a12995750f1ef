"""Are a package's weights those of the PyTorch model that was exported?

Scores tell of what matters on some windows. A bit that flipped low in one scale does not, nor do
two filters that changed places in a layer nobody leans on; compared number by number they do. What
a file decompresses to is compared with what its way of storing makes of the model's weights: equal
to the last bit, but for 4-bit blocks, scales between zeros and those in float32, which are given
their rounding.

Layers are found by their order (`layers`). Weights within loops are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .evaluator import Evaluator
from .program import Operation, Value

LAYERS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Conv1d, "conv"),
    (nn.LSTM, "lstm"),
    (nn.Linear, "linear"),
)
ROUNDING = {"fp16": 2.0**-11, "fp32": 2.0**-24}
ROWS = ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")
SPARSE = "constexpr_sparse_to_dense"
ROUNDINGS = 4  # of the largest and the smallest value, of their scale, of the product
LARGEST = 127


def weight_faults(evaluator: Evaluator, module: nn.Module) -> tuple[str, ...]:
    """Weights of a package that are not the exported module's, each with its layer's name.

    `module` is what was traced. Where the program has another number of layers of a kind (loops in
    place of recurrent layers), that kind is not compared.
    """
    faults: list[str] = []
    for kind_of_layer, kind in LAYERS:
        layers = [(n, m) for n, m in module.named_modules() if isinstance(m, kind_of_layer)]
        operations = [op for op in evaluator.block.operations if op.kind == kind]
        # Products before the layers are a front-end's transforms.
        operations = operations[len(operations) - len(layers) :] if kind == "linear" else operations
        if len(operations) == len(layers):
            for (name, layer), operation in zip(layers, operations, strict=True):
                faults += _faults(evaluator, operation, name=name, layer=layer)
    return tuple(faults)


def _faults(evaluator: Evaluator, operation: Operation, *, name: str, layer: Any) -> Iterator[str]:
    for key, expected in _expected(layer).items():
        value = operation.inputs.get(key)
        held = evaluator.held(value) if isinstance(value, Value) else None
        if not isinstance(value, Value) or held is None:
            continue
        maker = next((op for op in evaluator.block.walk() if value in op.outputs), None)
        wanted = _as_stored(expected.detach(), value, maker)
        if held.shape != wanted.shape:
            yield f"{name}: {key} has shape {tuple(held.shape)}, expected {tuple(wanted.shape)}"
            continue
        off = ~((held - wanted).abs() <= _allowed(wanted, value, maker))  # NaN is off too
        if int(off.sum()):
            worst = float((held - wanted).abs().max())
            yield (
                f"{name}: {int(off.sum())} of {off.numel()} values of {key} are not the exported "
                f"model's (off by up to {worst:.2g})"
            )


def _expected(layer: Any) -> Mapping[str, Tensor]:
    """A layer's tensors by the names that Core ML has for them."""
    if not isinstance(layer, nn.LSTM):
        found = {"weight": layer.weight, "bias": layer.bias}
        return {key: tensor for key, tensor in found.items() if tensor is not None}
    named = dict(layer.named_parameters())
    found = {}
    for suffix, end in (("", ""), ("_reverse", "_back"))[: 1 + layer.bidirectional]:
        for part in ("ih", "hh"):
            found[f"weight_{part}{end}"] = _gates(named[f"weight_{part}_l0{suffix}"])
        if layer.bias:
            bias = named[f"bias_ih_l0{suffix}"] + named[f"bias_hh_l0{suffix}"]
            found[f"bias{end}"] = _gates(bias)
    return found


def _gates(values: Tensor) -> Tensor:
    """PyTorch's input, forget, cell, output gates in Core ML's order."""
    i, f, g, o = values.chunk(4)
    return torch.cat([i, f, o, g])


def _as_stored(expected: Tensor, value: Value, maker: Operation | None) -> Tensor:
    """What a way of storing makes of weights, in float64."""
    given = expected.half() if value.dtype == "fp16" else expected.float()
    if not _in_int8_rows(maker):
        return given.double()
    rows = given.reshape(len(given), -1)
    scale = (rows.abs().amax(1, keepdim=True).double() / LARGEST).to(given.dtype)
    steps = (rows.double() / scale.double()).nan_to_num().round()
    return (steps * scale.double()).to(given.dtype).double().reshape(given.shape)


def _allowed(wanted: Tensor, value: Value, maker: Operation | None) -> Tensor:
    """Nothing; where a scale was computed in another way than here, its rounding."""
    rounded = _in_int8_rows(maker) and value.dtype == "fp32"
    if rounded or (_is_scaled(maker) and not _in_int8_rows(maker)):
        return ROUNDINGS * ROUNDING[value.dtype] * wanted.abs()
    return torch.zeros_like(wanted)


def _is_scaled(maker: Operation | None) -> bool:
    """Whether values are integers times a scale."""
    if maker is None:
        return False
    # Between zeros they come from a second operation; otherwise they are in the file.
    between = maker.kind == SPARSE and maker.inputs["nonzero_data"].constant is None  # type: ignore[union-attr]
    return between or maker.kind in ROWS


def _in_int8_rows(maker: Operation | None) -> bool:
    if maker is None or maker.kind not in ROWS:
        return False
    data = maker.inputs["data" if "data" in maker.inputs else "quantized_data"]
    return isinstance(data, Value) and not data.dtype.endswith("int4")
