"""A network that goes on where it stopped: one hop of new audio at a time.

Everything that is remembered is an input and an output: the samples that the next hop's first
frames reach back to, the running mean, variance, weight and loudest value of
`export.models.running`, and the recurrence's states. They are explicit tensors, because Core ML's
own states hold float16 only, and one way serves all backends.

The recurrences of `running` are computed for all frames of a hop at once. With a weight of the past
w, its mean m and variance v, and `L[t, i] = a^(t - i)` for `i <= t`, frame `t` of a hop has

    w_t = a^(t + 1) w + sum_i L[t, i],
    d_t = a^(t + 1) w (m - s) + sum_i L[t, i] (x_i - s),             m_t = s + d_t / w_t,
    q_t = a^(t + 1) w (v + (m - s)^2) + sum_i L[t, i] (x_i - s)^2,   v_t = q_t / w_t - (d_t / w_t)^2

for any s. With the hop's first frame for s the squares are of differences, not of coefficients near
-1000, and float32 is enough. The loudest value is the maximum over i of `L[t, i] x_i`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RecipeError
from ..models.mfcc_net import MfccFrontEnd
from ..models.pyannet import SegmentationNet
from ..models.running import keeps, norm_epsilon, stream_spec, why_not_streaming
from ..types import ModelSpec, StreamSpec
from .mfcc_dft import MfccDft


class StreamingFrontEnd(nn.Module):
    """MFCC of a hop's frames, normalised by what was heard before and in it."""

    past: Tensor
    decay: Tensor
    share: Tensor
    ones: Tensor

    def __init__(self, front: Any, stream: StreamSpec, *, kept: float) -> None:
        super().__init__()
        plain = front.mfcc
        self.mfcc = plain if isinstance(plain, MfccDft) else MfccDft(plain)
        self.before, self.epsilon = front.before, norm_epsilon(front)
        self.frames, self.lead = stream.hop_frames, stream.lead_samples
        # Sizes of poolings have to be constants of the graph.
        self.bands = self.mfcc.mel.shape[0]
        self.reach = (self.frames - 1) * self.mfcc.hop_length + self.mfcc.n_fft
        ages = torch.arange(self.frames, dtype=torch.float64)
        past = torch.where(
            ages[:, None] >= ages, kept ** (ages[:, None] - ages), torch.zeros((), dtype=ages.dtype)
        )
        dtype = self.mfcc.window.dtype
        self.register_buffer("past", past.to(dtype))
        self.register_buffer("decay", (kept ** (ages + 1)).reshape(1, 1, -1).to(dtype))
        self.register_buffer("ones", torch.ones(1, len(self.mfcc.cosine), 1, dtype=dtype))
        self.register_buffer("share", past.sum(dim=1).reshape(1, 1, -1).to(dtype))

    def forward(self, waveform: Tensor, tail: Tensor, norm: Tensor) -> tuple[Tensor, ...]:
        """Features [1, coefficients, frames], and the states `tail` and `norm` after them.

        `norm` [1, 4, coefficients] holds mean, variance, weight and loudest value.
        """
        heard = torch.cat([tail, waveform], dim=2)
        mel = self.mfcc.mel_power(heard[:, :, self.before : self.before + self.reach])
        rows = norm.transpose(1, 2)
        mean, spread, weight, loudest = (rows[:, :, i : i + 1] for i in range(4))
        largest = self._loudest(mel, loudest[:, :1])
        x = self.mfcc.cepstrum(mel, largest.transpose(1, 2)).transpose(1, 2)
        first = x[:, :, :1]
        x, away = x - first, mean - first
        # [1, coefficients, frames]: what is left of the past, and how much counts up to a frame.
        left = self.decay * weight
        total = left + self.share
        moved = (left * away + F.linear(x, self.past)) / total
        squares = left * (spread + away * away) + F.linear(x * x, self.past)
        variance = F.relu(squares / total - moved * moved)
        features = (x - moved) / torch.sqrt(variance + self.epsilon)
        last = slice(self.frames - 1, self.frames)
        after = [first + moved[:, :, last], variance[:, :, last], total[:, :, last]]
        now = torch.cat([*after, largest[:, :, last] * self.ones], dim=2).transpose(1, 2)
        return features, heard[:, :, -self.lead :], now

    def _loudest(self, mel: Tensor, before: Tensor) -> Tensor:
        """The largest value up to each frame, [1, 1, frames], of mel powers [1, frames, bands].

        By pooling, which XNNPACK takes where it does not take a maximum.
        """
        frames, bands = self.frames, (1, self.bands)
        highest = F.max_pool2d(mel.reshape(1, 1, frames, -1), bands, bands).reshape(1, 1, 1, frames)
        aged = self.past.reshape(1, 1, frames, frames) * highest
        within = F.max_pool2d(aged, (1, frames), (1, frames)).reshape(1, 1, frames)
        return torch.maximum(within, self.decay * before)


class StreamingNet(SegmentationNet):
    """A SegmentationNet of MFCC and one-directional LSTM layers, hop by hop."""

    def forward(  # type: ignore[override]
        self, waveform: Tensor, tail0: Tensor, norm0: Tensor, h0: Tensor, c0: Tensor
    ) -> tuple[Tensor, ...]:
        """Scores [1, frames, classes] of a hop and the states after it.

        Inputs and outputs are those of `export.models.running.stream_spec`.
        """
        features, tail, norm = self.frontend(waveform, tail0, norm0)
        x = features.transpose(1, 2)
        hidden, cells = [], []
        for index, layer in enumerate(self.recurrent):
            x, (h, c) = layer(x, (h0[index : index + 1], c0[index : index + 1]))
            hidden.append(h)
            cells.append(c)
        for linear in self.linear:
            x = F.leaky_relu(linear(x))
        return self.activation(self.classifier(x)), tail, norm, torch.cat(hidden), torch.cat(cells)


def streaming_form(
    net: nn.Module, spec: ModelSpec, *, hop_s: float
) -> tuple[StreamingNet, StreamSpec]:
    """A canonical network hop by hop, and what that takes and gives; weights are copied.

    Raises `RecipeError` on a network that cannot go on where it stopped.
    """
    if reason := why_not_streaming(net):
        raise RecipeError(
            f"{spec.name}: the streaming form",
            found=reason,
            expected="a student with MFCC and LSTM layers that look back only",
            todo="Choose one such as mfcc80-1uni.",
        )
    stream = stream_spec(spec, net, hop_s=hop_s)
    made: Any = copy.deepcopy(net).double()
    front: MfccFrontEnd = made.frontend
    form = StreamingNet(
        frontend=StreamingFrontEnd(front, stream, kept=keeps(spec.geometry.num_frames)),
        recurrent=list(made.recurrent),
        linear=list(made.linear),
        classifier=made.classifier,
        activation=made.activation,
    )
    return form.to(next(net.parameters()).dtype).eval(), stream
