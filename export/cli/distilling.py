"""What `diarport distill` does, once its options are read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import nn

from runtime_checks.der import DerScorer
from runtime_checks.parity.decisions import decide
from runtime_checks.rttm import load_reference

from ..audio import Recording, cut_windows
from ..checkpoint import LoadedModel, load_model, zoo_dir, zoo_names
from ..distil.config import DistilConfig, TrainingAudio
from ..distil.conversations import Turn
from ..distil.data import load_speakers, load_training_audio
from ..distil.evaluate import compare_scores, score_windows, stack_windows
from ..distil.folder import RECORD_FILE, read_record, write_student
from ..distil.labels import Turns
from ..distil.objective import Objective
from ..distil.protocols import read_protocol
from ..distil.record import Provenance, SplitFigures, TrainingRecord, command_line
from ..distil.start import build_student
from ..distil.train import train
from ..distil.trainer import Hardware
from ..errors import AudioError, TrainingError
from ..progress import Progress
from ..types import DerScore, ModelSpec


@dataclass(frozen=True)
class Measured:
    """Audio to measure on, with its reference where there is one."""

    split: Literal["validation", "test"]
    audio: Sequence[Path]
    rttm: Path | None
    uem: Path | None = None


@dataclass(frozen=True)
class DistillRequest:
    """The options of one run; `settings` are fields of DistilConfig."""

    teacher: str
    out: Path
    settings: dict[str, Any]
    audio: Sequence[Path]
    rttm: Path | None
    protocol: str | None
    database: Path | None
    hardware: dict[str, Any]
    logger: str
    simulate_from: Path | None
    validation: Measured
    test: Measured
    cache: Path | None
    threads: int | None
    resume: bool
    average_with: Path | None
    credits: Sequence[str]
    notes: Sequence[str]
    licence_file: Path | None
    start_from: str | None = None


def run_distill(request: DistillRequest, progress: Progress) -> TrainingRecord | None:
    """Train, measure and write a student.

    Everything that can be wrong with the request is looked at before the training starts. None
    comes back in all but one of the processes of a run on several devices.
    """
    config, hardware = _config(request.settings), _hardware(request)
    request = _with_protocol(request)
    if request.threads:
        torch.set_num_threads(request.threads)
    provenance = Provenance(
        request.credits, request.notes, read_licence(request.licence_file), command_line(sys.argv)
    )
    teacher = load_model(request.teacher)
    start = load_model(request.start_from) if request.start_from else None
    if start is not None:
        named = {"student": start.spec.name, "start_from": start.spec.name}
        config = config.model_copy(update=named)
    build_student(config, teacher, start=start)
    audio = _training_audio(request, teacher, progress)
    parts = [(m, _measured_audio(m, teacher)) for m in (request.validation, request.test)]
    audio = replace(audio, validation=parts[0][1])
    for measured, recordings in parts:
        _reference(measured, recordings)
    other, averaged_with = _other(request, teacher, config)
    trained = train(
        teacher,
        audio,
        config,
        folder=request.out,
        cache=request.cache,
        resume=request.resume,
        progress=progress,
        hardware=hardware,
        average_with=other,
        start=start,
    )
    if not trained.is_main:
        return None
    hop_s = config.validation_hop_s
    figures = [
        measure(trained.rounded or trained.module, teacher, recordings, part=part, hop_s=hop_s)
        for part, recordings in parts
        if recordings
    ]
    return write_student(
        request.out,
        trained,
        teacher=teacher,
        audio=audio,
        config=config,
        figures=figures,
        provenance=provenance,
        averaged_with=averaged_with,
        start=start,
        started_from=_record_of(request.start_from),
    )


def _record_of(source: str | None) -> TrainingRecord | None:
    """The record of the model to start from; None for one that came without."""
    if source is None:
        return None
    folder = zoo_dir() / source if source in zoo_names() else Path(source)
    return read_record(folder) if (folder / RECORD_FILE).is_file() else None


def _other(
    request: DistillRequest, teacher: LoadedModel, config: DistilConfig
) -> tuple[LoadedModel | None, TrainingRecord | None]:
    """The student to average with and its record, known to fit before the training starts."""
    if request.average_with is None:
        return None, None
    if config.qat is not None:
        raise TrainingError(
            "--average-with",
            found=f"--qat {config.qat}: the mean of two students has the ranges of neither",
            todo="Average first, then train for the recipe: --start-from the average.",
        )
    record = read_record(request.average_with)
    if (record.config.student, record.teacher_sha256) != (config.student, teacher.sha256):
        raise TrainingError(
            request.average_with,
            found=f"a {record.config.student} of {record.teacher} ({record.teacher_sha256[:12]})",
            expected=f"a {config.student} of {teacher.spec.name} ({teacher.sha256[:12]})",
            todo="Average students that started from the same weights.",
        )
    return load_model(str(request.average_with)), record


def measure(
    student: nn.Module,
    teacher: LoadedModel,
    recordings: Sequence[Recording],
    *,
    part: Measured,
    hop_s: float,
) -> SplitFigures:
    """Agreement, and the window DER of both where the part has a reference."""
    geometry = teacher.spec.geometry
    windows = stack_windows(recordings, geometry, hop_s=hop_s)
    scores = score_windows(student, windows), score_windows(teacher.module, windows)
    ders: list[DerScore | None] = [None, None]
    reference = _reference(part, recordings)
    if reference is not None:
        cut = [w for r in recordings for w in cut_windows(r, geometry, hop_s=hop_s)]
        scorer = DerScorer(reference, cut, geometry=geometry)
        ders = [scorer.score(_decisions(each, teacher.spec)) for each in scores]
    return SplitFigures(
        split=part.split,
        recordings=len(recordings),
        audio_s=round(sum(r.duration_s for r in recordings), 3),
        hop_s=hop_s,
        agreement=compare_scores(*scores, Objective.of(teacher.spec)),
        student_der=ders[0],
        teacher_der=ders[1],
    )


def _decisions(scores: torch.Tensor, spec: ModelSpec) -> list[Any]:
    return [decide(window, spec) for window in scores.numpy()]


def _reference(part: Measured, recordings: Sequence[Recording]) -> Any:
    if part.rttm is None:
        return None
    if not recordings:
        raise AudioError(
            part.rttm, found="a reference without audio", todo=f"Give --{part.split}-audio too."
        )
    return load_reference(part.rttm, uem=part.uem, recordings=recordings)


def _training_audio(
    request: DistillRequest, teacher: LoadedModel, progress: Progress
) -> TrainingAudio:
    if not request.audio and request.simulate_from is None:
        raise TrainingError(
            "distill",
            found="no audio to train on",
            todo="Give --audio (meetings, calls: what the model will hear), --simulate-from "
            "(a folder of speakers), --protocol, or several of them.",
        )
    geometry = teacher.spec.geometry
    recordings = load_training_audio(request.audio, geometry, progress=progress)
    speakers = {}
    if request.simulate_from is not None:
        speakers = load_speakers(
            request.simulate_from, sample_rate_hz=geometry.sample_rate_hz, progress=progress
        )
    return TrainingAudio(recordings, speakers, turns=_turns(request, recordings))


def _turns(request: DistillRequest, recordings: Sequence[Recording]) -> dict[str, Turns]:
    """The turns of the training recordings in samples, where the labels count."""
    if request.rttm is None or request.settings["label_share"] == 0:
        return {}
    speech = load_reference(request.rttm, uem=None, recordings=recordings)
    rates = {recording.uri: recording.sample_rate_hz for recording in recordings}
    return {
        uri: tuple(
            Turn(t.speaker, round(t.start_s * rates[uri]), round(t.end_s * rates[uri]))
            for t in turns
        )
        for uri, turns in speech.turns.items()
    }


def _hardware(request: DistillRequest) -> Hardware:
    if request.logger not in ("csv", "tensorboard"):
        raise TrainingError("--logger", found=request.logger, expected="csv or tensorboard")
    return Hardware(**request.hardware, tensorboard=request.logger == "tensorboard")


def _with_protocol(request: DistillRequest) -> DistillRequest:
    """The request with a protocol's audio; what is measured on by its own options stays."""
    if request.protocol is None:
        if request.database is not None:
            raise TrainingError(request.database, found="a database without --protocol")
        return request
    folder = request.out / "protocol"
    parts = read_protocol(request.protocol, database=request.database, folder=folder)
    chosen, tested = parts["development"], parts["test"]
    validation, test = request.validation, request.test
    if not validation.audio:
        validation = Measured("validation", chosen.audio, chosen.rttm, chosen.uem)
    if not test.audio:
        test = Measured("test", tested.audio, tested.rttm, tested.uem)
    audio = [*request.audio, *parts["train"].audio]
    rttm = request.rttm or parts["train"].rttm
    return replace(request, audio=audio, rttm=rttm, validation=validation, test=test)


def _measured_audio(part: Measured, teacher: LoadedModel) -> list[Recording]:
    return load_training_audio(part.audio, teacher.spec.geometry)


def _config(settings: dict[str, Any]) -> DistilConfig:
    try:
        return DistilConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{'-'.join(str(part) for part in first['loc'])}".replace("_", "-")
        raise TrainingError(option, found=str(first["input"]), expected=first["msg"]) from error


def read_licence(path: Path | None) -> str:
    """The text of a licence file; nothing for none."""
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(path, found=f"not readable ({error})", expected="a text") from error
