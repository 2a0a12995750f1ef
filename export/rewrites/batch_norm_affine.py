"""A batch norm over time as a product and a sum by channel.

Where it follows a rectifier, no runtime can put it into a convolution before it, and XNNPACK has no
batch norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import register_rewrite


class ChannelAffine(nn.Module):
    """x * scale + shift, by channel: [batch, channels, frames] -> the same."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None  # noqa: S101 - `replace` has looked
        scale = torch.rsqrt(variance + norm.eps)
        shift = -mean * scale
        if norm.affine:
            scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
        self.register_buffer("scale", scale.detach().reshape(1, -1, 1))
        self.register_buffer("shift", shift.detach().reshape(1, -1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised as in evaluation."""
        return x * self.scale + self.shift


@register_rewrite("batch_norm_affine")
class BatchNormAsAffine:
    """nn.BatchNorm1d with running statistics -> ChannelAffine."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The affine form; None for everything else."""
        if not isinstance(module, nn.BatchNorm1d) or module.running_mean is None:
            return None
        return ChannelAffine(module)
