"""Training: it learns, it resumes after a kill, it fails with its checkpoints kept."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from export.audio import load_recording
from export.checkpoint import LoadedModel, load_model
from export.distil.config import DistilConfig, TrainingAudio
from export.distil.evaluate import measure_agreement, score_windows, stack_windows
from export.distil.folder import write_student
from export.distil.parts import after_front_end, front_end
from export.distil.pool import CACHE
from export.distil.record import Provenance, TrainingRecord
from export.distil.resume import CHECKPOINTS, LAST, disk_errors_told, read_logs
from export.distil.start import build_student
from export.distil.train import TrainedStudent, train
from export.errors import TrainingError
from export.pyannote_import import pyannote_audio, sample_recording

CONFIG = DistilConfig(
    student="sinc-1uni",
    steps=6,
    batch_size=2,
    pool_windows=8,
    checkpoint_steps=2,
    average_decay=0.5,
    seed=3,
)
WHOLE = CONFIG.model_copy(update={"pool_windows": 0})

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.export import test_distil_training as here
from export.checkpoint import load_model
from export.distil.train import train

def kill(stage, done, total):
    if stage == "training" and done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train(load_model("sinc-1bi"), here.sample_audio(), here.CONFIG, folder=Path(sys.argv[1]),
      progress=kill)
"""


def sample_audio() -> TrainingAudio:
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    samples = recording.samples
    head = replace(recording, uri="head", samples=samples[: 20 * 16000].copy())
    tail = replace(recording, uri="tail", samples=samples[20 * 16000 :].copy())
    return TrainingAudio([head], {}, [tail])


@pytest.fixture(scope="module")
def audio() -> TrainingAudio:
    return sample_audio()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def trained(zoo_model: LoadedModel, audio: TrainingAudio, folder: Path) -> TrainedStudent:
    return train(zoo_model, audio, CONFIG, folder=folder)


