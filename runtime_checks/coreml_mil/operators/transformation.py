"""Operations that move values: shape, order, slices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Call, operator


@operator("transpose")
def transpose(call: Call) -> Tensor:
    """Axes in another order."""
    x = call.tensor()
    return x.permute([axis % x.ndim for axis in call.wholes("perm")]) if x.ndim else x


@operator("expand_dims")
def expand_dims(call: Call) -> Tensor:
    """A one at every axis of the result."""
    x, axes = call.tensor(), call.wholes("axes")
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("squeeze")
def squeeze(call: Call) -> Tensor:
    """Without the ones among the axes; what is no one stays, as in PyTorch."""
    x = call.tensor()
    return x.squeeze(call.axes()) if x.ndim else x


@operator("reshape")
def reshape(call: Call) -> Tensor:
    """0 keeps the size of x at its place, counted from the last; -1 takes what is left."""
    x, asked = call.tensor(), call.wholes("shape")
    if x.numel():
        sizes = [1] * (len(asked) - x.ndim) + list(x.shape)[-len(asked) :]
        asked = [kept if size == 0 else size for size, kept in zip(asked, sizes, strict=False)]
    return x.reshape(asked)


@operator("reshape_like")
def reshape_like(call: Call) -> Tensor:
    """To sizes that are taken from other tensors."""
    shape: list[int] = []
    for reference, begin, end, to_end in zip(
        *(call.tensors(name) for name in ("ref_tensors", "begins", "ends", "end_masks")),
        strict=True,
    ):
        shape += reference.shape[int(begin) : None if to_end else int(end)]
    return call.tensor().reshape(shape)


@operator("flatten2d")
def flatten2d(call: Call) -> Tensor:
    """Two axes: those before `axis`, and the rest."""
    x, axis = call.tensor(), call.whole("axis", 1)
    rows = math.prod(x.shape[: axis % x.ndim if axis < 0 else axis])
    return x.reshape(rows, -1)


@operator("reverse")
def reverse(call: Call) -> Tensor:
    """The other way round along axes."""
    return call.tensor().flip(call.axes())


@operator("reverse_sequence")
def reverse_sequence(call: Call) -> Tensor:
    """The first `lengths[i]` steps of sequence i the other way round."""
    x, lengths = call.tensor(), call.wholes("lengths")
    batch, steps = call.whole("batch_axis"), call.whole("seq_axis")
    moved = x.movedim((batch, steps), (0, 1)).clone()
    for row, length in enumerate(lengths):
        moved[row, :length] = moved[row, :length].flip(0)
    return moved.movedim((0, 1), (batch, steps))


def _indexed(call: Call, x: Tensor) -> tuple[tuple[slice, ...], list[int]]:
    """Slices of slice_by_index and slice_update, and the axes that its squeeze mask drops.

    Slices count as Python's; a squeezed axis keeps the one value at its begin.
    """
    masks = {
        name: call.wholes(name) if name in call.given else [0] * x.ndim
        for name in ("begin_mask", "end_mask", "squeeze_mask")
    }
    begins, ends = call.wholes("begin"), call.wholes("end")
    strides = call.wholes("stride") if "stride" in call.given else [1] * x.ndim
    slices = []
    for axis, stride in enumerate(strides):
        begin = None if masks["begin_mask"][axis] else begins[axis]
        end = None if masks["end_mask"][axis] else ends[axis]
        if masks["squeeze_mask"][axis]:
            first = (begin or 0) % x.shape[axis]
            slices.append(slice(first, first + 1, 1))
        else:
            slices.append(slice(begin, end, stride))
    return tuple(slices), [axis for axis in range(x.ndim) if masks["squeeze_mask"][axis]]


def _positions(x: Tensor, slices: Sequence[slice]) -> list[Tensor]:
    """Index tensors of slices: torch has no negative strides."""
    ranges = [
        torch.tensor(range(*each.indices(size)), dtype=torch.int64)
        for each, size in zip(slices, x.shape, strict=True)
    ]
    return list(torch.meshgrid(*ranges, indexing="ij"))


@operator("slice_by_index")
def slice_by_index(call: Call) -> Tensor:
    """x[begin:end:stride], axis by axis."""
    x = call.tensor()
    slices, dropped = _indexed(call, x)
    forward = all(each.step > 0 for each in slices)
    found = x[slices] if forward else x[tuple(_positions(x, slices))]
    return found.squeeze(dropped) if dropped else found


@operator("slice_update")
def slice_update(call: Call) -> Tensor:
    """x with other values at x[begin:end:stride]."""
    x = call.tensor().clone()
    slices, _ = _indexed(call, x)
    places = _positions(x, slices)
    x[tuple(places)] = call.tensor("update").reshape(places[0].shape)
    return x


@operator("slice_by_size")
def slice_by_size(call: Call) -> Tensor:
    """`size` values from `begin`, all that are left where it is -1."""
    x = call.tensor()
    for axis, (begin, size) in enumerate(
        zip(call.wholes("begin"), call.wholes("size"), strict=True)
    ):
        first = begin % x.shape[axis] if begin < 0 else begin
        x = x.narrow(axis, first, x.shape[axis] - first if size == -1 else size)
    return x


@operator("sliding_windows")
def sliding_windows(call: Call) -> Tensor:
    """Windows along an axis, their values along a new axis behind it."""
    x = call.tensor()
    axis = call.whole("axis") % x.ndim
    return x.unfold(axis, call.whole("size"), call.whole("stride", 1)).movedim(-1, axis + 1)


@operator("depth_to_space")
def depth_to_space(call: Call) -> Tensor:
    """Channels into blocks; the block's place is the outer part of the channel."""
    x, size = call.tensor(), call.whole("block_size")
    n, c, h, w = x.shape
    parts = x.reshape(n, size, size, c // size**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, c // size**2, h * size, w * size)


@operator("space_to_depth")
def space_to_depth(call: Call) -> Tensor:
    """The inverse of depth_to_space."""
    x, size = call.tensor(), call.whole("block_size")
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // size, size, w // size, size)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, c * size**2, h // size, w // size)


@operator("pixel_shuffle")
def pixel_shuffle(call: Call) -> Tensor:
    """Channels into blocks; the block's place is the inner part of the channel."""
    return F.pixel_shuffle(call.tensor(), call.whole("upscale_factor"))


@operator("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Tensor:
    """The inverse of pixel_shuffle."""
    return F.pixel_unshuffle(call.tensor(), call.whole("downscale_factor"))


@operator("space_to_batch")
def space_to_batch(call: Call) -> Tensor:
    """Places within blocks of the padded image become the outer part of the batch."""
    (high, wide), (top, bottom, left, right) = call.wholes("block_shape"), call.wholes("paddings")
    x = F.pad(call.tensor(), (left, right, top, bottom))
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // high, high, w // wide, wide)
    return parts.permute(3, 5, 0, 1, 2, 4).reshape(n * high * wide, c, h // high, w // wide)


@operator("batch_to_space")
def batch_to_space(call: Call) -> Tensor:
    """The inverse of space_to_batch, cropped."""
    (high, wide), (top, bottom, left, right) = call.wholes("block_shape"), call.wholes("crops")
    x = call.tensor()
    n, c, h, w = x.shape
    parts = x.reshape(high, wide, n // (high * wide), c, h, w).permute(2, 3, 4, 0, 5, 1)
    whole = parts.reshape(n // (high * wide), c, h * high, w * wide)
    return whole[:, :, top : h * high - bottom, left : w * wide - right]
