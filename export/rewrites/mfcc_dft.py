"""torchaudio's MFCC as real matrix products: no complex numbers, no STFT.

Frames are rows of the waveform side by side. Their discrete Fourier transform of length n is two of
length n / 2, of the even and the odd samples, by one shared matrix (the first step of Cooley and
Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965):

    X[k] = E[k] + w^k O[k],    X[n/2 - k] = conj(E[k] - w^k O[k]),    w = exp(-2 pi i / n)

for k up to n / 4. That is a quarter of the weights of the whole matrix, which would be larger than
the rest of a small student, and half of the products. All is computed as real parts (cosines) and
negated imaginary parts (sines), side by side.

The floor of the decibel scale, 80 dB below the loudest value of the window, is taken before the
logarithm, where it is the same maximum times 1e-8; ten times the decadic logarithm is the natural
one times a constant, which the cosine transform takes in.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.mfcc_net import MfccFrontEnd
from .base import register_rewrite


class Largest(nn.Module):
    """The largest value of each batch entry: [batch, frames, n_mels] -> [batch, 1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """One value an entry."""
        return x.amax((1, 2), keepdim=True)


class MfccDft(nn.Module):
    """torchaudio.transforms.MFCC of mono: [batch, 1, samples] -> [batch, 1, n_mfcc, frames]."""

    window: Tensor
    fourier: Tensor
    twiddle_cos: Tensor
    twiddle_sin: Tensor
    mel: Tensor
    cosine: Tensor

    def __init__(self, mfcc: Any) -> None:
        super().__init__()
        spectrogram, decibel = mfcc.MelSpectrogram.spectrogram, mfcc.amplitude_to_DB
        size = int(spectrogram.n_fft)
        self.n_fft, self.hop_length = size, int(spectrogram.hop_length)
        self.bins = size // 4 + 1
        self.smallest = float(decibel.amin)
        self.range = 10 ** (-float(mfcc.top_db) / decibel.multiplier)
        self.largest: nn.Module = Largest()
        missing = size - spectrogram.window.numel()
        self.register_buffer(
            "window", F.pad(spectrogram.window, (missing // 2, missing - missing // 2))
        )
        dtype = mfcc.dct_mat.dtype
        for name, value in _fourier(size).items():
            self.register_buffer(name, value.to(dtype))
        self.register_buffer("mel", _mel(mfcc.MelSpectrogram.mel_scale.fb, bins=self.bins))
        to_db = decibel.multiplier / math.log(10)
        self.register_buffer("cosine", (mfcc.dct_mat * to_db).t().contiguous())

    def forward(self, waveform: Tensor) -> Tensor:
        """Coefficients of all frames that lie wholly in the waveform."""
        mel = F.linear(self.power(self.frames(waveform) * self.window), self.mel)
        floor = self.largest(mel) * self.range
        loudness = torch.log(torch.maximum(mel.clamp(min=self.smallest), floor))
        return F.linear(loudness, self.cosine).transpose(1, 2).unsqueeze(1)

    def frames(self, waveform: Tensor) -> Tensor:
        """[batch, 1, samples] -> [batch, frames, n_fft], by rows of one hop beside each other."""
        hop = self.hop_length
        pieces = -(-self.n_fft // hop)
        # The last row may reach beyond the last frame; what it finds there is cut off again.
        padded = F.pad(waveform, (0, pieces * hop - self.n_fft))
        batch, _, samples = padded.shape
        rows = padded[:, :, : samples // hop * hop].reshape(batch, -1, hop)
        parts = [rows[:, i : rows.shape[1] - pieces + 1 + i] for i in range(pieces)]
        last = self.n_fft - (pieces - 1) * hop
        return torch.cat([*parts[:-1], parts[-1][:, :, :last]], dim=2)

    def power(self, frames: Tensor) -> Tensor:
        """[batch, frames, n_fft] -> [batch, frames, 2 * bins]: of X[k], then of X[n / 2 - k]."""
        batch, count, size = frames.shape
        halves = frames.reshape(batch, count, size // 2, 2).transpose(2, 3)
        spectra = F.linear(halves, self.fourier)
        even = spectra[:, :, :1].reshape(batch, count, 2 * self.bins)
        odd = spectra[:, :, 1:].reshape(batch, count, 2 * self.bins)
        crossed = torch.cat([odd[:, :, self.bins :], odd[:, :, : self.bins]], dim=2)
        turned = odd * self.twiddle_cos + crossed * self.twiddle_sin
        squares = [part * part for part in (even + turned, even - turned)]
        return torch.cat([s[:, :, : self.bins] + s[:, :, self.bins :] for s in squares], dim=2)


def _fourier(size: int) -> dict[str, Tensor]:
    """The matrix of the half-length transforms, and the factors between them, in float64."""
    half = size // 2
    k = torch.arange(size // 4 + 1)
    angles = torch.outer(torch.arange(half), k).remainder(half).double() * (2 * math.pi / half)
    turns = k.double() * (2 * math.pi / size)
    cos, sin = turns.cos(), turns.sin()
    return {
        "fourier": torch.cat([angles.cos(), angles.sin()], dim=1).t().contiguous(),
        "twiddle_cos": torch.cat([cos, cos]),
        "twiddle_sin": torch.cat([-sin, sin]),
    }


def _mel(filters: Tensor, *, bins: int) -> Tensor:
    """torchaudio's [n_fft / 2 + 1, n_mels] in the order of `power`, [n_mels, 2 * bins]."""
    half = filters.shape[0] - 1
    mirrored = filters[half - torch.arange(bins)].clone()
    if half % 2 == 0:
        mirrored[-1] = 0  # bin n / 4 is its own mirror image
    return torch.cat([filters[:bins], mirrored]).t().contiguous()


@register_rewrite("mfcc_dft")
class MfccAsMatrixProducts:
    """MfccFrontEnd with torchaudio's MFCC -> the same with MfccDft."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The front-end in matrix products; settings that MfccNet never has are left alone."""
        if not isinstance(module, MfccFrontEnd) or not _is_plain(module.mfcc):
            return None
        rewritten = copy.deepcopy(module)
        rewritten.mfcc = MfccDft(rewritten.mfcc)
        return rewritten


def _is_plain(mfcc: Any) -> bool:
    """Whether it is torchaudio's transform, uncentred, of powers, on a decibel scale."""
    if isinstance(mfcc, MfccDft):
        return False
    spectrogram = mfcc.MelSpectrogram.spectrogram
    return (
        (spectrogram.power, spectrogram.normalized, spectrogram.center) == (2.0, False, False)
        and spectrogram.pad == 0
        and spectrogram.n_fft % 2 == 0
        and not mfcc.log_mels
    )
