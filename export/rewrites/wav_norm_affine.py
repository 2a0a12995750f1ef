"""The waveform norm's scale and shift folded into the first convolution.

In pyannote's trained models the norm's shift is some forty times larger than the waveform it has
scaled, so that float32 loses the waveform's last bits in the sum, and the convolution (a bank of
band-pass filters, which cancel any constant) then subtracts what covered them. Folded, the same
function is computed with far less rounding. Needs `sincnet_filterbank` before it; exact because
the convolution has no padding.
"""

from __future__ import annotations

import copy

from torch import nn

from ..models.pyannet import SincFrontEnd
from .base import register_rewrite


@register_rewrite("wav_norm_affine")
class WavNormAffine:
    """SincFrontEnd with an affine waveform norm -> the same with a plain norm."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The folded block; a filterbank that still computes its filters is left alone."""
        if not isinstance(module, SincFrontEnd):
            return None
        norm, conv = module.wav_norm1d, module.conv1d[0]
        if not isinstance(norm, nn.InstanceNorm1d) or not norm.affine:
            return None
        if not isinstance(conv, nn.Conv1d) or conv.padding != (0,):
            return None
        folded = copy.deepcopy(module)
        folded.wav_norm1d = nn.InstanceNorm1d(norm.num_features, eps=norm.eps)
        folded.conv1d[0] = _fold(conv, norm)
        return folded.eval()


def _fold(conv: nn.Conv1d, norm: nn.InstanceNorm1d) -> nn.Conv1d:
    weight = conv.weight.detach()
    shift = (weight * norm.bias.detach()[None, :, None]).sum((1, 2))
    made = nn.Conv1d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        stride=conv.stride[0],
        dtype=weight.dtype,
    )
    made.weight = nn.Parameter(weight * norm.weight.detach()[None, :, None])
    made.bias = nn.Parameter(shift if conv.bias is None else shift + conv.bias.detach())
    return made
