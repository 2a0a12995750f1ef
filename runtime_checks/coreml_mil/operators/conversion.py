"""cast, quantize and dequantize."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numerics import WORKING
from .base import Call, along, floating, operator

RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@operator("cast")
def cast(call: Call) -> Tensor:
    """To another type: towards zero where it is an integer, within its range."""
    x, kind = call.tensor(), call.text("dtype")
    if kind in ("fp16", "fp32"):
        return x.to(WORKING)
    if kind == "bool":
        return x != 0
    whole = x.trunc().nan_to_num().to(torch.int64) if floating(x) else x.to(torch.int64)
    bits = {"int32": torch.int32, "int16": torch.int16}.get(kind)
    if kind in RANGES:
        return whole.clamp(*RANGES[kind])
    if bits is None:
        return whole.clamp(min=0) if kind.startswith("uint") else whole
    limits = torch.iinfo(bits)
    return whole.clamp(limits.min, limits.max)


@operator("quantize")
def quantize(call: Call) -> Tensor:
    """clip(round(input / scale) + zero_point), halves to the even number."""
    x = call.tensor("input")
    scale, zero = _parameters(call, x)
    low, high = RANGES[call.text("output_dtype")]
    return (torch.round(x / scale) + zero).clamp(low, high)


@operator("dequantize")
def dequantize(call: Call) -> Tensor:
    """scale * (input - zero_point)."""
    x = call.tensor("input").to(WORKING)
    scale, zero = _parameters(call, x)
    return scale * (x - zero)


def _parameters(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point, each one number or one for every place of an axis."""
    axis = call.whole("axis") % x.ndim if x.ndim else 0
    zero = call.maybe("zero_point")
    shift = torch.zeros(()) if zero is None else along(zero, axis=axis, rank=x.ndim)
    return along(call.tensor("scale"), axis=axis, rank=x.ndim), shift.to(x.dtype)
