"""GE2E speaker encoder: LSTM layers over mel energies, the last state through a linear layer.

Wan et al., "Generalized end-to-end loss for speaker verification", 2018. The front-end and the
normalisation of loudness are those of Resemblyzer, whose published weights have this shape: 40 mel
bands, no logarithm, three layers of 256.

A state that runs through a speaker's pauses forgets him, and audio silenced where another speaks is
nothing that the encoder ever heard. So the frames that count are gathered, one after the other, and
the encoder hears parts of them of the length it was trained on.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..pyannote_import import torchaudio
from ..types import Recipe
from .base import register_model
from .embedding import SEGMENTATION_FRAMES, EmbeddingArchitecture, NearestWeights
from .fbank import Fbank

LOUDNESS = 10**-3.0
"""Mean power that quieter speech is brought to: -30 dBFS, as in training."""

COUNTS_FROM = 0.5
"""A frame counts from this part of its speaker's largest weight on."""

FEW = 1e-6


class Partials(nn.Module):
    """Gathers the frames that count into `count` parts of `length` frames.

    [batch, frames, features] and weights [batch, speakers, frames] ->
    [batch, speakers, count * length, features]. Parts lie evenly over the frames that count; where
    these are fewer than a part, they are repeated from the first one. Products with a matrix of
    zeros and ones, since its shape does not depend on the weights.
    """

    def __init__(self, *, length: int, count: int) -> None:
        super().__init__()
        self.length, self.count = length, count

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """`counts` is 1 where a frame counts and 0 elsewhere."""
        position = counts.cumsum(2)
        total = position[:, :, -1:].clamp(min=1)
        steps = torch.arange(self.length, dtype=x.dtype, device=x.device)
        parts = []
        for part in range(self.count):
            place = part / max(self.count - 1, 1)
            start = torch.floor((total - self.length).clamp(min=0) * place)
            parts.append(torch.remainder(start + steps, total) + 1)
        wanted = torch.cat(parts, dim=2).unsqueeze(3)
        chosen = (position.unsqueeze(2) == wanted).to(x.dtype) * counts.unsqueeze(2)
        return chosen @ x.unsqueeze(1)


class LastState(nn.LSTM):
    """LSTM layers of which only the last state of the last one counts: [batch, steps, features] ->
    [batch, hidden]."""

    def __init__(self, inputs: int, hidden_size: int, num_layers: int, *, steps: int) -> None:
        super().__init__(inputs, hidden_size, num_layers, batch_first=True)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """The states."""
        _, (hidden, _) = super().forward(x)
        last: Tensor = hidden[-1]
        return last


