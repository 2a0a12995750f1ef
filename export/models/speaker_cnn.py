"""SpeakerCnn: the small embedding students, convolutions over log mel energies.

`resnet10` and `cnn4` of Wang et al., "Knowledge distillation for small foot-print deep speaker
embedding", ICASSP 2019: 64 mel bands of 25 ms every 10 ms; four stages of 16, 32, 64 and 128
channels, each one residual block, or one convolution; an embedding of 128. Filters are 3 x 3.

Trained with batch norms, which `folded` then puts into the convolutions: what ships has none. Two
things are ours. The first convolution steps by two in both directions, which makes a third of
the products of it. And a stage's bands are not averaged at the end but weighted, each channel's by
its own filter, before mean and deviation over the frames of each speaker.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import CheckpointError
from ..pyannote_import import torchaudio
from .base import register_model
from .embedding import SEGMENTATION_FRAMES, AveragedWeights, EmbeddingArchitecture
from .fbank import Fbank

STUDENTS = {"resnet10": (1, 1, 1, 1), "cnn4": (0, 0, 0, 0)}
"""Residual blocks by stage; a stage without any is one convolution."""

CHANNELS = (16, 32, 64, 128)
# (bands, frames) that the first convolution and the stages step by: frames of 80 ms in the end.
STEM_STRIDE = (2, 2)
STRIDES = ((1, 1), (2, 2), (2, 2), (2, 1))
FRAME_MS, STEP_MS = 25, 10
POOLED_MS = 8 * STEP_MS

FLOOR = 1e-10
"""Below any energy that 16-bit audio has."""
RANGE = 1e-6
"""Of the loudest energy in the window: what is 60 dB below is silence."""


class LogMel(nn.Module):
    """Logarithm of mel energies over the window's mean: indifferent to gain.

    [batch, 1, samples] -> [batch, 1, bands, frames].
    """

    def __init__(self, fbank: nn.Module) -> None:
        super().__init__()
        self.fbank = fbank

    def forward(self, waveform: Tensor) -> Tensor:
        """Features, about -14 to 5."""
        return self.compressed(self.fbank(waveform))

    def compressed(self, energies: Tensor) -> Tensor:
        """[batch, frames, bands] -> [batch, 1, bands, frames]."""
        batch, frames, bands = energies.shape
        x = energies.transpose(1, 2).reshape(batch, 1, bands, frames)
        mean = x.mean((2, 3), keepdim=True) + FLOOR
        return torch.log(x / mean + RANGE)


class Block(nn.Module):
    """Two convolutions and a way past them."""

    def __init__(
        self, inputs: int, outputs: int, stride: tuple[int, int], *, batch_norm: bool
    ) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride, batch_norm=batch_norm)
        self.second = convolution(outputs, outputs, (1, 1), batch_norm=batch_norm)
        self.past = (
            convolution(inputs, outputs, stride, size=1, batch_norm=batch_norm)
            if stride != (1, 1) or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, bands, frames] -> [batch, outputs, bands / stride, frames / stride]."""
        return F.relu(self.second(F.relu(self.first(x))) + self.past(x))


class Plain(nn.Module):
    """One convolution."""

    def __init__(
        self, inputs: int, outputs: int, stride: tuple[int, int], *, batch_norm: bool
    ) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, stride, batch_norm=batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, bands, frames] -> [batch, outputs, bands / stride, frames / stride]."""
        return F.relu(self.first(x))


def convolution(
    inputs: int, outputs: int, stride: tuple[int, int], *, size: int = 3, batch_norm: bool
) -> nn.Module:
    """A convolution that keeps the edges; with a batch norm after it, or with a bias instead."""
    conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=not batch_norm)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if batch_norm else conv


EPSILON = 1e-6
SMALLEST_VARIANCE = 1e-3


class WeightedStatistics(nn.Module):
    """Mean and deviation of each channel over the frames of each speaker, by weight.

    [batch, channels, frames] and [batch, speakers, frames] -> [batch, speakers, 2 * channels].
    """

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Of a speaker without weight: zeros, and the smallest deviation."""
        batch, speakers, count = weights.shape
        share = weights.reshape(batch, speakers, 1, count).mean((2, 3), keepdim=True)
        shares = weights / (share.reshape(batch, speakers, 1) * float(count) + EPSILON)
        frames = x.transpose(1, 2)
        mean, square = torch.bmm(shares, frames), torch.bmm(shares, frames * frames)
        deviation = torch.sqrt(F.relu(square - mean * mean) + SMALLEST_VARIANCE)
        return torch.cat([mean, deviation], dim=2)


