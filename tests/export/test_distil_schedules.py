"""Plateau, early stopping, precision, logs and devices of a training."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.checkpoint import LoadedModel, load_model
from export.distil.config import DistilConfig, TrainingAudio
from export.distil.data import load_training_audio
from export.distil.resume import CHECKPOINTS, LAST
from export.distil.train import train
from export.distil.trainer import TENSORBOARD, Hardware
from export.errors import TrainingError
from export.pyannote_import import sample_recording

STILL = DistilConfig(
    student="sinc-1uni",
    steps=10,
    batch_size=1,
    pool_windows=4,
    checkpoint_steps=1,
    learning_rate=1e-30,  # too little to change a float32
    weight_decay=0,
    validation_hop_s=10,
)


@pytest.fixture(scope="module")
def audio(zoo_model: LoadedModel) -> TrainingAudio:
    recordings = load_training_audio([sample_recording()[0]], zoo_model.spec.geometry)
    return TrainingAudio(recordings, {}, recordings)


def change(**changes: object) -> DistilConfig:
    return DistilConfig(**{**STILL.model_dump(), **changes})


def test_a_rate_is_halved_after_five_validations_without_gain(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    config = change(schedule="plateau", steps=8)
    rows = train(zoo_model, audio, config, folder=tmp_path).log_rows
    # The first validation is a gain, the six after it are one more than the patience.
    rates = [float(row["learning_rate"]) for row in rows if "learning_rate" in row]
    assert rates[-1] / rates[0] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)
    assert rates.count(rates[0]) in (6, 7)


def test_training_stops_early_and_stays_stopped(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    config = change(early_stopping=2)
    stopped = train(zoo_model, audio, config, folder=tmp_path)
    assert max(int(row["step"]) for row in stopped.log_rows) == 2  # the third, from zero
    before = (tmp_path / CHECKPOINTS / LAST).read_bytes()
    again = train(zoo_model, audio, config, folder=tmp_path, resume=True)
    assert again.log_rows == stopped.log_rows
    assert (tmp_path / CHECKPOINTS / LAST).read_bytes() == before


@pytest.mark.parametrize("setting", [{"schedule": "plateau"}, {"early_stopping": 3}])
def test_what_judges_by_validation_needs_audio_for_it(
    setting: dict[str, object], zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    unjudged = TrainingAudio(audio.recordings)
    with pytest.raises(TrainingError, match="no validation audio to judge by"):
        train(zoo_model, unjudged, change(**setting), folder=tmp_path)


def test_a_precision_changes_the_outcome_a_little(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    config = {"steps": 2, "learning_rate": 1e-3, "checkpoint_steps": 2}
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        settings = change(**config, precision=precision)
        rows = train(zoo_model, audio, settings, folder=tmp_path / precision).log_rows
        losses.append(float(rows[-1]["loss"]))
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize(
    ("config", "hardware"),
    [
        ({"precision": "half"}, Hardware()),
        ({}, Hardware(accelerator="abacus")),
        ({}, Hardware(strategy="nothing")),
    ],
)
def test_what_lightning_does_not_have_is_told(
    config: dict[str, object],
    hardware: Hardware,
    zoo_model: LoadedModel,
    audio: TrainingAudio,
    tmp_path: Path,
) -> None:
    with pytest.raises(TrainingError, match="not possible here"):
        train(zoo_model, audio, change(**config), folder=tmp_path, hardware=hardware)


def test_tensorboard_is_told_when_asked(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    hardware = Hardware(tensorboard=True)
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(TrainingError, match="tensorboard is not installed"):
            train(zoo_model, audio, STILL, folder=tmp_path, hardware=hardware)
        return
    trained = train(zoo_model, audio, change(steps=1), folder=tmp_path, hardware=hardware)
    assert trained.log_rows  # CSV is written as well
    assert list((tmp_path / TENSORBOARD).glob("version_0/events.out.tfevents.*"))


@pytest.mark.slow
def test_two_processes_train_one_student(tmp_path: Path) -> None:
    audio, _ = sample_recording()
    command = [sys.executable, "-m", "export.cli.app", "distill", "--teacher", "sinc-1bi"]
    command += ["--student", "sinc-1uni", "--audio", str(audio), "--validation-audio", str(audio)]
    command += ["--steps", "4", "--checkpoint-steps", "2", "--batch-size", "2", "--threads", "1"]
    command += ["--pool-windows", "8", "--accelerator", "cpu", "--devices", "2"]
    command += ["--strategy", "ddp", "--out", str(tmp_path / "student")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sinc-1uni, ") == 1  # one of the two tells
    student = load_model(tmp_path / "student")
    assert "those of step 4 were chosen" in student.card or "of step 2" in student.card
