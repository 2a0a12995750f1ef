"""Networks of our own that are pyannote.audio Models.

Importing this imports pyannote.audio. A checkpoint names the module and class of its network, so
that `pyannote.audio.Model.from_pretrained` finds them here: neither may be renamed.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .pyannote_import import pyannote_audio

pyannote_audio()

from pyannote.audio.core.model import Model  # noqa: E402 - only after the import was set right
from pyannote.audio.models.segmentation import PyanNet  # noqa: E402
from pyannote.audio.utils.params import merge_dict  # noqa: E402
from torchaudio.transforms import MFCC  # noqa: E402

NORM_EPSILON_DB2 = 1.0
CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}


class MfccBlock(nn.Module):
    """Normalised MFCC of windows: [batch, 1, samples] -> [batch, n_mfcc, frames].

    `torchaudio.transforms.MFCC` on a decibel scale (floor 80 dB below the window's loudest),
    frames without padding, then each coefficient normalised over the window: like PyanNet's
    waveform norm, that makes the network indifferent to gain. Changes of less than about a
    decibel are not blown up (the norm's epsilon), so that rounding in silence is not either.

    A frame's field is `field_length` samples of which the `n_fft` in the middle are looked at.
    With 991, and a hop of 270, frames lie exactly where those of PyanNet lie.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        n_mfcc: int,
        n_mels: int,
        n_fft: int,
        hop_length: int,
        field_length: int,
    ) -> None:
        super().__init__()
        if not 0 < n_fft <= field_length or hop_length < 1:
            raise ValueError(
                f"frames of {n_fft} samples every {hop_length} do not fit fields of {field_length}"
            )
        self.n_fft, self.hop_length, self.field_length = n_fft, hop_length, field_length
        with warnings.catch_warnings():
            # Of 80 and more mel bands the lowest are narrower than a bin of 40 Hz, and some empty.
            warnings.filterwarnings("ignore", message="At least one mel filterbank")
            self.mfcc = MFCC(
                sample_rate,
                n_mfcc,
                melkwargs={
                    "n_fft": n_fft,
                    "hop_length": hop_length,
                    "n_mels": n_mels,
                    "center": False,
                },
            )
        self.norm = nn.InstanceNorm1d(n_mfcc, eps=NORM_EPSILON_DB2)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Features of windows."""
        beside = self.field_length - self.n_fft
        inner = F.pad(waveforms, (-(beside // 2), -(beside - beside // 2)))
        features: Tensor = self.norm(self.mfcc(inner).squeeze(1))
        return features


class SincRnnNet(PyanNet):
    """SincNet > GRU or plain RNN > feed forward > classifier: PyanNet with another recurrence.

    `cell` is "gru" or "rnn" (tanh); the other arguments are PyanNet's, and the layers keep the
    name `lstm` and PyanNet's settings of that name.
    """

    def __init__(
        self,
        sincnet: dict[str, Any] | None = None,
        lstm: dict[str, Any] | None = None,
        linear: dict[str, Any] | None = None,
        *,
        cell: str = "gru",
        sample_rate: int = 16000,
        num_channels: int = 1,
        task: Any = None,
    ) -> None:
        super().__init__(
            sincnet=sincnet,
            lstm=(lstm or {}) | {"monolithic": True},
            linear=linear,
            sample_rate=sample_rate,
            num_channels=num_channels,
            task=task,
        )
        self.save_hyperparameters("cell")
        layers: Any = self._modules["lstm"]
        self.lstm = CELLS[cell](
            layers.input_size,
            layers.hidden_size,
            num_layers=layers.num_layers,
            bidirectional=layers.bidirectional,
            dropout=layers.dropout,
            batch_first=True,
        )


class MfccNet(Model):
    """MFCC > LSTM > feed forward > classifier: PyanNet with MFCC in place of SincNet.

    `mfcc`, `lstm` and `linear` are keyword arguments of the blocks, over the defaults below;
    `cell` makes the recurrent layers, which keep the name `lstm`, a "gru" or a plain "rnn".

    Widths are those of the published MFCC students (Sikorskyi, "On-device Speaker Diarization",
    2023): 400-point transforms and as many mel bands as coefficients give their file sizes.
    Frames are every 270 samples (16.9 ms) with SincNet's centres rather than every 10 ms: a
    teacher's frame i is then the student's frame i, everything downstream works unchanged, and
    the recurrence, most of the cost, has 0.6 of the steps.
    """

    MFCC_DEFAULTS = {  # noqa: RUF012 - as pyannote's own models have theirs
        "n_mfcc": 80,
        "n_mels": 80,
        "n_fft": 400,
        "hop_length": 270,
        "field_length": 991,
    }
    LSTM_DEFAULTS = {  # noqa: RUF012
        "hidden_size": 128,
        "num_layers": 1,
        "bidirectional": True,
        "dropout": 0.0,
    }
    LINEAR_DEFAULTS = {"hidden_size": 128, "num_layers": 1}  # noqa: RUF012

    def __init__(
        self,
        mfcc: dict[str, Any] | None = None,
        *,
        lstm: dict[str, Any] | None = None,
        linear: dict[str, Any] | None = None,
        cell: str = "lstm",
        sample_rate: int = 16000,
        num_channels: int = 1,
        task: Any = None,
    ) -> None:
        super().__init__(sample_rate=sample_rate, num_channels=num_channels, task=task)
        mfcc = merge_dict(self.MFCC_DEFAULTS, mfcc)
        lstm = merge_dict(self.LSTM_DEFAULTS, lstm) | {"batch_first": True}
        linear = merge_dict(self.LINEAR_DEFAULTS, linear)
        self.save_hyperparameters("mfcc", "lstm", "linear", "cell")
        self.frontend = MfccBlock(sample_rate=sample_rate, **mfcc)
        self.lstm = CELLS[cell](mfcc["n_mfcc"], **lstm)
        widths = [self._lstm_width, *[linear["hidden_size"]] * linear["num_layers"]]
        self.linear = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    @property
    def _lstm_width(self) -> int:
        return self.lstm.hidden_size * (2 if self.lstm.bidirectional else 1)

    @property
    def dimension(self) -> int:
        """Number of scores of a frame."""
        if isinstance(self.specifications, tuple):
            raise ValueError("MfccNet does not support multi-tasking.")
        if self.specifications.powerset:
            return int(self.specifications.num_powerset_classes)
        return len(self.specifications.classes)

    def build(self) -> None:
        """Make the classifier for the task's classes."""
        wide = len(self.linear) > 0
        width = self.hparams.linear["hidden_size"] if wide else self._lstm_width
        self.classifier = nn.Linear(width, self.dimension)
        self.activation = self.default_activation()

    def num_frames(self, num_samples: int) -> int:
        """Frames of a window of so many samples."""
        block = self.frontend
        return max(0, (num_samples - block.field_length) // block.hop_length + 1)

    def receptive_field_size(self, num_frames: int = 1) -> int:
        """Samples of the fields of so many adjacent frames."""
        return self.frontend.field_length + (num_frames - 1) * self.frontend.hop_length

    def receptive_field_center(self, frame: int = 0) -> int:
        """Sample in the middle of a frame's field."""
        return frame * self.frontend.hop_length + (self.frontend.field_length - 1) // 2

    def forward(self, waveforms: Tensor) -> Tensor:
        """[batch, 1, samples] -> [batch, frames, classes]."""
        outputs, _ = self.lstm(self.frontend(waveforms).transpose(1, 2))
        for linear in self.linear:
            outputs = F.leaky_relu(linear(outputs))
        scores: Tensor = self.activation(self.classifier(outputs))
        return scores
