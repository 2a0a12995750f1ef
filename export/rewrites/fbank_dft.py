"""The Fourier transform of mel energies as two small real products: no complex numbers, no FFT.

For frames of N = R C samples, n = C n1 + n2 and k = k1 + R k2 (Cooley and Tukey, "An algorithm for
the machine calculation of complex Fourier series", 1965):

    X[k] = sum over n2 of exp(-2 pi i n2 k2 / C) exp(-2 pi i n2 k1 / N) A[k1, n2],
    A[k1, n2] = sum over n1 of x[C n1 + n2] exp(-2 pi i n1 k1 / R).

The samples are real, so k1 up to R / 2 gives every bin or its mirror image, of the same power. For
400 samples that is 3,500 constants, where `mfcc_dft`'s halvings keep 55,000, and half its products.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.fbank import Fbank
from .base import register_rewrite

ROWS = 16


class FbankProducts(nn.Module):
    """Fbank in matrix products: [batch, 1, samples] -> [batch, frames, bands]."""

    first: Tensor
    turn_cos: Tensor
    turn_sin: Tensor
    second: Tensor
    mel: Tensor
    window: Tensor

    def __init__(self, fbank: Fbank) -> None:
        super().__init__()
        self.fbank = copy.deepcopy(fbank)
        del self.fbank.mel  # or the file would hold it beside the one in this order
        size = fbank.fft_samples
        self.columns, self.bins = size // ROWS, ROWS // 2 + 1
        dtype = fbank.mel.dtype
        rows, columns = torch.arange(ROWS), torch.arange(self.columns)
        low = torch.arange(self.bins)
        first, turn = _angles(low, rows, ROWS), _angles(columns, low, size)
        second = _angles(columns, columns, self.columns)
        cos, sin = second.cos(), second.sin()
        constants = {
            "window": fbank.window(torch.float64),
            "first": torch.cat([first.cos(), -first.sin()]),
            "turn_cos": turn.cos(),
            "turn_sin": turn.sin(),
            "second": torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)]),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.to(dtype))
        k = (low[:, None] + ROWS * columns[None]).reshape(-1)
        mirrored = torch.minimum(k, size - k)
        # A bin that comes twice, as itself and as its mirror image, counts half each time.
        times = torch.bincount(mirrored, minlength=size // 2 + 1)[mirrored]
        self.register_buffer("mel", (fbank.mel[:, mirrored] / times).contiguous())

    def frames(self, waveform: Tensor) -> Tensor:
        """The frames before any shaping."""
        return self.fbank.frames(waveform)

    def forward(self, waveform: Tensor) -> Tensor:
        """Energies of all frames."""
        frames = self.fbank.shaped(self.fbank.frames(waveform), self.window)
        missing = self.fbank.fft_samples - frames.shape[2]
        frames = F.pad(frames, (0, missing)) if missing else frames
        batch, count, _ = frames.shape
        x = F.linear(frames.reshape(batch, count, ROWS, self.columns).transpose(2, 3), self.first)
        real, imaginary = x[..., : self.bins], x[..., self.bins :]
        turned = torch.cat(
            [
                real * self.turn_cos + imaginary * self.turn_sin,
                imaginary * self.turn_cos - real * self.turn_sin,
            ],
            dim=2,
        )
        y = F.linear(turned.transpose(2, 3), self.second)
        real, imaginary = y[..., : self.columns], y[..., self.columns :]
        power = (real * real + imaginary * imaginary).reshape(batch, count, -1)
        return F.linear(power, self.mel)


def _angles(left: Tensor, right: Tensor, size: int) -> Tensor:
    """Phases 2 pi l r / size, [left, right], in float64."""
    turns = torch.outer(left, right).remainder(size)
    return turns.double() * (2 * math.pi / size)


@register_rewrite("fbank_dft")
class FbankAsMatrixProducts:
    """Fbank -> FbankProducts, where the transform's length is a multiple of 16."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The products; other front-ends are left alone."""
        if not isinstance(module, Fbank) or module.fft_samples % ROWS:
            return None
        return FbankProducts(module)
