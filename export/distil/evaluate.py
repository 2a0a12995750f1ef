"""How well a student says what its teacher says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..audio import Recording, cut_windows
from ..types import FrameGeometry, Value
from . import objective as objectives
from .losses import best_permutation
from .objective import Objective

THRESHOLD, EPSILON = objectives.THRESHOLD, objectives.EPSILON
BATCH = 16


class Agreement(Value):
    """Agreement with the teacher, under the best permutation of speakers in each window.

    `decisions_percent` counts (frame, speaker) decisions that are equal, at a score of 0.5 or by
    the likeliest set of speakers; `frames_percent` the frames on which all speakers' decisions
    are; `loss` is the permutation-invariant cross-entropy, or divergence of powersets.
    """

    decisions_percent: float
    frames_percent: float
    loss: float
    windows: int


def stack_windows(
    recordings: Sequence[Recording], geometry: FrameGeometry, *, hop_s: float
) -> Tensor:
    """All windows of the recordings, float32 [windows, 1, samples]."""
    cut = [w.samples for r in recordings for w in cut_windows(r, geometry, hop_s=hop_s)]
    return torch.stack([torch.from_numpy(samples) for samples in cut]).unsqueeze(1)


@torch.no_grad()
def score_windows(module: nn.Module, windows: Tensor) -> Tensor:
    """Scores [windows, frames, classes] of a model in evaluation mode."""
    return torch.cat([module(batch) for batch in torch.split(windows, BATCH)])


def compare_scores(
    student: Tensor, teacher: Tensor, objective: Objective | None = None
) -> Agreement:
    """Agreement of two models' scores [windows, frames, classes] of the same windows.

    Without an objective the classes are speakers.
    """
    objective = objective or Objective(student.shape[-1])
    on, expected = objective.decided(student), objective.decided(teacher)
    differing = (on.unsqueeze(3) != expected.unsqueeze(2)).float().mean(1)
    permutation = best_permutation(differing)
    aligned = torch.gather(expected, 2, permutation.unsqueeze(1).expand_as(expected))
    equal = on == aligned
    return Agreement(
        decisions_percent=100 * float(equal.float().mean()),
        frames_percent=100 * float(equal.all(2).float().mean()),
        loss=objective.distance(student, teacher),
        windows=len(student),
    )


def measure_agreement(
    student: nn.Module,
    teacher: nn.Module,
    recordings: Sequence[Recording],
    *,
    geometry: FrameGeometry,
    hop_s: float,
) -> Agreement:
    """Agreement on recordings cut into windows every `hop_s` seconds."""
    windows = stack_windows(recordings, geometry, hop_s=hop_s)
    return compare_scores(score_windows(student, windows), score_windows(teacher, windows))