class Ge2eEncoder(nn.Module):
    """Waveform and weights to embeddings; `part_frames` and `parts` say what is heard of a window.

    An embedding is the mean of the parts' embeddings, each of length one: for one part it has
    length one, for more at most one.
    """

    def __init__(
        self,
        *,
        mel_bands: int = 40,
        frame_ms: int = 25,
        step_ms: int = 10,
        hidden_size: int = 256,
        num_layers: int = 3,
        dimension: int = 256,
        part_frames: int = 160,
        parts: int = 3,
        frames: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.frames = SEGMENTATION_FRAMES | (frames or {})
        self.dimension, self.mel_bands = dimension, mel_bands
        self.frame_ms, self.step_ms = frame_ms, step_ms
        rate = int(self.frames["sample_rate_hz"])
        size = rate * frame_ms // 1000
        self.smallest_samples = size
        filters = torchaudio().functional.melscale_fbanks(
            size // 2 + 1, 0.0, rate / 2, mel_bands, rate, norm="slaney", mel_scale="slaney"
        )
        self.frontend = Fbank(
            window=torch.hann_window(size, dtype=torch.float64),
            mel=filters.t().contiguous(),
            fft_samples=size,
            hop_samples=rate * step_ms // 1000,
            pad_samples=size // 2,
        )
        self.align = NearestWeights()
        self.partials = Partials(length=part_frames, count=parts)
        self.lstm = LastState(mel_bands, hidden_size, num_layers, steps=part_frames)
        self.linear = nn.Linear(hidden_size, dimension)

    def forward(self, waveform: Tensor, weights: Tensor) -> Tensor:
        """[batch, 1, samples] and [batch, speakers, frames] -> [batch, speakers, dimension]."""
        energies = self.frontend(waveform)
        power = self.frontend.frames(waveform).square().mean(2, keepdim=True)
        aligned = self.align(weights, energies.shape[1])
        largest = aligned.amax(2, keepdim=True)
        counts = ((aligned >= COUNTS_FROM * largest) & (aligned > FEW)).to(energies.dtype)
        heard = self.partials(torch.cat([energies, power], dim=2), counts)
        total = counts.sum(2).clamp(min=1)
        mean_power = (counts * power.transpose(1, 2)).sum(2) / total
        gain = (LOUDNESS / mean_power.clamp(min=1e-12)).clamp(min=1)
        return self.encode(heard[..., :-1] * gain[:, :, None, None])

    def encode(self, x: Tensor) -> Tensor:
        """[batch, speakers, parts * length, bands] -> [batch, speakers, dimension]."""
        batch, speakers = x.shape[:2]
        parts = x.reshape(-1, self.partials.length, self.mel_bands)
        raw = F.relu(self.linear(self.lstm(parts)))
        unit = raw / raw.square().sum(1, keepdim=True).sqrt().clamp(min=FEW)
        return unit.reshape(batch, speakers, self.partials.count, self.dimension).mean(2)


@register_model("Ge2eEncoder")
class Ge2eArchitecture(EmbeddingArchitecture):
    """Ge2eEncoder by its configuration."""

    name = "Ge2eEncoder"

    def tiny_config(self) -> dict[str, Any]:
        """Two layers of 16 on one-second windows."""
        return {
            "hidden_size": 16,
            "num_layers": 2,
            "dimension": 8,
            "part_frames": 40,
            "parts": 2,
            "frames": {"window_s": 1.0},
        }

    def build(self, config: dict[str, Any]) -> nn.Module:
        """An encoder in evaluation mode; its weights are random until a state dict is loaded."""
        return Ge2eEncoder(**config).eval()

    def config(self, model: nn.Module) -> dict[str, Any]:
        """Plain-JSON configuration of an encoder."""
        net: Any = model
        return {
            "mel_bands": net.mel_bands,
            "frame_ms": net.frame_ms,
            "step_ms": net.step_ms,
            "hidden_size": net.lstm.hidden_size,
            "num_layers": net.lstm.num_layers,
            "dimension": net.dimension,
            "part_frames": net.partials.length,
            "parts": net.partials.count,
            "frames": dict(net.frames),
        }

    def refuses(self, recipe: Recipe) -> str | None:
        """All but ONNX: there is nothing to delegate in the gathering of frames, and it is there to
        teach and to compare with."""
        if recipe.backend != "onnx_ort":
            return "the GE2E encoder gathers frames, which is exported to ONNX alone"
        return super().refuses(recipe)

    def canonical(self, model: nn.Module) -> nn.Module:
        """Its own copy: an encoder is as plain as exporters need it."""
        return copy.deepcopy(model).cpu().eval()


def published_config(config: dict[str, Any], *, name: str) -> dict[str, Any] | None:
    """The description of published weights (bands, frames, length of a part) as `config.json` of
    ours has it; None for anything else."""
    if not {"n_mels", "mel_window_ms", "mel_step_ms", "partial_window_frames"} <= set(config):
        return None
    return {
        "architecture": "Ge2eEncoder",
        "name": name,
        "licence": str(config.get("license", "unknown")),
        "trained_on": str(config.get("source", "unknown")),
        "config": {
            "mel_bands": config["n_mels"],
            "frame_ms": config["mel_window_ms"],
            "step_ms": config["mel_step_ms"],
            "part_frames": config["partial_window_frames"],
            "frames": {"sample_rate_hz": config["sample_rate_hz"]},
        },
    }
