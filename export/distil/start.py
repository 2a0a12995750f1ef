"""What a student is before its first step."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ..checkpoint import LoadedModel
from ..errors import TrainingError
from ..models.base import MODELS
from ..models.students import student_design
from .config import DistilConfig
from .fake_quant import qat_recipe, raise_without_sincnet
from .parts import front_end
from .student import start_from_teacher


def build_student(
    config: DistilConfig, teacher: LoadedModel, *, start: LoadedModel | None = None
) -> nn.Module:
    """The untrained student of a teacher, seeded, with what it takes over from the teacher; or a
    copy of the model to start from.

    Raises CheckpointError for an unknown student, TrainingError for a teacher that no student of
    the family can imitate.
    """
    spec = teacher.spec
    _raise_on_settings(config, teacher)
    torch.manual_seed(config.seed)
    if start is not None:
        student = copy.deepcopy(start.module)
        rate = start.spec.geometry.sample_rate_hz
    else:
        architecture, plain = student_design(
            config.student, window_s=spec.geometry.window_s, classes=len(spec.classes)
        )
        plain["specifications"]["powerset_max_classes"] = spec.powerset_max_classes
        student, rate = MODELS[architecture].build(plain), plain["sample_rate"]
    if rate != spec.geometry.sample_rate_hz:
        raise TrainingError(
            teacher.source,
            found=f"a teacher for {spec.geometry.sample_rate_hz} Hz",
            expected=f"{rate} Hz, the rate of the student {config.student}",
        )
    with torch.no_grad():
        window = torch.zeros(1, 1, spec.geometry.window_samples)
        shapes = tuple(student(window).shape), tuple(teacher.module(window).shape)
    if shapes[0] != shapes[1]:
        raise TrainingError(
            teacher.source,
            found=f"scores of shape {shapes[1]} (batch, frames, speakers)",
            expected=f"{shapes[0]}, the shape of the student {config.student}",
        )
    if config.qat is not None:
        raise_without_sincnet(student, config.qat)
    whole = config.pool_windows > 0 and config.qat is None
    if start is None:
        start_from_teacher(student, teacher.module, whole_front_end=whole)
    elif whole:
        front_end(student).requires_grad_(False)
    return student


def _raise_on_settings(config: DistilConfig, teacher: LoadedModel) -> None:
    """On settings that do not go with each other or with the teacher."""
    spec = teacher.spec
    if spec.powerset_max_classes is None and config.temperature != 1:
        raise TrainingError(
            teacher.source,
            found=f"temperature {config.temperature:g} for a teacher of one score a speaker",
            expected="a powerset teacher: only its softmax has a temperature",
        )
    if config.hint_weight > 0 and config.pool_windows > 0:
        raise TrainingError(
            "--hint-weight",
            found=f"hints, and a pool of {config.pool_windows} windows",
            expected="--pool-windows 0: a pool keeps the teacher's scores alone",
        )
    if config.qat is not None:
        qat_recipe(config.qat)
        if config.precision != "32-true":
            raise TrainingError(
                f"--qat {config.qat} --precision {config.precision}",
                found="fewer bits than the sums of 8-bit products have",
                expected="--precision 32-true",
            )
