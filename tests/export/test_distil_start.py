"""What a student starts from: its teacher's weights and shapes. Which teachers have no student."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.checkpoint import LoadedModel, load_model, save_pyannote
from export.distil.config import DistilConfig
from export.distil.start import build_student
from export.distil.student import start_from_teacher
from export.errors import CheckpointError, TrainingError
from export.models.base import MODELS
from export.models.pyannet import student_config
from export.models.students import student_design

CONFIG = DistilConfig(student="sinc-1uni", pool_windows=8, seed=3)


def model(*, classes: int = 3, powerset: int | None = None, rate: int = 16000) -> LoadedModel:
    config = student_config("sinc-1uni", classes=classes)
    config["sample_rate"] = rate
    config["specifications"]["powerset_max_classes"] = powerset
    module = MODELS["PyanNet"].build(config)
    spec = MODELS["PyanNet"].spec(module, name="t", licence="none", trained_on="nothing")
    return LoadedModel(module, spec, "teacher.bin", "0" * 64, "", "")


def test_a_temperature_without_powerset_classes_is_refused() -> None:
    config = CONFIG.model_copy(update={"temperature": 2.0})
    with pytest.raises(TrainingError, match=r"teacher\.bin: temperature 2 for a teacher of one"):
        build_student(config, model())


def test_teacher_of_another_rate_is_refused(zoo_model: LoadedModel) -> None:
    geometry = zoo_model.spec.geometry.model_copy(update={"sample_rate_hz": 8000})
    other = replace(zoo_model, spec=zoo_model.spec.model_copy(update={"geometry": geometry}))
    with pytest.raises(TrainingError, match="a teacher for 8000 Hz; expected 16000 Hz"):
        build_student(CONFIG, other)


def test_student_outside_the_family_is_refused(zoo_model: LoadedModel) -> None:
    with pytest.raises(CheckpointError, match="sinc-3x: not the name of a student"):
        build_student(CONFIG.model_copy(update={"student": "sinc-3x"}), zoo_model)


def test_student_takes_the_teachers_number_of_speakers() -> None:
    student = build_student(CONFIG, model(classes=4))
    assert student(torch.zeros(1, 1, 80000)).shape == (1, 293, 4)


@pytest.mark.parametrize("whole", [False, True])
def test_student_starts_from_the_teacher(zoo_model: LoadedModel, whole: bool) -> None:
    student = MODELS["PyanNet"].build(student_config("sinc-2bi-2lin"))
    copied = start_from_teacher(student, zoo_model.module, whole_front_end=whole)
    teacher, own = zoo_model.module.state_dict(), student.state_dict()
    assert {"lstm.weight_hh_l0_reverse", "linear.0.weight", "classifier.bias"} <= set(copied)
    assert all(torch.equal(own[name], teacher[name]) for name in copied)
    assert not any(name.startswith(("lstm.weight_hh_l1", "linear.1")) for name in copied)
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    filters = {
        "sincnet.wav_norm1d.weight",
        "sincnet.wav_norm1d.bias",
        "sincnet.conv1d.0.filterbank.low_hz_",
        "sincnet.conv1d.0.filterbank.band_hz_",
    }
    front_end = {name for name, _ in student.named_parameters() if name.startswith("sincnet.")}
    assert filters < front_end
    assert frozen == (front_end if whole else filters)


def test_the_student_of_a_powerset_checkpoint_has_its_classes(tmp_path: Path) -> None:
    save_pyannote(tmp_path / "powerset.bin", model(powerset=2).module)
    student = build_student(CONFIG, load_model(tmp_path / "powerset.bin"))
    assert student(torch.zeros(1, 1, 80000)).shape[2] == 7


@pytest.mark.parametrize(
    ("name", "recurrent"),
    [("sinc-1uni", 0), ("mfcc80-1bi", 0), ("sinc-1bi-gru", 0), ("sinc-2bi", 8)],
)
def test_recurrent_layers_are_taken_over_whole_or_not_at_all(
    name: str, recurrent: int, zoo_model: LoadedModel
) -> None:
    architecture, config = student_design(name)
    student = MODELS[architecture].build(config)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    copied = start_from_teacher(student, zoo_model.module, whole_front_end=True)
    assert "classifier.weight" in copied
    layers = [key for key in copied if key.startswith("lstm.")]
    assert len(layers) == recurrent and not any("_l1" in key for key in layers)
    given, after = zoo_model.module.state_dict(), student.state_dict()
    assert all(torch.equal(after[k], given[k] if k in copied else before[k]) for k in after)
