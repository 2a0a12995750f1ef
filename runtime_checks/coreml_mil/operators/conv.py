"""conv and conv_transpose, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Call, operator
from .spatial import pad_spatial, paddings, strides_of

CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


@operator("conv")
def conv(call: Call) -> Tensor:
    """x [n, c_in, *d], weight [c_out, c_in / groups, *k], bias [c_out]."""
    x, weight, bias = call.tensor(), call.tensor("weight"), call.maybe("bias")
    spatial = weight.ndim - 2
    strides = strides_of(call, spatial=spatial)
    dilations = strides_of(call, spatial=spatial, name="dilations")
    kernel = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    amounts = paddings(call, sizes=x.shape[2:], kernel=kernel, strides=strides)
    padded, groups = pad_spatial(x, amounts), call.whole("groups", 1)
    if call.stepwise:
        return _stepwise(call, padded, weight, strides=strides, dilations=dilations, groups=groups)
    return CONVOLUTIONS[spatial - 1](padded, weight, bias, strides, 0, dilations, groups)


def _stepwise(
    call: Call,
    x: Tensor,
    weight: Tensor,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Tensor:
    """As a product of patches and filters, which is added up in order."""
    patches = x
    for axis, (size, stride, step) in enumerate(
        zip(weight.shape[2:], strides, dilations, strict=True)
    ):
        width = (size - 1) * step + 1
        patches = patches.unfold(2 + axis, width, stride)[..., ::step]
    spatial = weight.ndim - 2
    sizes = patches.shape[2 : 2 + spatial]
    # [n, groups, positions, taps of a group]
    grouped = patches.reshape(x.shape[0], groups, -1, *patches.shape[2:])
    order = [0, 1, *range(3, 3 + spatial), 2, *range(3 + spatial, grouped.ndim)]
    rows = grouped.permute(order).reshape(x.shape[0], groups, sizes.numel(), -1)
    filters = weight.reshape(groups, weight.shape[0] // groups, -1).transpose(1, 2)
    out = call.product(rows, filters[None]).transpose(2, 3).reshape(x.shape[0], -1, *sizes)
    bias = call.maybe("bias")
    return out if bias is None else out + bias.reshape(-1, *[1] * spatial)


@operator("conv_transpose")
def conv_transpose(call: Call) -> Tensor:
    """x [n, c_in, *d], weight [c_in, c_out / groups, *k]: the whole, then what padding leaves."""
    x, weight, bias = call.tensor(), call.tensor("weight"), call.maybe("bias")
    spatial = weight.ndim - 2
    strides = strides_of(call, spatial=spatial)
    dilations = strides_of(call, spatial=spatial, name="dilations")
    whole = TRANSPOSED[spatial - 1](
        x, weight, None, strides, 0, 0, call.whole("groups", 1), dilations
    )
    begins, sizes = _kept(call, whole.shape[2:], sizes=x.shape[2:], strides=strides)
    for axis, (begin, size) in enumerate(zip(begins, sizes, strict=True), start=2):
        missing = begin + size - whole.shape[axis]
        if missing > 0:  # an output_shape that reaches further than any input
            blank = [*whole.shape]
            blank[axis] = missing
            whole = torch.cat([whole, whole.new_zeros(blank)], axis)
        whole = whole.narrow(axis, begin, size)
    return whole if bias is None else whole + bias.reshape(-1, *[1] * spatial)


def _kept(
    call: Call, whole: Sequence[int], *, sizes: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Where the output begins within the whole, and its size, by spatial dimension."""
    kind = call.text("pad_type", "valid")
    asked = call.wholes("output_shape")[2:] if "output_shape" in call.given else None
    if kind == "custom":
        pad = call.wholes("pad")
        left = [n - a - b for n, a, b in zip(whole, pad[::2], pad[1::2], strict=True)]
        return pad[::2], asked or left
    if kind == "valid":
        return [0] * len(whole), asked or list(whole)
    if kind not in ("same", "same_lower"):
        raise call.unsupported(f"pad_type {kind}")
    kept = asked or [n * stride for n, stride in zip(sizes, strides, strict=True)]
    over = [max(n - k, 0) for n, k in zip(whole, kept, strict=True)]
    return [n // 2 if kind == "same" else n - n // 2 for n in over], kept
