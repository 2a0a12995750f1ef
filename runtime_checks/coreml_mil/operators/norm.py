"""Normalisations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Call, along, operator


def _scaled(call: Call, x: Tensor) -> Tensor:
    """Times gamma and plus beta, by channel."""
    for name, combine in (("gamma", torch.mul), ("beta", torch.add)):
        vector = call.maybe(name)
        if vector is not None:
            x = combine(x, along(vector, axis=1, rank=x.ndim))
    return x


@operator("batch_norm")
def batch_norm(call: Call) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon), by channel (axis 1)."""
    x = call.tensor()
    mean = along(call.tensor("mean"), axis=1, rank=x.ndim)
    variance = along(call.tensor("variance"), axis=1, rank=x.ndim)
    return _scaled(call, (x - mean) / torch.sqrt(variance + call.number("epsilon", 1e-5)))


@operator("instance_norm")
def instance_norm(call: Call) -> Tensor:
    """Each channel of each sample, over all further axes, with the biased variance."""
    x = call.tensor()
    return _scaled(call, _standardised(call, x, list(range(2, x.ndim))))


@operator("layer_norm")
def layer_norm(call: Call) -> Tensor:
    """Over `axes`; gamma and beta have the sizes of these axes."""
    x, axes = call.tensor(), sorted(call.axes())
    shape = [x.shape[axis] if axis in axes else 1 for axis in range(x.ndim)]
    out = _standardised(call, x, axes)
    gamma, beta = call.maybe("gamma"), call.maybe("beta")
    out = out if gamma is None else out * gamma.reshape(shape)
    return out if beta is None else out + beta.reshape(shape)


def _standardised(call: Call, x: Tensor, axes: list[int]) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    return centred / torch.sqrt(variance + call.number("epsilon", 1e-5))


@operator("l2_norm")
def l2_norm(call: Call) -> Tensor:
    """x / sqrt(sum of squares + epsilon) over the last three axes."""
    x = call.tensor()
    squares = x.square().sum((-3, -2, -1), keepdim=True)
    return x / torch.sqrt(squares + call.number("epsilon", 1e-6))


@operator("local_response_norm")
def local_response_norm(call: Call) -> Tensor:
    """x / (k + alpha / size * sum of squares of the neighbouring channels) ** beta."""
    x, size = call.tensor(), call.whole("size")
    padded = F.pad(x.square().movedim(1, -1), (size // 2, (size - 1) // 2))
    squares = padded.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    scale = call.number("k", 1.0) + call.number("alpha", 1e-4) / size * squares
    return x / scale ** call.number("beta", 0.75)