class SpeakerCnn(nn.Module):
    """Waveform and weights to embeddings; `student` is one of `STUDENTS`."""

    def __init__(
        self,
        *,
        student: str = "resnet10",
        bands: int = 64,
        dimension: int = 128,
        channels: tuple[int, ...] | list[int] = CHANNELS,
        batch_norm: bool = False,
        frames: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if student not in STUDENTS:
            raise CheckpointError(
                student,
                found="not the name of an embedding student",
                expected=" or ".join(STUDENTS),
            )
        self.frames = SEGMENTATION_FRAMES | (frames or {})
        self.student, self.bands, self.dimension = student, bands, dimension
        self.channels, self.batch_norm = tuple(channels), batch_norm
        rate = int(self.frames["sample_rate_hz"])
        self.frontend = LogMel(_fbank(bands, rate))
        self.stem = Plain(1, channels[0], STEM_STRIDE, batch_norm=batch_norm)
        stages: list[nn.Module] = []
        inputs = channels[0]
        for count, outputs, stride in zip(STUDENTS[student], channels, STRIDES, strict=True):
            kinds: list[type[Block | Plain]] = [Block] * count or [Plain]
            for index, kind in enumerate(kinds):
                step = (1, 1) if index else stride
                stages.append(kind(inputs, outputs, step, batch_norm=batch_norm))
                inputs = outputs
        if not STUDENTS[student][0]:
            stages = stages[1:]  # the first convolution is its first stage
        self.stages = nn.Sequential(*stages)
        left = bands
        for stride in (STEM_STRIDE, *STRIDES):
            left = -(-left // stride[0])
        self.collapse = nn.Conv2d(inputs, inputs, (left, 1), groups=inputs)
        self.align = AveragedWeights(
            step_samples=rate * POOLED_MS // 1000,
            centre_samples=rate * FRAME_MS // 2000,
            weights_step=int(self.frames["frame_step_samples"]),
            weights_field=int(self.frames["receptive_field_samples"]),
        )
        self.statistics = WeightedStatistics()
        self.linear = nn.Linear(2 * inputs, dimension)
        self.smallest_samples = rate * FRAME_MS // 1000

    def forward(self, waveform: Tensor, weights: Tensor) -> Tensor:
        """[batch, 1, samples] and [batch, speakers, frames] -> [batch, speakers, dimension]."""
        x = self.trunk(self.frontend(waveform))
        return self.pooled(x, self.align(weights, int(x.shape[2])))

    def trunk(self, features: Tensor) -> Tensor:
        """[batch, 1, bands, frames] -> [batch, channels, frames of 80 ms]."""
        x = F.relu(self.collapse(self.stages(self.stem(features))))
        return x.reshape(x.shape[0], x.shape[1], x.shape[3])

    def pooled(self, x: Tensor, weights: Tensor) -> Tensor:
        """Embeddings from the trunk's frames and weights on them."""
        embeddings: Tensor = self.linear(self.statistics(x, weights))
        return embeddings


def _fbank(bands: int, rate: int) -> Fbank:
    size = rate * FRAME_MS // 1000
    filters = torchaudio().functional.melscale_fbanks(
        size // 2 + 1, 20.0, rate / 2, bands, rate, norm=None, mel_scale="htk"
    )
    return Fbank(
        window=torch.hann_window(size, dtype=torch.float64),
        mel=filters.t().contiguous(),
        fft_samples=size,
        hop_samples=rate * STEP_MS // 1000,
    )


@register_model("SpeakerCnn")
class SpeakerCnnArchitecture(EmbeddingArchitecture):
    """SpeakerCnn by its configuration."""

    name = "SpeakerCnn"

    def tiny_config(self) -> dict[str, Any]:
        """Few channels, on one-second windows."""
        return {"channels": [4, 4, 4, 8], "bands": 32, "dimension": 8, "frames": {"window_s": 1.0}}

    def build(self, config: dict[str, Any]) -> nn.Module:
        """A network in evaluation mode; its weights are random until a state dict is loaded."""
        return SpeakerCnn(**config).eval()

    def config(self, model: nn.Module) -> dict[str, Any]:
        """Plain-JSON configuration of a network."""
        net: Any = model
        return {
            "student": net.student,
            "bands": net.bands,
            "dimension": net.dimension,
            "channels": list(net.channels),
            "batch_norm": net.batch_norm,
            "frames": dict(net.frames),
        }

    def canonical(self, model: nn.Module) -> nn.Module:
        """Its own copy: a network is as plain as exporters need it."""
        return copy.deepcopy(model).cpu().eval()


def folded(model: nn.Module) -> SpeakerCnn:
    """The same network in evaluation mode, its batch norms in the convolutions before them."""
    net: Any = copy.deepcopy(model).cpu().eval()
    architecture = SpeakerCnnArchitecture()
    plain: Any = architecture.build(architecture.config(net) | {"batch_norm": False})
    state = net.state_dict()
    for name, module in net.named_modules():
        if isinstance(module, nn.Sequential) and isinstance(module[-1], nn.BatchNorm2d):
            parts: Any = copy.deepcopy(module)
            conv = fuse_conv_bn_eval(parts[0], parts[1])
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
            state |= {f"{name}.weight": conv.weight, f"{name}.bias": conv.bias}
    plain.load_state_dict(state)
    finished: SpeakerCnn = plain
    return finished
