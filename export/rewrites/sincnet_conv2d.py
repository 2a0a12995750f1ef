"""pyannote's SincNet block on images of one row, for which ONNX Runtime has kernels of its own.

One-dimensional convolutions and poolings run there as a copy of all frames and a matrix product.
Two-dimensional ones, equal to them on [batch, channels, 1, samples], are given to direct kernels
on blocks of channels, which take the rectifier between them along if it is a LeakyReLU; |x| is the
LeakyReLU of slope -1. Needs `sincnet_filterbank` before it.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.pyannet import SincFrontEnd
from .base import register_rewrite
from .centred_rectifier import RestingNorm
from .sincnet_4d import conv_4d, is_plain, pool_4d


class SincFrontEndConv2d(nn.Module):
    """SincFrontEnd with the same children, each in its 2-D form: same inputs, same outputs."""

    def __init__(self, frontend: SincFrontEnd) -> None:
        super().__init__()
        convs: Any = frontend.conv1d
        pools: Any = frontend.pool1d
        self.wav_norm1d = frontend.wav_norm1d
        self.conv1d = nn.ModuleList(conv_4d(conv) for conv in convs)
        self.pool1d = nn.ModuleList(pool_4d(pool) for pool in pools)
        self.norm1d = nn.ModuleList(_resting_2d(norm) for norm in frontend.norm1d)

    def forward(self, waveform: Tensor) -> Tensor:
        """[batch, 1, samples] -> [batch, 60, frames]."""
        x: Tensor = self.wav_norm1d(waveform)
        x = x.reshape(x.shape[0], 1, 1, -1)
        for index, (conv, pool, norm) in enumerate(
            zip(self.conv1d, self.pool1d, self.norm1d, strict=True)
        ):
            x = conv(x)
            if index == 0:
                x = F.leaky_relu(x, negative_slope=-1.0)
            x = F.leaky_relu(norm(pool(x)))
        return x.squeeze(2)


@register_rewrite("sincnet_conv2d")
class SincNetConv2d:
    """SincFrontEnd with baked filters -> SincFrontEndConv2d."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The block in two dimensions; a filterbank that computes its filters is left alone."""
        if not isinstance(module, SincFrontEnd) or not is_plain(module):
            return None
        return SincFrontEndConv2d(module).eval()


def _resting_2d(norm: Any) -> nn.Module:
    if isinstance(norm, RestingNorm):
        return RestingNorm(_norm_2d(norm.norm), norm.get_buffer("rest"))
    return _norm_2d(norm)


def _norm_2d(norm: nn.InstanceNorm1d | nn.InstanceNorm2d) -> nn.InstanceNorm2d:
    made = nn.InstanceNorm2d(norm.num_features, eps=norm.eps, affine=norm.affine)
    made.load_state_dict(norm.state_dict(), assign=True)
    return made
