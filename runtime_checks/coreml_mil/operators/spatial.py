"""Padding that convolutions and pools share, from sizes as Core ML counts them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from .base import Call


def strides_of(call: Call, *, spatial: int, name: str = "strides") -> list[int]:
    """One number a spatial dimension, ones when left out."""
    return call.wholes(name) if name in call.given else [1] * spatial


def paddings(
    call: Call, *, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """(before, after) of every spatial dimension for `pad_type`; kernels count their dilation.

    "same" gives ceil(size / stride) outputs and puts an odd element behind, "same_lower" in front.
    """
    kind = call.text("pad_type", "valid")
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        given = call.wholes("pad") if "pad" in call.given else [0] * (2 * len(sizes))
        return list(zip(given[::2], given[1::2], strict=True))
    if kind not in ("same", "same_lower"):
        raise call.unsupported(f"pad_type {kind}")
    found = []
    for size, width, stride in zip(sizes, kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        smaller = total // 2
        found.append((smaller, total - smaller) if kind == "same" else (total - smaller, smaller))
    return found


def pad_spatial(x: Tensor, amounts: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """x [n, c, *sizes] with every spatial dimension padded."""
    flat = [side for pair in reversed(amounts) for side in pair]
    return F.pad(x, flat, value=value) if any(flat) else x
