"""Log-softmax as shifted logits minus the logarithm of a sum that is at least one.

Backends that have no log-softmax of their own (Core ML) compute the logarithm of a softmax, which
is -inf or an arbitrary floor where the softmax underflows: below exp(-17) in float16. Subtracting
the largest logit first keeps every step in range.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import register_rewrite


class ShiftedLogSoftmax(nn.Module):
    """log-softmax over one dimension, from max, exp, sum and log: any shape, kept."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, logits: Tensor) -> Tensor:
        """Log-probabilities."""
        shifted = logits - logits.amax(self.dim, keepdim=True)
        return shifted - torch.log(torch.exp(shifted).sum(self.dim, keepdim=True))


@register_rewrite("log_softmax")
class LogSoftmax:
    """nn.LogSoftmax -> ShiftedLogSoftmax."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The same function in operations that stay in range."""
        if not isinstance(module, nn.LogSoftmax) or module.dim is None:
            return None
        return ShiftedLogSoftmax(module.dim)
