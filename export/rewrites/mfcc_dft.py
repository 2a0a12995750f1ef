"""torchaudio's MFCC as real matrix products: no complex numbers, no STFT.

Frames are rows of the waveform side by side. A discrete Fourier transform is a product with a
matrix of cosines and one of sines, which for 400 samples would be as large as the rest of a small
student. Halving (decimation in frequency: Gentleman and Sande, "Fast Fourier transforms: for fun
and profit", 1966) makes them a third: of the two halves a, b of a frame,

    a + b holds all even bins, of half the length;    a - b all odd bins, as they are;

and the even ones are halved again. Nothing is subtracted that a loud bin dominates, so that quiet
bins keep their digits. For their sake the waveform's mean is taken away first, and what it has in
each bin is added: a DC offset would else be cancelled product by product, in rounded sums.

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

HALVINGS = 3


class Largest(nn.Module):
    """The largest value of each batch entry: [batch, frames, n_mels] -> [batch, 1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """One value an entry."""
        return x.amax((1, 2), keepdim=True)


class Waves(nn.Module):
    """Products with the cosines and sines of some bins, each [batch, frames, bins]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, angles: Tensor, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("cos", angles.cos().to(dtype))
        self.register_buffer("sin", angles.sin().to(dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of [batch, frames, length]."""
        return F.linear(x, self.cos), F.linear(x, self.sin)


class MfccDft(nn.Module):
    """torchaudio.transforms.MFCC of mono: [batch, 1, samples] -> [batch, 1, n_mfcc, frames].

    `constant_cos` and `constant_sin` are the transform of the frames' window: what a signal that
    was moved by some level before the window has that many times too little.
    """

    window: Tensor
    constant_cos: Tensor
    constant_sin: Tensor
    mel: Tensor
    cosine: Tensor

    def __init__(self, mfcc: Any) -> None:
        super().__init__()
        spectrogram, decibel = mfcc.MelSpectrogram.spectrogram, mfcc.amplitude_to_DB
        size = int(spectrogram.n_fft)
        self.n_fft, self.hop_length = size, int(spectrogram.hop_length)
        self.smallest = float(decibel.amin)
        self.range = 10 ** (-float(mfcc.top_db) / decibel.multiplier)
        self.largest: nn.Module = Largest()
        missing = size - spectrogram.window.numel()
        window = F.pad(spectrogram.window, (missing // 2, missing - missing // 2))
        self.register_buffer("window", window)
        bins = _bins(size)
        halved, dtype = len(bins) - 1, window.dtype
        angles = [_angles(b, size) for b in bins]
        self.bands = nn.ModuleList(
            Waves(a[:, : size >> min(i + 1, halved)], dtype=dtype) for i, a in enumerate(angles)
        )
        whole = torch.cat(angles)
        for name, wave in (("constant_cos", whole.cos()), ("constant_sin", whole.sin())):
            self.register_buffer(name, (wave @ window.double()).to(dtype))
        filters = mfcc.MelSpectrogram.mel_scale.fb[torch.cat(bins)]
        self.register_buffer("mel", filters.t().contiguous())
        to_db = decibel.multiplier / math.log(10)
        self.register_buffer("cosine", (mfcc.dct_mat * to_db).t().contiguous())

    def forward(self, waveform: Tensor) -> Tensor:
        """Coefficients of all frames that lie wholly in the waveform."""
        return self.coefficients(waveform).transpose(1, 2).unsqueeze(1)

    def coefficients(self, waveform: Tensor) -> Tensor:
        """The same as [batch, frames, n_mfcc]."""
        mel = self.mel_power(waveform)
        return self.cepstrum(mel, self.largest(mel))

    def mel_power(self, waveform: Tensor) -> Tensor:
        """Powers of the mel bands, [batch, frames, n_mels]."""
        batch, _, samples = waveform.shape
        level = waveform.reshape(batch, 1, 1, samples).mean((2, 3), keepdim=True)
        level = level.reshape(batch, 1, 1)
        frames = self.frames(waveform - level) * self.window
        return F.linear(self.power(frames, level), self.mel)

    def cepstrum(self, mel: Tensor, largest: Tensor) -> Tensor:
        """Coefficients of mel powers, in decibels with a floor below the largest."""
        loudness = torch.log(torch.maximum(mel.clamp(min=self.smallest), largest * self.range))
        return F.linear(loudness, self.cosine)

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

    def power(self, x: Tensor, level: Tensor) -> Tensor:
        """[batch, frames, n_fft] -> [batch, frames, bins], in the order of `_bins`."""
        parts = []
        for band in self.bands[:-1]:
            first, second = x[:, :, : x.shape[2] // 2], x[:, :, x.shape[2] // 2 :]
            parts.append(band(first - second))
            x = first + second
        parts.append(self.bands[-1](x))
        cos, sin = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        cos, sin = cos + level * self.constant_cos, sin + level * self.constant_sin
        return cos * cos + sin * sin


def _angles(bins: Tensor, size: int) -> Tensor:
    """Phases of some bins at all samples, [bins, size], in float64."""
    turns = torch.outer(bins, torch.arange(size)).remainder(size)
    return turns.double() * (2 * math.pi / size)


def _bins(size: int) -> list[Tensor]:
    """Bins 0 to size / 2 by what halving leaves: odd ones, twice odd ones, ..., all others."""
    bins, remaining, step = [], torch.arange(size // 2 + 1), 1
    while size % (2 * step) == 0 and step < 2**HALVINGS:
        odd = remaining % (2 * step) == step
        bins.append(remaining[odd])
        remaining = remaining[~odd]
        step *= 2
    return [*bins, remaining]


class FromFirstFrame(nn.Module):
    """An instance norm of differences from the first frame, which are what it takes away anyway.

    Coefficient 0 of silence is near -1000. The mean of a window of such, as XNNPACK adds it up, is
    off by 1e-3 in float32; of differences it is exact.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """[batch, coefficients, frames], normalised."""
        normalised: Tensor = self.norm(x - x[:, :, :1])
        return normalised


@register_rewrite("mfcc_dft")
class MfccAsMatrixProducts:
    """MfccFrontEnd with torchaudio's MFCC -> the same with MfccDft."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The front-end in matrix products; settings that MfccNet never has are left alone."""
        if not isinstance(module, MfccFrontEnd) or not _is_plain(module.mfcc):
            return None
        rewritten = copy.deepcopy(module)
        rewritten.mfcc = MfccDft(rewritten.mfcc)
        if isinstance(module.norm, nn.InstanceNorm1d) and not module.norm.affine:
            rewritten.norm = FromFirstFrame(module.norm)
        return rewritten


def _is_plain(mfcc: Any) -> bool:
    """Whether it is torchaudio's transform, uncentred, of powers, on a decibel scale."""
    if isinstance(mfcc, MfccDft):
        return False
    spectrogram = mfcc.MelSpectrogram.spectrogram
    return (
        (spectrogram.power, spectrogram.normalized, spectrogram.center) == (2.0, False, False)
        and spectrogram.pad == 0
        and not mfcc.log_mels
    )
