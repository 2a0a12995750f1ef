"""max_pool, avg_pool and l2_pool."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Call, operator
from .spatial import pad_spatial, paddings, strides_of


@operator("max_pool", "avg_pool", "l2_pool")
def pool(call: Call) -> Tensor:
    """x [n, c, *d] over windows of `kernel_sizes`."""
    x, kernel = call.tensor(), call.wholes("kernel_sizes")
    strides = strides_of(call, spatial=len(kernel))
    amounts = paddings(call, sizes=x.shape[2:], kernel=kernel, strides=strides)
    counts = [
        _windows(size, pads, width=width, stride=stride, ceil=call.flag("ceil_mode"))
        for size, pads, width, stride in zip(x.shape[2:], amounts, kernel, strides, strict=True)
    ]
    # What the last window of ceil mode reaches beyond the padding; a window may end before it.
    reach = [
        (count - 1) * stride + width - size - sum(pads)
        for count, stride, width, size, pads in zip(
            counts, strides, kernel, x.shape[2:], amounts, strict=True
        )
    ]
    beyond = [(0, each) for each in reach]

    def windows(values: Tensor, inner: float, outer: float) -> Tensor:
        values = pad_spatial(pad_spatial(values, amounts, inner), beyond, outer)
        for axis, (width, stride) in enumerate(zip(kernel, strides, strict=True), start=2):
            values = values.unfold(axis, width, stride)
        return values.flatten(-len(kernel))

    if call.operation.kind == "max_pool":
        return windows(x, -torch.inf, -torch.inf).amax(-1)
    if call.operation.kind == "l2_pool":
        return windows(x.square(), 0.0, 0.0).sum(-1).sqrt()
    # Padding counts unless it is excluded; what ceil mode adds never does.
    padding_counts = float(not call.flag("exclude_padding_from_average"))
    number = windows(torch.ones_like(x), padding_counts, 0.0).sum(-1)
    return windows(x, 0.0, 0.0).sum(-1) / number


def _windows(size: int, pads: tuple[int, int], *, width: int, stride: int, ceil: bool) -> int:
    """How many windows there are; in ceil mode the last must begin before the padding behind."""
    extra = stride - 1 if ceil else 0
    count = (size + sum(pads) - width + extra) // stride + 1
    if ceil and any(pads) and (count - 1) * stride >= size + pads[0]:
        count -= 1
    return count
