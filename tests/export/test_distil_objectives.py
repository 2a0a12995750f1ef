"""Training on powerset classes and hints, from a teacher whose powerset scores are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from export.checkpoint import LoadedModel, load_model
from export.distil.config import DistilConfig, TrainingAudio
from export.distil.data import load_training_audio
from export.distil.evaluate import compare_scores, score_windows, stack_windows
from export.distil.folder import write_student
from export.distil.objective import Objective
from export.distil.powerset import speaker_sets
from export.distil.record import Provenance
from export.distil.train import train
from export.errors import TrainingError
from export.models.base import MODELS
from export.pyannote_import import sample_recording

CONFIG = DistilConfig(
    student="sinc-1bi",
    steps=2,
    batch_size=2,
    pool_windows=4,
    checkpoint_steps=1,
    average_decay=0,
    weight_decay=0,
    validation_hop_s=5,
)
STILL = {"learning_rate": 1e-30}  # too little to change a float32


def change(**changes: object) -> DistilConfig:
    return DistilConfig(**{**CONFIG.model_dump(), **changes})


@pytest.fixture(scope="module")
def audio(zoo_model: LoadedModel) -> TrainingAudio:
    recordings = load_training_audio([sample_recording()[0]], zoo_model.spec.geometry)
    return TrainingAudio(recordings, {}, recordings)


@pytest.fixture(scope="module")
def powerset(zoo_model: LoadedModel) -> LoadedModel:
    """The zoo model over sets of at most two speakers: a set's logit is its speakers' sum."""
    architecture = MODELS["PyanNet"]
    config = architecture.config(zoo_model.module)
    config["specifications"]["powerset_max_classes"] = 2
    module: Any = architecture.build(config)
    sets = speaker_sets(3, 2)
    table = torch.zeros(len(sets), 3)
    for index, members in enumerate(sets):
        table[index, list(members)] = 1.0
    state = dict(zoo_model.module.state_dict())
    for name in ("classifier.weight", "classifier.bias"):
        state[name] = table @ state[name]
    module.load_state_dict(state)
    spec = architecture.spec(module.eval(), name="powerset", licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, "powerset", "1" * 64, "", "MIT License")


def test_the_powerset_teacher_decides_as_its_source(
    zoo_model: LoadedModel, powerset: LoadedModel, audio: TrainingAudio
) -> None:
    windows = stack_windows(audio.recordings, zoo_model.spec.geometry, hop_s=5)
    sets, speakers = (
        score_windows(powerset.module, windows),
        score_windows(zoo_model.module, windows),
    )
    decided = Objective.of(powerset.spec).decided(sets)
    assert (decided == Objective.of(zoo_model.spec).decided(speakers)).float().mean() > 0.999


def test_a_student_that_is_its_powerset_teacher_agrees_and_loses_nothing(
    powerset: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    trained = train(powerset, audio, change(temperature=2.0, **STILL), folder=tmp_path)
    for row in trained.log_rows:
        assert float(row.get("loss", 0)) == pytest.approx(0, abs=1e-3)
        assert float(row.get("validation_agreement", 100)) == 100
    write_student(
        tmp_path,
        trained,
        teacher=powerset,
        audio=audio,
        config=CONFIG,
        figures=(),
        provenance=Provenance(),
    )
    student = load_model(tmp_path)
    assert student.spec.powerset_max_classes == 2 and student.spec.activation == "log_softmax"
    windows = stack_windows(audio.recordings, student.spec.geometry, hop_s=5)
    scores = [score_windows(each, windows) for each in (student.module, powerset.module)]
    found = compare_scores(scores[0], scores[1], Objective.of(powerset.spec))
    assert found.decisions_percent == 100 and found.loss == pytest.approx(0, abs=1e-5)


def test_a_smaller_student_learns_powerset_classes(
    powerset: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    config = change(
        student="sinc-1uni", steps=12, batch_size=4, checkpoint_steps=4, learning_rate=3e-3
    )
    rows = train(powerset, TrainingAudio(audio.recordings), config, folder=tmp_path).log_rows
    losses = [float(row["loss"]) for row in rows if "loss" in row]
    assert len(losses) == 3 and 0 < losses[2] < losses[1] < losses[0]  # of the same four windows


def test_hints_are_added_and_their_regressor_is_trained(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    settings = {"student": "sinc-1uni", "pool_windows": 0, "learning_rate": 1e-2, "steps": 4}
    rows = {}
    for weight in (0.0, 100.0):
        config = change(**settings, hint_weight=weight)
        trained = train(zoo_model, audio, config, folder=tmp_path / f"{weight}")
        rows[weight] = [float(row["loss"]) for row in trained.log_rows if "loss" in row]
    # The windows are the same: what the first step's loss is more is the hints'.
    first = rows[100.0][0] - rows[0.0][0]
    assert first > 0.1 and rows[100.0][-1] - rows[0.0][-1] < first


def test_hints_with_a_pool_are_refused(
    zoo_model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="hints, and a pool of 4 windows"):
        train(zoo_model, audio, change(hint_weight=1.0), folder=tmp_path)
