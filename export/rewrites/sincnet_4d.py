"""pyannote's SincNet block on 4-D tensors, the form of which XNNPACK takes every operation.

InstanceNorm1d, a mean over one dimension and MaxPool1d stay on ExecuTorch's portable kernels; their
2-D counterparts on [batch, channels, 1, samples] do not. Needs `sincnet_filterbank` before it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.pyannet import SincFrontEnd
from .base import register_rewrite
from .centred_rectifier import RestingNorm

MANY_SAMPLES = 8192


class InstanceNorm4d(nn.Module):
    """InstanceNorm1d on [batch, channels, 1, samples], by a mean over both last dimensions.

    The variance is the mean of squared differences from the mean (two passes), which in float32 is
    closer to float64 than PyTorch's own.
    """

    scale: Tensor | None
    shift: Tensor | None
    rest: Tensor | None

    def __init__(self, given: nn.InstanceNorm1d | RestingNorm) -> None:
        super().__init__()
        norm: Any = given.norm if isinstance(given, RestingNorm) else given
        self.eps: float = norm.eps
        constants = {"scale": norm.weight, "shift": norm.bias}
        constants["rest"] = given.rest if isinstance(given, RestingNorm) else None
        for name, value in constants.items():
            shaped = None if value is None else value.detach().reshape(1, -1, 1, 1).clone()
            self.register_buffer(name, shaped)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised per batch entry and channel."""
        if self.rest is not None:
            x = x - self.rest
        centred = x - _mean(x)
        variance = _mean(centred * centred)
        factor = torch.rsqrt(variance + self.eps)
        if self.scale is None or self.shift is None:
            return centred * factor
        return centred * (factor * self.scale) + self.shift


def _mean(x: Tensor) -> Tensor:
    """Mean over the samples of [batch, channels, 1, samples], in two steps when they are many.

    XNNPACK adds them up one by one: over the 80,000 samples of a window the sum loses 1.6e-5 of
    its value in float32, as a mean of means 4.6e-7.
    """
    batch, channels, _, samples = x.shape
    rows = _rows(samples)
    if rows > 1:
        x = x.reshape(batch, channels * rows, 1, samples // rows).mean((2, 3), keepdim=True)
        x = x.reshape(batch, channels, 1, rows)
    return x.mean((2, 3), keepdim=True)


def _rows(samples: int) -> int:
    """The divisor of a large number of samples that is next below its root; 1 for a small one."""
    if samples < MANY_SAMPLES:
        return 1
    return max(rows for rows in range(1, int(samples**0.5) + 1) if samples % rows == 0)


class SincFrontEnd4d(nn.Module):
    """SincFrontEnd with the same children, each in its 4-D form: same inputs, same outputs."""

    def __init__(self, frontend: SincFrontEnd) -> None:
        super().__init__()
        wav_norm: Any = frontend.wav_norm1d
        convs: Any = frontend.conv1d
        pools: Any = frontend.pool1d
        norms: Any = frontend.norm1d
        self.wav_norm1d = InstanceNorm4d(wav_norm)
        self.conv1d = nn.ModuleList(conv_4d(conv) for conv in convs)
        self.pool1d = nn.ModuleList(pool_4d(pool) for pool in pools)
        self.norm1d = nn.ModuleList(InstanceNorm4d(norm) for norm in norms)

    def forward(self, waveform: Tensor) -> Tensor:
        """[batch, 1, samples] -> [batch, 60, frames]."""
        batch, _, samples = waveform.shape
        x: Tensor = self.wav_norm1d(waveform.reshape(batch, 1, 1, samples))
        for index, (conv, pool, norm) in enumerate(
            zip(self.conv1d, self.pool1d, self.norm1d, strict=True)
        ):
            x = conv(x)
            if index == 0:
                x = torch.abs(x)
            x = F.leaky_relu(norm(pool(x)))
        return x.reshape(batch, x.shape[1], x.shape[3])


@register_rewrite("sincnet_4d")
class SincNet4d:
    """SincFrontEnd with baked filters -> SincFrontEnd4d."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The 4-D block; a filterbank that still computes its filters is left alone."""
        if not isinstance(module, SincFrontEnd) or not is_plain(module):
            return None
        return SincFrontEnd4d(module)


def is_plain(frontend: SincFrontEnd) -> bool:
    """Whether every child is of the one form that has its 4-D counterpart here."""
    given = [frontend.wav_norm1d, *frontend.norm1d]
    norms = [norm.norm if isinstance(norm, RestingNorm) else norm for norm in given]
    return (
        all(isinstance(n, nn.InstanceNorm1d) and not n.track_running_stats for n in norms)
        and all(
            isinstance(c, nn.Conv1d) and (c.padding, c.groups) == ((0,), 1) for c in frontend.conv1d
        )
        and all(
            isinstance(p, nn.MaxPool1d) and (p.padding, p.dilation, p.ceil_mode) == (0, 1, False)
            for p in frontend.pool1d
        )
    )


def conv_4d(conv: nn.Conv1d) -> nn.Conv2d:
    """The same convolution over [batch, channels, 1, samples]."""
    wide = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (1, conv.kernel_size[0]),
        stride=(1, conv.stride[0]),
        dilation=(1, conv.dilation[0]),
        bias=conv.bias is not None,
        dtype=conv.weight.dtype,
    )
    wide.weight.data.copy_(conv.weight.detach().unsqueeze(2))
    if conv.bias is not None and wide.bias is not None:
        wide.bias.data.copy_(conv.bias.detach())
    return wide


def pool_4d(pool: nn.MaxPool1d) -> nn.MaxPool2d:
    """The same pooling over [batch, channels, 1, samples]."""
    kernel, stride = (v if isinstance(v, int) else v[0] for v in (pool.kernel_size, pool.stride))
    return nn.MaxPool2d((1, kernel), (1, stride))
