"""Reductions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Call, operator

Over = Callable[[Call, Tensor, list[int]], Tensor]

REDUCTIONS: dict[str, Over] = {
    "reduce_l1_norm": lambda call, x, axes: call.total(x.abs(), axes),
    "reduce_l2_norm": lambda call, x, axes: call.total(x.square(), axes).sqrt(),
    "reduce_log_sum": lambda call, x, axes: call.total(x, axes).log(),
    "reduce_log_sum_exp": lambda _, x, axes: torch.logsumexp(x, axes, keepdim=True),
    "reduce_max": lambda _, x, axes: x.amax(axes, keepdim=True),
    "reduce_mean": lambda call, x, axes: call.total(x, axes) / _count(x, axes),
    "reduce_min": lambda _, x, axes: x.amin(axes, keepdim=True),
    "reduce_prod": lambda _, x, axes: _product(x, axes),
    "reduce_sum": lambda call, x, axes: call.total(x, axes),
    "reduce_sum_square": lambda call, x, axes: call.total(x.square(), axes),
}


def _count(x: Tensor, axes: list[int]) -> int:
    return int(torch.tensor([x.shape[axis] for axis in axes]).prod())


def _product(x: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def _register(kind: str, reduce: Over) -> None:
    def apply(call: Call) -> Tensor:
        x, axes = call.tensor(), call.axes()
        if not axes:
            return x
        out = reduce(call, x, axes)
        return out if call.flag("keep_dims") else out.squeeze(axes)

    operator(kind)(apply)


for _kind, _reduce in REDUCTIONS.items():
    _register(_kind, _reduce)


@operator("reduce_argmax", "reduce_argmin")
def argument(call: Call) -> Tensor:
    """Index of the largest or smallest value along one axis."""
    find = torch.argmax if call.operation.kind == "reduce_argmax" else torch.argmin
    return find(call.tensor(), call.whole("axis", -1), keepdim=call.flag("keep_dims"))
