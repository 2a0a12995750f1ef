"""gather and scatter.

Until iOS 16 an index below zero counts from the end; from iOS 17 on, where operations have
`validate_indices`, it is out of bounds. What Core ML gives for an index out of bounds is undefined
unless it is asked to validate: here that is an error always, since no verdict may rest on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Call, operator


def _within(call: Call, indices: Tensor, size: int) -> Tensor:
    """Indices of an axis from its front."""
    lowest = 0 if "validate_indices" in call.given else -size
    if bool(((indices < lowest) | (indices >= size)).any()):
        raise IndexError(f"an index is not within {lowest} to {size - 1}")
    return torch.where(indices < 0, indices + size, indices)


@operator("gather")
def gather(call: Call) -> Tensor:
    """x at indices along an axis; the first `batch_dims` axes are gone through together."""
    x, indices, batch = call.tensor(), call.tensor("indices"), call.whole("batch_dims")
    axis = call.whole("axis") % x.ndim
    places = _within(call, indices, x.shape[axis])
    return _gathered(x, places, axis, batch)


def _gathered(x: Tensor, places: Tensor, axis: int, batch: int) -> Tensor:
    if batch:
        rows = [_gathered(a, b, axis - 1, batch - 1) for a, b in zip(x, places, strict=True)]
        return torch.stack(rows)
    picked = x.index_select(axis, places.reshape(-1))
    return picked.reshape([*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])


@operator("gather_along_axis")
def gather_along_axis(call: Call) -> Tensor:
    """x at an index for every place."""
    x = call.tensor()
    axis = call.whole("axis") % x.ndim
    return x.gather(axis, _within(call, call.tensor("indices"), x.shape[axis]))


@operator("gather_nd")
def gather_nd(call: Call) -> Tensor:
    """x at the index vectors in the last axis of `indices`."""
    return _gathered_nd(call, call.tensor(), call.tensor("indices"), call.whole("batch_dims"))


def _gathered_nd(call: Call, x: Tensor, indices: Tensor, batch: int) -> Tensor:
    if batch:
        pairs = zip(x, indices, strict=True)
        return torch.stack([_gathered_nd(call, a, b, batch - 1) for a, b in pairs])
    return x[_vectors(call, indices, x.shape)]


def _vectors(call: Call, indices: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """One index tensor an axis of the vectors in the last axis."""
    parts = indices.unbind(-1)
    return tuple(_within(call, part, size) for part, size in zip(parts, sizes, strict=False))


@operator("scatter")
def scatter(call: Call) -> Tensor:
    """data with slices along an axis changed: added to, unless another mode is given."""
    data, axis = call.tensor("data"), call.whole("axis")
    axis %= data.ndim
    moved = data.movedim(axis, 0)
    indices = call.tensor("indices").reshape(-1)
    updates = call.tensor("updates").movedim(axis, 0)
    places = (_within(call, indices, data.shape[axis]),)
    return _updated(call, moved, places, updates).movedim(0, axis)


@operator("scatter_along_axis")
def scatter_along_axis(call: Call) -> Tensor:
    """data changed at an index for every place of `indices`."""
    data, axis, indices = call.tensor("data"), call.whole("axis"), call.tensor("indices")
    axis %= data.ndim
    ranges = [torch.arange(size) for size in indices.shape]
    places = list(torch.meshgrid(*ranges, indexing="ij"))
    places[axis] = _within(call, indices, data.shape[axis])
    return _updated(call, data, tuple(places), call.tensor("updates"))


@operator("scatter_nd")
def scatter_nd(call: Call) -> Tensor:
    """data changed at the index vectors in the last axis of `indices`."""
    data = call.tensor("data")
    places = _vectors(call, call.tensor("indices"), data.shape)
    return _updated(call, data, places, call.tensor("updates"))


def _updated(call: Call, data: Tensor, places: tuple[Tensor, ...], updates: Tensor) -> Tensor:
    """Changes one after the other, so that an index that comes twice counts twice."""
    out, mode = data.clone(), call.text("mode", "add")
    if mode == "add":
        return out.index_put_(places, updates.to(out.dtype), accumulate=True)
    if mode == "sub":
        return out.index_put_(places, -updates.to(out.dtype), accumulate=True)
    if mode not in CHANGES:
        raise call.unsupported(f"mode {mode}")
    flat = [place.reshape(-1) for place in torch.broadcast_tensors(*places)]
    rows = updates.reshape(len(flat[0]), *data.shape[len(places) :])
    for number, row in enumerate(rows):
        place = tuple(int(each[number]) for each in flat)
        out[place] = CHANGES[mode](out[place], row).to(out.dtype)
    return out


CHANGES = {
    "update": lambda _, new: new,
    "mul": torch.mul,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
}
