"""What a distillation is told: its settings and its audio."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from ..audio import Recording
from ..types import Value
from .data import audio_sha256
from .labels import Turns

PLATEAU_PATIENCE, PLATEAU_FACTOR = 5, 0.5


class DistilConfig(Value):
    """All that decides the outcome of a run, beside teacher and audio.

    With `pool_windows` the student keeps the teacher's front-end, and the rest of it is trained on
    that many windows which the teacher has labelled once. With 0 every window is a new one, and
    all of the student but the sinc filters is trained: several times slower a step.

    `schedule` "plateau" halves the learning rate after `PLATEAU_PATIENCE` validations without a
    smaller loss, and `early_stopping` ends the training after so many (0: never). Sikorskyi
    ("On-device Speaker Diarization", 2023) trains with both: patience 5 and 15, learning rate 1e-4.
    `temperature` is that of a powerset teacher's and its student's softmax. `hint_weight` times the
    hint loss is added, which needs the teacher's hidden features and so `pool_windows` 0.
    `label_share` of the loss is on who really talks, which needs the turns of all recordings.
    `overlap_weight` w lets a frame in which n speak weigh 1 + w (n - 1) in either.
    `dropout` is the share of the recurrent layers' features that a step leaves out.
    With `calibrate` the finished student's bias is set so that it says speech as often as its
    teacher on the training recordings and the validation audio (`export.distil.calibrate`); else it
    is shifted so that a score of `onset` becomes 0.5.
    `precision` is one of Lightning's: "32-true", "bf16-mixed", "16-mixed".

    With `qat` the student rounds in training what that recipe will round (`fake_quant`), and with
    `start_from` it begins with all weights of the model of that name.
    """

    student: str = "sinc-1bi"
    steps: int = Field(default=2000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=4e-3, gt=0)
    pool_windows: int = Field(default=4800, ge=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    average_decay: float = Field(default=0.995, ge=0, lt=1)
    simulated_share: float = Field(default=0.5, ge=0, le=1)
    validation_hop_s: float = Field(default=2.5, gt=0)
    checkpoint_steps: int = Field(default=100, ge=1)
    schedule: Literal["one_cycle", "plateau"] = "one_cycle"
    early_stopping: int = Field(default=0, ge=0)
    precision: str = "32-true"
    temperature: float = Field(default=1.0, gt=0)
    hint_weight: float = Field(default=0.0, ge=0)
    label_share: float = Field(default=0.0, ge=0, le=1)
    overlap_weight: float = Field(default=0.0, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    calibrate: bool = False
    qat: str | None = None
    start_from: str | None = None
    onset: float = Field(default=0.5, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class TrainingAudio:
    """Audio of a run: recordings, utterances by speaker for simulation, recordings to choose on.

    `turns` are those of the recordings, by uri and in samples, where labels are learnt from. One
    name is one person in all of them.
    """

    recordings: Sequence[Recording]
    speakers: dict[str, list[Recording]] = field(default_factory=dict)
    validation: Sequence[Recording] = ()
    turns: dict[str, Turns] = field(default_factory=dict)

    def hashes(self) -> dict[str, dict[str, str]]:
        """Hashes of all audio by its part in the run."""
        spoken = {
            f"{name}/{uri}": sha
            for name, utterances in self.speakers.items()
            for uri, sha in audio_sha256(utterances).items()
        }
        hashes = {
            "recordings": audio_sha256(self.recordings),
            "speakers": spoken,
            "validation": audio_sha256(self.validation),
        }
        if self.turns:
            hashes["turns"] = {
                uri: hashlib.sha256(repr(turns).encode()).hexdigest()
                for uri, turns in sorted(self.turns.items())
            }
        return hashes
