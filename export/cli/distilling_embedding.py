"""What `diarport distill-embedding` does, once its options are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from runtime_checks.parity.embeddings import module_trials
from runtime_checks.rttm import load_reference
from runtime_checks.verification import cut_segments

from ..audio import Recording
from ..checkpoint import LoadedModel, load_model
from ..distil.conversations import Turn
from ..distil.data import load_speakers, load_training_audio
from ..distil.embedding.audio import hold_out, spoken_alone
from ..distil.embedding.config import EmbeddingAudio, EmbeddingConfig
from ..distil.embedding.folder import ARCHITECTURE, EmbeddingRecord, write_embedding_student
from ..distil.embedding.train import TrainedEmbedding, train_embedding
from ..distil.record import Provenance, command_line
from ..errors import TrainingError
from ..models.base import MODELS
from ..progress import Progress
from ..types import VerificationScore
from .distilling import read_licence

Speakers = dict[str, Sequence[Recording]]


@dataclass(frozen=True)
class EmbeddingRequest:
    """The options of one run; `settings` are fields of EmbeddingConfig."""

    teacher: str
    out: Path
    settings: dict[str, Any]
    speakers: Path
    hold_out: Sequence[str]
    audio: Sequence[Path]
    rttm: Path | None
    cache: Path | None
    threads: int | None
    resume: bool
    credits: Sequence[str]
    notes: Sequence[str]
    licence_file: Path | None


def run_distill_embedding(request: EmbeddingRequest, progress: Progress) -> EmbeddingRecord:
    """Train, measure and write a student.

    Everything that can be wrong with the request is looked at before the training starts.
    """
    config = _config(request.settings)
    MODELS[ARCHITECTURE].build({"student": config.student})
    if request.threads:
        torch.set_num_threads(request.threads)
    provenance = Provenance(
        request.credits, request.notes, read_licence(request.licence_file), command_line(sys.argv)
    )
    teacher = load_model(request.teacher)
    trained_on, kept = _speakers(request, teacher, progress)
    if kept:
        cut_segments(kept)
    audio = EmbeddingAudio(trained_on)
    trained = train_embedding(
        teacher,
        audio,
        config,
        folder=request.out,
        cache=request.cache,
        resume=request.resume,
        progress=progress,
    )
    return write_embedding_student(
        request.out,
        trained,
        teacher=teacher,
        audio=audio,
        held_out=sorted(kept),
        config=config,
        figures=_figures(trained, teacher, kept) if kept else {},
        provenance=provenance,
    )


def _speakers(
    request: EmbeddingRequest, teacher: LoadedModel, progress: Progress
) -> tuple[Speakers, Speakers]:
    """Those to train on, and those kept for trials."""
    geometry = teacher.spec.geometry
    found = load_speakers(
        request.speakers, sample_rate_hz=geometry.sample_rate_hz, progress=progress
    )
    trained, kept = hold_out(found, request.hold_out)
    if bool(request.audio) != (request.rttm is not None):
        raise TrainingError(
            "--audio, --rttm",
            found="one without the other",
            expected="meetings and who speaks when in them",
        )
    if request.rttm is None:
        return trained, kept
    recordings = load_training_audio(request.audio, geometry, progress=progress)
    speech = load_reference(request.rttm, uem=None, recordings=recordings)
    rate = geometry.sample_rate_hz
    turns = {
        uri: tuple(Turn(t.speaker, round(t.start_s * rate), round(t.end_s * rate)) for t in spoken)
        for uri, spoken in speech.turns.items()
    }
    return trained | spoken_alone(recordings, turns), kept


def _figures(
    trained: TrainedEmbedding, teacher: LoadedModel, kept: Speakers
) -> dict[Literal["student", "teacher"], VerificationScore]:
    trials = cut_segments(kept)
    spec = MODELS[ARCHITECTURE].spec(trained.module, name="", licence="", trained_on="")
    return {
        "student": module_trials(trained.module, trials, spec=spec),
        "teacher": module_trials(teacher.module, trials, spec=teacher.spec),
    }


def _config(settings: dict[str, Any]) -> EmbeddingConfig:
    try:
        return EmbeddingConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{'-'.join(str(part) for part in first['loc'])}".replace("_", "-")
        raise TrainingError(option, found=str(first["input"]), expected=first["msg"]) from error
