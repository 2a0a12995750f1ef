"""Biases of SincNet's later convolutions chosen so that silence gives zero.

A max-pooling and an instance norm follow each of them, and the norm takes away any constant that
a bias adds: the bias is free. What float32 loses on the way is not: the norm divides what it
cannot tell from zero by the square root of its epsilon, and a mean is only as exact as what it is
the mean of is large. With the outputs centred, digital silence, where nothing but rounding is left
to normalise, stays silence through all norms.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.pyannet import SincFrontEnd
from .base import register_rewrite


@register_rewrite("centred_convolutions")
class CentredConvolutions:
    """SincFrontEnd -> the same with other biases in all convolutions but the first."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The centred block, or None when a bias is not free in it."""
        if not isinstance(module, SincFrontEnd):
            return None
        convs, norms = list(module.conv1d), list(module.norm1d)
        if not all(isinstance(norm, nn.InstanceNorm1d) for norm in norms):
            return None
        if not all(isinstance(c, nn.Conv1d) and c.padding == (0,) for c in convs[1:]):
            return None
        centred = copy.deepcopy(module)
        for conv, before in zip(list(centred.conv1d)[1:], norms, strict=False):
            _centre(conv, shift=before.bias)
        return centred


def _centre(conv: nn.Module, *, shift: object) -> None:
    """Give the convolution the bias that cancels its output where the norm before gives its shift.

    That is the norm's output on anything that does not change over time; None is no shift.
    """
    weight = conv.get_parameter("weight").detach()
    if isinstance(shift, Tensor):
        silence = F.leaky_relu(shift.detach())[None, :, None]
        conv.bias = nn.Parameter(-(weight * silence).sum((1, 2)))
    else:
        conv.bias = nn.Parameter(weight.new_zeros(weight.shape[0]))
