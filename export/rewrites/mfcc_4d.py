"""The MFCC front-end in the operations that XNNPACK takes.

A maximum over everything and an instance norm stay on ExecuTorch's portable kernels; a max-pooling
and a mean over both last of four dimensions do not. Needs `mfcc_dft` before it.
"""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.mfcc_net import MfccFrontEnd
from .base import register_rewrite
from .mfcc_dft import FromFirstFrame, MfccDft
from .sincnet_4d import InstanceNorm4d


class PooledLargest(nn.Module):
    """Largest as a max-pooling, over bands and then over frames."""

    def forward(self, x: Tensor) -> Tensor:
        """One value an entry."""
        batch, frames, bands = x.shape
        pooled = x.reshape(batch, 1, frames, bands)
        for size in ((1, bands), (frames, 1)):
            pooled = F.max_pool2d(pooled, size, size)
        return pooled.reshape(batch, 1, 1)


class MfccFrontEnd4d(nn.Module):
    """MfccFrontEnd in matrix products, with its norm in four dimensions."""

    def __init__(self, frontend: MfccFrontEnd, *, dft: MfccDft, norm: nn.InstanceNorm1d) -> None:
        super().__init__()
        self.before, self.after = frontend.before, frontend.after
        self.mfcc = copy.deepcopy(dft)
        self.mfcc.largest = PooledLargest()
        self.norm = InstanceNorm4d(norm)

    def forward(self, waveform: Tensor) -> Tensor:
        """[batch, 1, samples] -> [batch, n_mfcc, frames]."""
        inner = waveform[:, :, self.before : waveform.shape[2] - self.after]
        x = self.mfcc.coefficients(inner).transpose(1, 2)
        batch, channels, frames = x.shape
        normalised: Tensor = self.norm((x - x[:, :, :1]).reshape(batch, channels, 1, frames))
        return normalised.reshape(batch, channels, frames)


@register_rewrite("mfcc_4d")
class Mfcc4d:
    """MfccFrontEnd in matrix products -> the same wholly in XNNPACK's operations."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The front-end; one that still uses torchaudio's transform is left alone."""
        if not isinstance(module, MfccFrontEnd):
            return None
        dft, norm = module.mfcc, module.norm
        plain = norm.norm if isinstance(norm, FromFirstFrame) else None
        if not isinstance(dft, MfccDft) or not isinstance(plain, nn.InstanceNorm1d):
            return None
        return MfccFrontEnd4d(module, dft=dft, norm=plain)
