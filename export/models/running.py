"""A network that hears without an end: what it took over a window runs along with the stream.

An MFCC network takes two things over its whole window: the mean and deviation of each coefficient,
and the loudest value, 80 dB below which its decibels end. Both know what comes after a frame, so no
stream can have them. Here both are of what was heard up to each frame, and forgotten exponentially:

    w_t = a w_(t-1) + 1,    m_t = m_(t-1) + (x_t - m_(t-1)) / w_t,    l_t = max(x_t, a l_(t-1)),

with the variance about m_t by the same weights and a time constant of half a window, with which
what is remembered is on average as old as the frames of a window. Weights stay as trained.

`as_heard` is that network by these recurrences, frame by frame, for audio of any length at once: it
says what a stateful artifact (`export.rewrites.streaming`) must give, and shares no code with it.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..types import Initial, ModelSpec, StateSpec, StreamSpec, TensorSpec
from .mfcc_net import MfccFrontEnd
from .pyannet import SegmentationNet

STREAMING = "streaming"
"""The option of a recipe that asks for this form: the length of a hop in seconds, at most."""

HOP_S = 0.5


class RunningNorm(nn.Module):
    """Each coefficient less its running mean, over its running deviation: [batch, n, frames]."""

    def __init__(self, *, epsilon: float, keeps: float) -> None:
        super().__init__()
        self.epsilon, self.keeps = epsilon, keeps

    def forward(self, x: Tensor) -> Tensor:
        """From the first frame on."""
        weight, mean, spread = 0.0, torch.zeros_like(x[..., 0]), torch.zeros_like(x[..., 0])
        normalised = []
        for now in x.unbind(-1):
            weight = self.keeps * weight + 1
            away = now - mean
            mean = mean + away / weight
            # Welford's update: the sum of squares about the mean, without squares of large values.
            spread = self.keeps * spread + away * (now - mean)
            normalised.append((now - mean) / torch.sqrt(spread / weight + self.epsilon))
        return torch.stack(normalised, dim=-1)


class RunningLargest(nn.Module):
    """The largest value up to each frame, of [batch, frames, bands]: [batch, frames, 1]."""

    def __init__(self, *, keeps: float) -> None:
        super().__init__()
        self.keeps = keeps

    def forward(self, x: Tensor) -> Tensor:
        """From the first frame on."""
        largest, found = torch.zeros_like(x[:, 0, :1]), []
        for now in x.amax(2, keepdim=True).unbind(1):
            largest = torch.maximum(now, self.keeps * largest)
            found.append(largest)
        return torch.stack(found, dim=1)


class RunningDecibel(nn.Module):
    """torchaudio's AmplitudeToDB with a floor that runs along: [batch, 1, bands, frames]."""

    def __init__(self, decibel: Any, *, keeps: float) -> None:
        super().__init__()
        self.multiplier, self.amin = float(decibel.multiplier), float(decibel.amin)
        self.top_db = float(decibel.top_db)
        self.largest = RunningLargest(keeps=keeps)

    def forward(self, x: Tensor) -> Tensor:
        """Decibels of powers."""
        largest = self.largest(x.squeeze(1).transpose(1, 2)).transpose(1, 2).unsqueeze(1)
        return torch.maximum(self._decibels(x), self._decibels(largest) - self.top_db)

    def _decibels(self, x: Tensor) -> Tensor:
        return self.multiplier * torch.log10(x.clamp(min=self.amin))


def keeps(num_frames: int) -> float:
    """What is left of the past after a frame: the `a` above, for a window of so many frames."""
    return math.exp(-2 / num_frames)


def as_heard(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """A copy of an MFCC network, pyannote's module or a canonical one, that hears as a stream does.

    [1, 1, samples] -> [1, frames, classes] for any number of samples from a frame on.
    """
    heard: Any = copy.deepcopy(model).eval()
    kept, front = keeps(spec.geometry.num_frames), heard.frontend
    front.norm = RunningNorm(epsilon=norm_epsilon(front), keeps=kept)
    if hasattr(front.mfcc, "amplitude_to_DB"):
        front.mfcc.amplitude_to_DB = RunningDecibel(front.mfcc.amplitude_to_DB, keeps=kept)
    else:
        front.mfcc.largest = RunningLargest(keeps=kept)
    module: nn.Module = heard
    return module


def norm_epsilon(front: Any) -> float:
    """The epsilon of a front-end's norm, as it is or in a rewrite's wrapping."""
    return float(getattr(front.norm, "norm", front.norm).eps)


def why_not_streaming(net: nn.Module) -> str | None:
    """Why a canonical network has no streaming form, or None."""
    if not isinstance(net, SegmentationNet):
        return "only segmentation networks go on where they stopped"
    layers = list(net.recurrent)
    if any(getattr(layer, "bidirectional", False) for layer in layers):
        return "it looks ahead: its backward layers begin at the end of a window"
    if not isinstance(net.frontend, MfccFrontEnd):
        return (
            "SincNet normalises over the whole window four times, the waveform before the first "
            "filter and then each layer's output, so that every frame depends on all later ones; "
            "these norms cannot be made to run along without training for it"
        )
    if not layers or not all(isinstance(layer, nn.LSTM) for layer in layers):
        return "its recurrent layers are no LSTMs"
    if len({layer.hidden_size for layer in layers}) > 1:
        return "its layers are of different widths"
    return None


def stream_spec(spec: ModelSpec, net: nn.Module, *, hop_s: float) -> StreamSpec:
    """What a stateful artifact of a canonical network takes and gives.

    A hop is the largest number of whole frames that is no longer than `hop_s`, and at least one.
    """
    geometry, layers = spec.geometry, _layers(net)
    step, field = geometry.frame_step_samples, geometry.receptive_field_samples
    frames = max(1, round(hop_s * geometry.sample_rate_hz) // step)
    lead = -(-(field - step) // step) * step
    states = (len(layers), 1, layers[0].hidden_size)

    def tensors(**shapes: tuple[int, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()
        )

    classes = spec.outputs[0].shape[2] or 1
    norm = (1, 4, layers[0].input_size)
    return StreamSpec(
        hop_samples=frames * step,
        hop_frames=frames,
        lead_samples=lead,
        inputs=tensors(
            waveform=(1, 1, frames * step), tail0=(1, 1, lead), norm0=norm, h0=states, c0=states
        ),
        outputs=tensors(
            scores=(1, frames, classes), tail=(1, 1, lead), norm=norm, h=states, c=states
        ),
        states=(
            StateSpec(input="tail0", output="tail", initial=Initial.AUDIO),
            *(
                StateSpec(input=f"{name}0", output=name, initial=Initial.ZEROS)
                for name in ("norm", "h", "c")
            ),
        ),
    )


def _layers(net: nn.Module) -> list[Any]:
    return list(net.recurrent)  # type: ignore[arg-type]
