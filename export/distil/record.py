"""What is known of a finished distillation: data, settings, figures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..types import SCHEMA_VERSION, DerScore, Sha256, Value
from .config import DistilConfig, TrainingAudio
from .evaluate import Agreement

TRANSIENT = ("--resume", "--json", "--quiet", "-q")  # of a command, what changes no outcome


class SplitFigures(Value):
    """A student measured on one part of the audio; DER only where there is a reference."""

    split: Literal["validation", "test"]
    recordings: int
    audio_s: float
    hop_s: float
    agreement: Agreement
    student_der: DerScore | None
    teacher_der: DerScore | None


class AudioSummary(Value):
    """How much audio a part of the training heard."""

    recordings: int
    speakers: int | None
    audio_s: float


class TrainingRecord(Value):
    """`training.json`: all that is needed to train the same student again, and what it gave."""

    schema_version: Literal[1] = SCHEMA_VERSION
    command: str = ""
    config: DistilConfig
    teacher: str
    teacher_licence: str
    teacher_sha256: Sha256
    audio: dict[str, AudioSummary]
    audio_sha256: dict[str, dict[str, Sha256]]
    credits: tuple[str, ...]
    notes: tuple[str, ...]
    chosen_step: int
    parameters: int
    weights_sha256: Sha256
    figures: tuple[SplitFigures, ...]
    tool_versions: dict[str, str]
    averaged_with: TrainingRecord | None = None
    """Of the student whose weights half of these are."""
    started_from: TrainingRecord | None = None
    """Of the student that this one was when it began, where that has a record."""

    def lineage(self) -> list[TrainingRecord]:
        """All trainings that these weights come from, in an order to repeat them in; this is last.

        What two of them began with is there once.
        """
        found: list[TrainingRecord] = []
        for earlier in (self.started_from, self.averaged_with):
            for record in earlier.lineage() if earlier else []:
                if record not in found:
                    found.append(record)
        return [*found, self]


def pooled_der(figures: Sequence[SplitFigures]) -> tuple[float, float] | None:
    """Student's and teacher's DER of all parts together, percent; None where one has no score."""
    scores = [(f.student_der, f.teacher_der) for f in figures if f.student_der and f.teacher_der]
    if not scores or len(scores) < len(figures):
        return None
    columns = [
        [score for score in column if score is not None] for column in zip(*scores, strict=True)
    ]
    spoken_s = [sum(score.reference_speech_s for score in column) for column in columns]
    wrong_s = [sum(score.pooled * score.reference_speech_s for score in c) for c in columns]
    return wrong_s[0] / spoken_s[0], wrong_s[1] / spoken_s[1]


@dataclass(frozen=True)
class Provenance:
    """What the user says about the run: data credits, remarks, the student's own licence text.

    `command` is what was typed to start it.
    """

    credits: Sequence[str] = ()
    notes: Sequence[str] = ()
    licence_text: str = ""
    command: str = ""


def command_line(arguments: Sequence[str]) -> str:
    """A command as it can be typed again: of absolute paths the name alone is kept."""
    plain = [argument for argument in arguments if argument not in TRANSIENT]
    program, *rest = plain
    named = [Path(a).name if Path(a).is_absolute() else a for a in rest]
    return shlex.join([Path(program).name, *named])


def summarise_audio(audio: TrainingAudio) -> dict[str, AudioSummary]:
    """Amounts of audio by its part in the run."""
    spoken = [u for utterances in audio.speakers.values() for u in utterances]
    parts = {
        "recordings": (audio.recordings, None),
        "speakers": (spoken, len(audio.speakers)),
        "validation": (audio.validation, None),
    }
    return {
        name: AudioSummary(
            recordings=len(recordings),
            speakers=speakers,
            audio_s=round(sum(r.duration_s for r in recordings), 3),
        )
        for name, (recordings, speakers) in parts.items()
    }
