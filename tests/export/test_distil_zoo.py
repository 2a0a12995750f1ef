"""The students that ship: weights, record, log and card agree, and the figures are as promised."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from export.audio import load_recording
from export.checkpoint import LoadedModel, load_model, zoo_dir, zoo_names
from export.distil.card import model_card
from export.distil.evaluate import measure_agreement
from export.distil.record import TrainingRecord, pooled_der
from export.pyannote_import import sample_recording
from export.types import Role

# Parameters; agreement with the teacher on development, percent, at least; window DER of
# development and test pooled, percent above the teacher's, at most. What the trained students
# reach, rounded: a student that replaces one must not be worse (docs/distillation.md).
SHIPPED = {
    "sinc-1bi": (270_445, 97.4, 1.2),
    "sinc-2bi": (665_709, 97.3, 0.8),
    "sinc-1uni": (156_781, 95.5, 7.0),
    "mfcc120-1bi": (289_283, 96.0, 4.3),
    "mfcc80-1uni": (124_419, 95.2, 7.1),
    "sinc-1bi-gru": (221_805, 95.9, 6.7),
}
VOICES = "sinc-1bi-voices"  # one on whose held-out audio nothing was chosen


@pytest.fixture(scope="module", params=[*SHIPPED, VOICES])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return load_model(str(request.param))


@pytest.fixture(scope="module")
def folder(model: LoadedModel) -> Path:
    return zoo_dir() / model.spec.name


@pytest.fixture(scope="module")
def record(folder: Path) -> TrainingRecord:
    return TrainingRecord.model_validate_json((folder / "training.json").read_text())


def test_the_zoo_is_what_is_listed_here_and_small() -> None:
    assert zoo_names(Role.SEGMENTATION) == sorted([*SHIPPED, VOICES])
    files = [path for path in zoo_dir().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000


def test_record_belongs_to_the_weights(record: TrainingRecord, model: LoadedModel) -> None:
    name = model.spec.name
    assert record.weights_sha256 == model.sha256
    design = name.removesuffix("-voices")
    assert record.parameters == SHIPPED[design][0]
    assert record.parameters == sum(p.numel() for p in model.module.parameters())
    assert record.config.student == design
    assert record.chosen_step <= record.config.steps
    assert f"--student {design} " in record.command + " " and "--seed" in record.command
    assert set(record.audio_sha256["recordings"]) == {f"trn0{i}" for i in range(9)}


def test_card_is_the_records(record: TrainingRecord, model: LoadedModel) -> None:
    assert model.card == model_card(record, model.spec)
    assert "AMI" in model.card and "LibriSpeech" in model.card
    assert model.card.count("CC BY 4.0") >= 2
    assert record.command and record.command in model.card


def test_licence_keeps_the_teachers_notice(model: LoadedModel) -> None:
    assert model.spec.licence == "MIT License"
    assert "diarport" in model.licence_text and "CNRS" in model.licence_text


def test_log_covers_the_training(record: TrainingRecord, folder: Path) -> None:
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) + 1 for row in rows]
    assert steps == sorted(set(steps))
    assert record.chosen_step in steps and steps[-1] == record.config.steps
    if folder.name == VOICES:
        assert record.chosen_step == record.config.steps
    else:
        best = max(rows, key=lambda row: float(row["validation_agreement"]))
        assert int(best["step"]) + 1 == record.chosen_step


def test_figures_are_within_what_the_student_is_shipped_for(
    record: TrainingRecord, model: LoadedModel
) -> None:
    if model.spec.name == VOICES:
        assert [(f.split, f.audio_s) for f in record.figures] == [("test", 90)]
        return
    _, agreement, above_teacher = SHIPPED[model.spec.name]
    validation, test = record.figures
    assert (validation.split, validation.audio_s) == ("validation", 60)
    assert (test.split, test.audio_s) == ("test", 30)
    assert validation.agreement.decisions_percent >= agreement
    pooled = pooled_der(record.figures)
    assert pooled is not None
    assert pooled[1] == pytest.approx(44.93, abs=0.01)
    assert pooled[0] <= pooled[1] + above_teacher


def test_shipped_files_are_small_and_name_no_path(folder: Path) -> None:
    files = {path.name: path for path in folder.iterdir()}
    assert set(files) == {
        "LICENSE", "MODEL_CARD.md", "config.json", "log.csv", "model.safetensors", "training.json",
    }  # fmt: skip
    for name in set(files) - {"model.safetensors", "LICENSE"}:
        text = files[name].read_text()
        assert not any(root in text for root in ("/home", "/tmp", "/work", "/root", "\\\\"))


def test_student_hears_two_people_and_silence(model: LoadedModel) -> None:
    """Shipped weights do what their cards say: pyannote's sample is in no part of the training."""
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    geometry = model.spec.geometry
    with torch.inference_mode():
        silence = model.module(torch.zeros(1, 1, geometry.window_samples))
        speech = model.module(
            torch.from_numpy(recording.samples[None, None, 8 * 16000 : 13 * 16000])
        )
    # Those that do not look ahead can take the first frames for speech.
    assert float((silence > 0.5).float().mean()) < 0.03
    assert 0.1 < float((speech > 0.5).float().mean()) < 0.6


def test_student_agrees_with_itself_whatever_the_order(zoo_model: LoadedModel) -> None:
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    found = measure_agreement(
        zoo_model.module,
        zoo_model.module,
        [recording],
        geometry=zoo_model.spec.geometry,
        hop_s=5,
    )
    assert found.decisions_percent == found.frames_percent == 100
    assert found.windows == 6
