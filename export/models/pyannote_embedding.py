"""What pyannote.audio's embedding networks share: pooling by weights, and their contract.

Whatever they are made of, they pool mean and unbiased deviation over the frames of each speaker,
and end in a linear layer. An `EmbeddingNet` says that in plain modules; it shares no code with
pyannote's `forward`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..pyannote_import import pyannote_audio
from .embedding import SEGMENTATION_FRAMES, EmbeddingArchitecture, NearestWeights

SMALLEST = 1e-8


class UnbiasedStatistics(nn.Module):
    """Mean and unbiased deviation of each channel over the frames of each speaker, by weight.

    [batch, channels, frames] and [batch, speakers, frames] -> [batch, speakers, 2 * channels], as
    pyannote's StatsPool with its three epsilons.
    """

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Of a speaker without weight: zeros."""
        batch, channels, frames = x.shape
        speakers = weights.shape[1]
        total = _sum(weights) + SMALLEST
        squares = _sum(weights * weights)
        mean = torch.bmm(weights, x.transpose(1, 2)) / total
        away = x.reshape(batch, 1, channels, frames) - mean.reshape(batch, speakers, channels, 1)
        flat = (away * away).reshape(batch * speakers, channels, frames)
        spread = torch.bmm(flat, weights.reshape(batch * speakers, frames, 1))
        variance = spread.reshape(batch, speakers, channels) / (total - squares / total + SMALLEST)
        return torch.cat([mean, torch.sqrt(variance)], dim=2)


def _sum(weights: Tensor) -> Tensor:
    """[batch, speakers, frames] -> [batch, speakers, 1], as a mean that XNNPACK takes."""
    batch, speakers, frames = weights.shape
    mean = weights.reshape(batch, speakers, 1, frames).mean((2, 3), keepdim=True)
    return mean.reshape(batch, speakers, 1) * float(frames)


class EmbeddingNet(nn.Module):
    """Canonical embedding network: front-end and trunk once, pooling and head once a speaker."""

    def __init__(self, *, frontend: nn.Module, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.frontend, self.trunk = frontend, trunk
        self.align, self.statistics, self.head = NearestWeights(), UnbiasedStatistics(), head

    def forward(self, waveform: Tensor, weights: Tensor) -> Tensor:
        """[batch, 1, samples] and [batch, speakers, frames] -> [batch, speakers, dimension]."""
        x = self.trunk(self.frontend(waveform))
        aligned = self.align(weights, int(x.shape[2]))
        embeddings: Tensor = self.head(self.statistics(x, aligned))
        return embeddings


class PyannoteEmbedding(EmbeddingArchitecture):
    """An architecture whose reference is a pyannote Model: `settings` are its hyper-parameters."""

    settings: tuple[str, ...]

    def network_class(self) -> Any:
        """The pyannote Model."""
        raise NotImplementedError

    def flattened(self, net: Any) -> EmbeddingNet:
        """The canonical form, of the model's own parts."""
        raise NotImplementedError

    def smallest_samples(self, net: Any) -> int:
        """Samples of the shortest waveform with two frames."""
        return int(net.receptive_field_size(num_frames=2))

    def build(self, config: dict[str, Any]) -> nn.Module:
        """A model in evaluation mode; its weights are random until a state dict is loaded."""
        pyannote_audio()
        plain = {key: value for key, value in config.items() if key != "frames"}
        net: Any = self.network_class()(**plain)
        net.frames = SEGMENTATION_FRAMES | config.get("frames", {})
        net.smallest_samples = self.smallest_samples(net)
        module: nn.Module = net.eval()
        return module

    def config(self, model: nn.Module) -> dict[str, Any]:
        """Plain-JSON configuration of a model."""
        net: Any = model
        found = {name: net.hparams[name] for name in self.settings}
        return {
            key: dict(value) if hasattr(value, "items") else value for key, value in found.items()
        } | {"frames": dict(net.frames)}

    def canonical(self, model: nn.Module) -> nn.Module:
        """Plain `EmbeddingNet` with its own copy of the weights."""
        return self.flattened(copy.deepcopy(model).cpu().eval()).eval()
