"""The model folder that a finished distillation leaves: weights, card, record, log, licence."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ..bundle import hash_path
from ..calibration.trained import GRIDS_FILE
from ..checkpoint import (
    CARD_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    LoadedModel,
    save_model,
    save_pyannote,
)
from ..errors import TrainingError
from ..models.base import MODELS
from ..models.students import student_design
from .card import model_card
from .config import DistilConfig, TrainingAudio
from .record import Provenance, SplitFigures, TrainingRecord, summarise_audio
from .resume import disk_errors_told
from .train import TrainedStudent

RECORD_FILE, LOG_FILE, LICENCE_FILE = "training.json", "log.csv", "LICENSE"
TOOLS = ("torch", "lightning", "pyannote.audio", "numpy", "scipy", "diarport")


def write_student(
    folder: Path,
    trained: TrainedStudent,
    *,
    teacher: LoadedModel,
    audio: TrainingAudio,
    config: DistilConfig,
    figures: Sequence[SplitFigures],
    provenance: Provenance,
    averaged_with: TrainingRecord | None = None,
    start: LoadedModel | None = None,
    started_from: TrainingRecord | None = None,
) -> TrainingRecord:
    """Write the model folder that `load_model` and pyannote.audio load.

    Files are written beside their place and then moved; the weights, which make the folder a
    model, come last. Nothing in them names a path of this machine.
    """
    licence = licence_text(provenance.licence_text, teacher)
    architecture = start.spec.architecture if start else student_design(config.student)[0]
    spec = MODELS[architecture].spec(
        trained.module,
        name=config.student,
        licence=_first_line(provenance.licence_text) or teacher.spec.licence,
        trained_on=describe_data(audio, provenance.credits),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with (
        disk_errors_told(folder),
        tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name,
    ):
        made = Path(name)
        save_model(made, trained.module, spec, source=f"distilled from {teacher.spec.name}")
        save_pyannote(made / CHECKPOINT_FILE, trained.module)
        if trained.grids is not None:
            (made / GRIDS_FILE).write_text(trained.grids.to_json(), encoding="utf-8")
        record = TrainingRecord(
            command=provenance.command,
            config=config,
            teacher=teacher.spec.name,
            teacher_licence=teacher.spec.licence,
            teacher_sha256=teacher.sha256,
            audio=summarise_audio(audio),
            audio_sha256=audio.hashes(),
            credits=tuple(provenance.credits),
            notes=tuple(provenance.notes),
            chosen_step=trained.step,
            parameters=sum(p.numel() for p in trained.module.parameters()),
            weights_sha256=hash_path(made / WEIGHTS_FILE),
            figures=tuple(figures),
            tool_versions={tool: version(tool) for tool in TOOLS},
            averaged_with=averaged_with,
            started_from=started_from,
        )
        (made / RECORD_FILE).write_text(record.to_json())
        (made / LOG_FILE).write_text(log_text(trained.log_rows))
        (made / LICENCE_FILE).write_text(licence)
        (made / CARD_FILE).write_text(model_card(record, spec))
        last = {CONFIG_FILE: 1, WEIGHTS_FILE: 2}
        for path in sorted(made.iterdir(), key=lambda p: last.get(p.name, 0)):
            path.replace(folder / path.name)
    return record


def read_record(folder: Path) -> TrainingRecord:
    """The record in a model folder; raises TrainingError where there is none."""
    path = folder / RECORD_FILE
    try:
        return TrainingRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            path,
            found=f"no record of a training ({str(error).splitlines()[0]})",
            expected="a model folder that `diarport distill` wrote",
        ) from error


def describe_data(audio: TrainingAudio, credits: Sequence[str]) -> str:
    """One line on what a student was trained on."""
    summary = summarise_audio(audio)
    parts = []
    if summary["recordings"].recordings:
        part = summary["recordings"]
        parts.append(f"{part.recordings} recordings ({part.audio_s:.0f} s)")
    if summary["speakers"].recordings:
        part = summary["speakers"]
        parts.append(
            f"conversations simulated from {part.speakers} speakers ({part.audio_s:.0f} s)"
        )
    names = "; ".join(credit.split(",")[0] for credit in credits)
    sources = f": {names}" if names else ""
    return " and ".join(parts) + sources


def licence_text(own: str, teacher: LoadedModel) -> str:
    """The student's licence, then that of the teacher whose weights it was started from."""
    if not own:
        return teacher.licence_text or "The teacher came without a licence text.\n"
    if not teacher.licence_text:
        return own
    return (
        f"{own.rstrip()}\n\n{'-' * 80}\n\nThe weights were started from those of "
        f"{teacher.spec.name}, which are under:\n\n{teacher.licence_text.rstrip()}\n"
    )


def log_text(rows: Sequence[dict[str, str]]) -> str:
    """CSV of all columns that any row has."""
    names = {name for row in rows for name in row}
    first = [name for name in ("step", "epoch", "loss") if name in names]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*first, *sorted(names - set(first))], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
