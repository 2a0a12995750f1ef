"""The student that ships: weights, record, log and card agree with each other."""

from __future__ import annotations

import csv

import pytest

from export.audio import load_recording
from export.checkpoint import LoadedModel, zoo_dir
from export.distil.card import model_card
from export.distil.evaluate import measure_agreement
from export.distil.record import TrainingRecord
from export.pyannote_import import sample_recording

FOLDER = zoo_dir() / "sinc-1bi"


@pytest.fixture(scope="module")
def record() -> TrainingRecord:
    return TrainingRecord.model_validate_json((FOLDER / "training.json").read_text())


def test_record_belongs_to_the_weights(record: TrainingRecord, zoo_model: LoadedModel) -> None:
    assert record.weights_sha256 == zoo_model.sha256
    assert record.parameters == sum(p.numel() for p in zoo_model.module.parameters()) == 270_445
    assert record.config.student == zoo_model.spec.name == "sinc-1bi"
    assert record.chosen_step <= record.config.steps


def test_card_is_the_records(record: TrainingRecord, zoo_model: LoadedModel) -> None:
    assert zoo_model.card == model_card(record, zoo_model.spec)
    assert "AMI" in zoo_model.card and "LibriSpeech" in zoo_model.card
    assert zoo_model.card.count("CC BY 4.0") == 2


def test_licence_keeps_the_teachers_notice(zoo_model: LoadedModel) -> None:
    assert zoo_model.spec.licence == "MIT License"
    assert "diarport" in zoo_model.licence_text and "CNRS" in zoo_model.licence_text


def test_log_covers_the_training(record: TrainingRecord) -> None:
    with (FOLDER / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) + 1 for row in rows]
    assert steps == sorted(set(steps))
    assert record.chosen_step in steps and steps[-1] == record.config.steps
    best = max(rows, key=lambda row: float(row["validation_agreement"]))
    assert int(best["step"]) + 1 == record.chosen_step


def test_figures_are_within_what_the_model_is_shipped_for(record: TrainingRecord) -> None:
    validation, test = record.figures
    assert validation.agreement.decisions_percent >= 97.4
    assert validation.student_der and validation.teacher_der and test.student_der
    assert validation.student_der.pooled < validation.teacher_der.pooled + 5


def test_shipped_files_are_small_and_name_no_path() -> None:
    files = {path.name: path for path in FOLDER.iterdir()}
    assert set(files) == {
        "LICENSE", "MODEL_CARD.md", "config.json", "log.csv", "model.safetensors", "training.json",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in files.values()) < 1_200_000
    for name in set(files) - {"model.safetensors", "LICENSE"}:
        text = files[name].read_text()
        assert not any(root in text for root in ("/home", "/tmp", "/work", "/root", "\\"))


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
