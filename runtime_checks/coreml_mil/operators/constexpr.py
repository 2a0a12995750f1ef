"""Weights that are stored compressed: the constexpr operations of iOS 16 and iOS 18.

Both have operations of one name and other parameters: those of iOS 16 give a `shape` and pack
their bits themselves, those of iOS 18 have types below a byte.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..numerics import WORKING
from .base import Call, along, operator


@operator("constexpr_cast")
def constexpr_cast(call: Call) -> Tensor:
    """Stored as float16."""
    return call.tensor("source_val")


@operator("constexpr_affine_dequantize")
def affine_dequantize(call: Call) -> Tensor:
    """scale * (quantized_data - zero_point), each one number or one for every place of an axis."""
    data = call.tensor("quantized_data").to(WORKING)
    axis = call.whole("axis") % data.ndim
    scale, zero = (
        along(call.tensor(n), axis=axis, rank=data.ndim) for n in ("scale", "zero_point")
    )
    return scale * (data - zero)


@operator("constexpr_blockwise_shift_scale")
def blockwise_shift_scale(call: Call) -> Tensor:
    """scale * (data - offset), one of each a block."""
    data = call.tensor("data").to(WORKING)
    offset = call.maybe("offset")
    centred = data if offset is None else data - spread(offset, data.shape)
    return spread(call.tensor("scale"), data.shape) * centred


@operator("constexpr_sparse_blockwise_shift_scale")
def sparse_blockwise_shift_scale(call: Call) -> tuple[Tensor, Tensor]:
    """The same for the values that a mask keeps; the mask comes first."""
    mask, offset = call.tensor("data_mask"), call.maybe("offset")
    data, kept = call.tensor("nonzero_data").to(WORKING), mask != 0
    centred = data if offset is None else data - spread(offset, mask.shape)[kept]
    return mask, spread(call.tensor("scale"), mask.shape)[kept] * centred


@operator("constexpr_lut_to_dense")
def lut_to_dense(call: Call) -> Tensor:
    """Indices into a table; in iOS 18 one table a block, of numbers or vectors."""
    indices, lut = call.tensor("indices"), call.tensor("lut")
    if "shape" not in call.given:
        return looked_up(indices, lut, axis=call.whole("vector_axis"))
    shape, bits = call.wholes("shape"), int(math.log2(len(lut)))
    places = unpacked(indices, bits=bits, count=math.prod(shape))
    return lut[places].reshape(shape)


@operator("constexpr_lut_to_sparse")
def lut_to_sparse(call: Call) -> tuple[Tensor, Tensor]:
    """The same for the values that a mask keeps; a vector makes its mask as long."""
    mask, lut = call.tensor("indices_mask"), call.tensor("lut")
    indices = torch.zeros_like(mask)
    indices[mask != 0] = call.tensor("indices_nonzero_data")
    axis = call.whole("vector_axis") % mask.ndim
    wide = mask.repeat_interleave(lut.shape[-1], axis)
    return wide, looked_up(indices, lut, axis=axis)[wide != 0]


@operator("constexpr_sparse_to_dense")
def sparse_to_dense(call: Call) -> Tensor:
    """The values that a mask keeps, zeros elsewhere."""
    data, mask = call.tensor("nonzero_data"), call.tensor("mask")
    if "shape" in call.given:
        shape = call.wholes("shape")
        mask = unpacked(mask, bits=1, count=math.prod(shape)).reshape(shape)
    out = torch.zeros(mask.shape, dtype=data.dtype)
    out[mask != 0] = data
    return out


def spread(parameter: Tensor, shape: torch.Size) -> Tensor:
    """A parameter a block, repeated for every value of its block."""
    for axis, size in enumerate(shape):
        parameter = parameter.repeat_interleave(size // parameter.shape[axis], axis)
    return parameter


def looked_up(indices: Tensor, lut: Tensor, *, axis: int) -> Tensor:
    """lut [..., palettes, vector] at indices [...]; vectors lie along an axis (from either end).

    The table of an index is that of its block.
    """
    palettes, width = lut.shape[-2:]
    tables = lut.reshape(*lut.shape[:-2], palettes * width)
    tables = spread(tables, torch.Size([*indices.shape, palettes * width]))
    tables = tables.reshape(*indices.shape, palettes, width)
    places = indices[..., None, None].expand(*indices.shape, 1, width)
    vectors = tables.gather(-2, places).squeeze(-2)
    if width == 1:
        return vectors.squeeze(-1)
    axis %= indices.ndim
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


def unpacked(packed: Tensor, *, bits: int, count: int) -> Tensor:
    """Numbers of a few bits each from bytes, lowest bits first, across the bytes' borders."""
    single = (packed[:, None] >> torch.arange(8)) & 1
    return (single.reshape(-1)[: count * bits].reshape(count, bits) << torch.arange(bits)).sum(-1)
