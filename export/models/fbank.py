"""Mel energies of short frames: the front-end of the speaker embedding networks.

Frames as Kaldi and librosa cut them, a real Fourier transform, its power, mel filters. What is
made of the energies (a logarithm, a floor, a mean) is the network's own matter.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fbank(nn.Module):
    """[batch, 1, samples] -> mel energies [batch, frames, bands], all of them at least zero.

    `window` [frame samples], kept in float64, and `mel` [bands, fft_samples / 2 + 1] are constants
    that no state dict holds; frames are padded with zeros at their end to `fft_samples`.
    `pad_samples` zeros go before and after the waveform; frames that would reach beyond are left
    out. As in Kaldi,
    `remove_mean` takes each frame's own mean away, and then `pre_emphasis` times the sample before
    (the first one: times itself).
    """

    mel: Tensor

    def __init__(
        self,
        *,
        window: Tensor,
        mel: Tensor,
        fft_samples: int,
        hop_samples: int,
        pad_samples: int = 0,
        remove_mean: bool = False,
        pre_emphasis: float = 0.0,
    ) -> None:
        super().__init__()
        self.fft_samples, self.hop_samples = fft_samples, hop_samples
        self.pad_samples, self.remove_mean = pad_samples, remove_mean
        self.pre_emphasis = pre_emphasis
        self.window_values = tuple(window.double().tolist())
        self.register_buffer("mel", mel, persistent=False)

    def num_frames(self, samples: int) -> int:
        """Frames of a waveform of so many samples."""
        return (samples + 2 * self.pad_samples - len(self.window_values)) // self.hop_samples + 1

    def forward(self, waveform: Tensor) -> Tensor:
        """Energies of all frames."""
        frames = self.frames(waveform)
        window = self.window(frames.dtype).to(frames.device)
        return F.linear(self.power(self.shaped(frames, window)), self.mel)

    def window(self, dtype: torch.dtype) -> Tensor:
        """The window, rounded once."""
        return torch.tensor(self.window_values, dtype=dtype)

    def frames(self, waveform: Tensor) -> Tensor:
        """[batch, 1, samples] -> [batch, frames, frame samples], rows of one hop side by side."""
        size, hop = len(self.window_values), self.hop_samples
        pieces = -(-size // hop)
        # The last row may reach beyond the last frame; what it finds there is cut off again.
        padded = F.pad(waveform, (self.pad_samples, self.pad_samples + pieces * hop - size))
        batch, _, samples = padded.shape
        rows = padded[:, :, : samples // hop * hop].reshape(batch, -1, hop)
        parts = [rows[:, i : rows.shape[1] - pieces + 1 + i] for i in range(pieces)]
        last = size - (pieces - 1) * hop
        return torch.cat([*parts[:-1], parts[-1][:, :, :last]], dim=2)

    def shaped(self, frames: Tensor, window: Tensor) -> Tensor:
        """Frames without their mean, emphasised and windowed."""
        if self.remove_mean:
            batch, count, size = frames.shape
            mean = frames.reshape(batch, count, 1, size).mean((2, 3), keepdim=True)
            frames = frames - mean.reshape(batch, count, 1)
        if self.pre_emphasis:
            before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
            frames = frames - self.pre_emphasis * before
        return frames * window

    def power(self, frames: Tensor) -> Tensor:
        """[batch, frames, frame samples] -> [batch, frames, bins]."""
        spectrum = torch.fft.rfft(frames, n=self.fft_samples)
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return power