def equal(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_lowers_the_loss(
    trained: TrainedStudent, zoo_model: LoadedModel, audio: TrainingAudio, folder: Path
) -> None:
    rows = trained.log_rows
    assert [int(row["step"]) for row in rows] == [1, 3, 5]
    untrained = measure_agreement(
        build_student(CONFIG, zoo_model),
        zoo_model.module,
        audio.validation,
        geometry=zoo_model.spec.geometry,
        hop_s=CONFIG.validation_hop_s,
    )
    assert float(rows[-1]["validation_loss"]) < untrained.loss
    assert rows == read_logs(folder)
    best = max(range(3), key=lambda i: float(rows[i]["validation_agreement"]))
    assert trained.step == 2 * (best + 1)


def test_teacher_and_front_end_are_left_alone(
    trained: TrainedStudent, zoo_model: LoadedModel
) -> None:
    assert equal(zoo_model.module, load_model("sinc-1bi").module)
    teacher, student = zoo_model.module.state_dict(), trained.module.state_dict()
    front_end = [name for name in teacher if name.startswith("sincnet.")]
    assert front_end and all(torch.equal(teacher[name], student[name]) for name in front_end)
    name = "lstm.weight_hh_l0"
    assert not torch.equal(teacher[name], student[name])


def test_without_a_pool_the_front_end_is_trained_and_resumes_too(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise StoppedError

    whole = train(zoo_model, audio, WHOLE, folder=tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(zoo_model, audio, WHOLE, folder=tmp_path / "stopped", progress=stop)
    resumed = train(zoo_model, audio, WHOLE, folder=tmp_path / "stopped", resume=True)
    assert equal(whole.module, resumed.module)
    teacher, student = zoo_model.module.state_dict(), whole.module.state_dict()
    filters, convolution = "sincnet.conv1d.0.filterbank.low_hz_", "sincnet.conv1d.1.weight"
    assert torch.equal(teacher[filters], student[filters])
    assert not torch.equal(teacher[convolution], student[convolution])
    assert not (tmp_path / "whole" / CACHE).exists()


def test_pool_is_labelled_once(
    trained: TrainedStudent, zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    stages: list[str] = []

    def run(config: DistilConfig, *, resume: bool) -> None:
        stages.clear()
        train(
            zoo_model,
            audio,
            config,
            folder=tmp_path,
            resume=resume,
            progress=lambda stage, done, total: stages.append(stage),
        )

    short = CONFIG.model_copy(update={"steps": 1})
    run(short, resume=False)
    assert stages == ["labelling windows", "training"]
    shutil.rmtree(tmp_path / CHECKPOINTS)
    run(short.model_copy(update={"learning_rate": 1e-3}), resume=False)
    assert stages == ["training"]
    shutil.rmtree(tmp_path / CHECKPOINTS)
    run(short.model_copy(update={"student": f"{CONFIG.student}-gru"}), resume=False)
    assert stages == ["training"]
    shutil.rmtree(tmp_path / CHECKPOINTS)
    for cache in (tmp_path / CACHE).iterdir():
        cache.write_bytes(cache.read_bytes()[:100])
    run(short, resume=False)
    assert stages == ["labelling windows", "training"]
    shutil.rmtree(tmp_path / CHECKPOINTS)
    run(short.model_copy(update={"seed": 4}), resume=False)
    assert stages == ["labelling windows", "training"]


def test_pool_holds_what_the_teacher_says(zoo_model: LoadedModel, audio: TrainingAudio) -> None:
    window = torch.from_numpy(audio.recordings[0].samples[:160000]).reshape(2, 1, 80000)
    with torch.no_grad():
        expected = zoo_model.module(window)
        found = after_front_end(zoo_model.module, front_end(zoo_model.module)(window))
    assert torch.equal(found, expected)


def test_killed_and_resumed_run_gives_the_same(
    trained: TrainedStudent, zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / CHECKPOINTS / LAST).is_file()
    with pytest.raises(TrainingError, match=r"holds the checkpoints of a run.*--resume"):
        train(zoo_model, audio, CONFIG, folder=tmp_path)
    seen: list[int] = []
    resumed = train(
        zoo_model,
        audio,
        CONFIG,
        folder=tmp_path,
        resume=True,
        progress=lambda stage, done, total: seen.append(done),
    )
    assert seen == [5, 6]
    assert equal(resumed.module, trained.module)
    assert resumed.step == trained.step
    assert resumed.log_rows == trained.log_rows


def test_finished_run_resumes_to_itself(
    trained: TrainedStudent, zoo_model: LoadedModel, audio: TrainingAudio, folder: Path
) -> None:
    again = train(zoo_model, audio, CONFIG, folder=folder, resume=True)
    assert equal(again.module, trained.module) and again.step == trained.step


def test_checkpoint_of_another_run_is_refused(
    trained: TrainedStudent, zoo_model: LoadedModel, audio: TrainingAudio, folder: Path
) -> None:
    other = CONFIG.model_copy(update={"seed": 4, "learning_rate": 5e-3})
    with pytest.raises(TrainingError, match=r"last\.ckpt.*learning_rate, seed differ"):
        train(zoo_model, audio, other, folder=folder, resume=True)
    less = TrainingAudio(audio.recordings)
    with pytest.raises(TrainingError, match="audio_sha256 differ"):
        train(zoo_model, less, CONFIG, folder=folder, resume=True)


def test_something_else_in_place_of_a_checkpoint_is_refused(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CHECKPOINTS / LAST).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"last\.ckpt: not a checkpoint of a distillation"):
        train(zoo_model, audio, CONFIG, folder=tmp_path, resume=True)


def test_loss_that_is_not_finite_stops_with_the_checkpoint_kept(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    diverging = CONFIG.model_copy(update={"learning_rate": 1e37, "checkpoint_steps": 1})
    with pytest.raises(TrainingError, match=r"step \d: the loss is nan.*--learning-rate.*--resume"):
        train(zoo_model, TrainingAudio(audio.recordings), diverging, folder=tmp_path)
    kept = torch.load(tmp_path / CHECKPOINTS / LAST, weights_only=True)
    assert kept["global_step"] == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "write",
    [
        lambda: os.write(os.open("/dev/full", os.O_WRONLY), b"x"),
        lambda: torch.save({"weights": torch.zeros(100_000)}, "/dev/full"),
    ],
    ids=["write", "torch.save"],
)
def test_full_disk_is_told(write: Callable[[], None], tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match=r"the disk is full.*--resume"),
        disk_errors_told(tmp_path),
    ):
        write()


def test_other_errors_pass_the_disk_check(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), disk_errors_told(tmp_path):
        raise RuntimeError("a bug")


def test_interruption_has_a_message_of_its_own(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match=r"interrupted\. Go on with --resume"),
        disk_errors_told(tmp_path),
    ):
        raise KeyboardInterrupt


def test_folder_loads_here_and_in_pyannote(
    trained: TrainedStudent, zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    record = write_student(
        tmp_path,
        trained,
        teacher=zoo_model,
        audio=audio,
        config=CONFIG,
        figures=[],
        provenance=Provenance(["Sample, CC0"], ["Only a test."], "Own licence\n\nFree.\n"),
    )
    pyannote_audio()
    from pyannote.audio import Model

    window = torch.from_numpy(audio.recordings[0].samples[:80000])[None, None]
    loaded = load_model(tmp_path)
    theirs = Model.from_pretrained(tmp_path / "pytorch_model.bin")
    assert theirs is not None
    with torch.no_grad():
        expected = trained.module(window)
        assert torch.equal(loaded.module(window), expected)
        assert torch.equal(theirs.eval()(window), expected)
    assert loaded.spec.name == "sinc-1uni" and loaded.spec.licence == "Own licence"
    assert loaded.sha256 == record.weights_sha256
    assert record == TrainingRecord.model_validate_json((tmp_path / "training.json").read_text())
    assert record.config == CONFIG and record.audio["validation"].audio_s == 10
    assert loaded.licence_text.startswith("Own licence") and "CNRS" in loaded.licence_text
    assert "Only a test." in loaded.card and "Sample, CC0" in loaded.card
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "LICENSE", "MODEL_CARD.md", "config.json", "log.csv", "model.safetensors",
        "pytorch_model.bin", "training.json",
    ]  # fmt: skip
    texts = "".join(p.read_text() for p in tmp_path.iterdir() if p.suffix in {".json", ".md"})
    assert str(Path.home()) not in texts and str(sample_recording()[0].parent) not in texts
    assert json.loads((tmp_path / "config.json").read_text())["source"] == "distilled from sinc-1bi"


def test_average_is_what_is_measured_and_kept(trained: TrainedStudent, folder: Path) -> None:
    state = torch.load(folder / CHECKPOINTS / LAST, weights_only=True)["state_dict"]
    running = copy.deepcopy(trained.module)
    running.load_state_dict(
        {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
    )
    assert not equal(running, trained.module)


def test_a_calibrated_student_says_speech_as_often_as_its_teacher(
    trained: TrainedStudent, zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"calibrate": True})
    made = train(zoo_model, audio, config, folder=tmp_path).module
    shifted, bias = made.state_dict(), "classifier.bias"
    plain = trained.module.state_dict()
    assert all(torch.equal(shifted[k], plain[k]) for k in plain if k != bias)
    assert (shifted[bias] - plain[bias]).std() < 1e-6
    heard = stack_windows(
        [*audio.recordings, *audio.validation], zoo_model.spec.geometry, hop_s=2.5
    )
    said = [int((score_windows(m, heard) > 0.5).sum()) for m in (made, zoo_model.module)]
    assert said[0] == said[1] > 0
    with pytest.raises(TrainingError, match="--calibrate: neither recordings nor validation"):
        train(zoo_model, TrainingAudio([]), config, folder=tmp_path / "other")
