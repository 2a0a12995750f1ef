"""Operations that make tensors, join and part them, and order their values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Call, operator


@operator("shape")
def shape(call: Call) -> Tensor:
    """Sizes of x."""
    return torch.tensor(call.tensor().shape, dtype=torch.int64)


@operator("fill")
def fill(call: Call) -> Tensor:
    """One value everywhere."""
    value = call.tensor("value") if "value" in call.given else torch.zeros(())
    return value.reshape(()).expand(call.wholes("shape"))


@operator("fill_like")
def fill_like(call: Call) -> Tensor:
    """One value everywhere, in the shape of another tensor."""
    value = call.tensor("value") if "value" in call.given else torch.zeros(())
    return value.reshape(()).expand(call.tensor("ref_tensor").shape)


@operator("range_1d")
def range_1d(call: Call) -> Tensor:
    """From start to before end."""
    start, end, step = (call.tensor(name) for name in ("start", "end", "step"))
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@operator("tile")
def tile(call: Call) -> Tensor:
    """x repeated along its axes."""
    return call.tensor().repeat(call.wholes("reps"))


@operator("concat")
def concat(call: Call) -> Tensor:
    """One behind the other, or value by value in turn (interleave); scalars make a vector."""
    values = [each.reshape(1) if each.ndim == 0 else each for each in call.tensors()]
    axis = call.whole("axis")
    if not call.flag("interleave"):
        return torch.cat(values, axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


@operator("stack")
def stack(call: Call) -> Tensor:
    """Along a new axis."""
    return torch.stack(call.tensors(), call.whole("axis"))


@operator("split")
def split(call: Call) -> tuple[Tensor, ...]:
    """In equal parts, or in parts of given sizes."""
    x, axis = call.tensor(), call.whole("axis")
    if "split_sizes" in call.given:
        return tuple(x.split(call.wholes("split_sizes"), axis))
    return tuple(x.split(x.shape[axis] // call.whole("num_splits"), axis))


@operator("pad")
def pad(call: Call) -> Tensor:
    """The last axes, with a constant, their reflection or their edge."""
    x, amounts = call.tensor(), call.wholes("pad")
    mode = call.text("mode", "constant")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    axes = range(x.ndim - len(pairs), x.ndim)
    if mode == "constant":
        flat = [side for pair in reversed(pairs) for side in pair]
        value = call.tensor("constant_val").item() if "constant_val" in call.given else 0.0
        return F.pad(x, flat, value=value)
    if mode not in ("reflect", "replicate"):
        raise call.unsupported(f"mode {mode}")
    for axis, (before, behind) in zip(axes, pairs, strict=True):
        places = torch.arange(-before, x.shape[axis] + behind)
        last = x.shape[axis] - 1
        if mode == "reflect":
            places = last - (places.abs() - last).abs()
        x = x.index_select(axis, places.clamp(0, last))
    return x


@operator("band_part")
def band_part(call: Call) -> Tensor:
    """Zero outside a band around the diagonal of the last two axes."""
    x = call.tensor()
    lower, upper = call.whole("lower", -1), call.whole("upper", -1)
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
    outside = ((below > lower) & (lower >= 0)) | ((-below > upper) & (upper >= 0))
    return torch.where(outside, torch.zeros_like(x), x)


@operator("cumsum")
def cumsum(call: Call) -> Tensor:
    """Running sums along an axis, from its end with `reverse`, before each value if exclusive."""
    x, axis = call.tensor(), call.whole("axis")
    x = x.flip(axis) if call.flag("reverse") else x
    sums = x.cumsum(axis)
    sums = sums - x if call.flag("exclusive") else sums
    return sums.flip(axis) if call.flag("reverse") else sums


@operator("non_zero")
def non_zero(call: Call) -> Tensor:
    """Indices of the values that are not zero, one a row."""
    return torch.nonzero(call.tensor())


@operator("one_hot")
def one_hot(call: Call) -> Tensor:
    """`on_value` at the index, `off_value` elsewhere, along a new axis."""
    indices, size = call.tensor("indices"), call.whole("one_hot_vector_size")
    rank = indices.ndim + 1
    axis = call.whole("axis", -1) % rank
    hot = indices.unsqueeze(axis) == torch.arange(size).reshape(
        [size if each == axis else 1 for each in range(rank)]
    )
    on, off = call.maybe("on_value"), call.maybe("off_value")
    ones = torch.ones((), dtype=torch.int64) if on is None else on
    return torch.where(hot, ones, torch.zeros_like(ones) if off is None else off)


@operator("argsort")
def argsort(call: Call) -> Tensor:
    """Indices that put x in order along an axis."""
    descending = not call.flag("ascending")
    return call.tensor().argsort(dim=call.whole("axis", -1), descending=descending, stable=True)


@operator("topk")
def topk(call: Call) -> Tensor | tuple[Tensor, Tensor]:
    """The k largest (or smallest) values in order, and their indices; of equal ones the first."""
    x, axis = call.tensor(), call.whole("axis", -1)
    k = call.whole("k", 1)
    k = x.shape[axis] if k == -1 else k
    order = x.argsort(dim=axis, descending=not call.flag("ascending"), stable=True)
    indices = order.narrow(axis, 0, k)
    values = x.gather(axis, indices)
    return (values, indices) if call.flag("return_indices", True) else values
