"""The student's classifier bias: set so that it says "speech" as often as its teacher, or by hand.

A student that is less sure than its teacher has more scores on the wrong side of 0.5: where most
decisions are "no speech", it misses what its teacher hears.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .evaluate import EPSILON, THRESHOLD, score_windows


def match_share_of_speech(student: nn.Module, teacher: nn.Module, windows: Tensor) -> float:
    """Shift the bias of the student's `classifier`, for all speakers alike; the shift comes back.

    `windows` are float32 [windows, 1, samples]; both models give probabilities. Afterwards the
    share of (frame, speaker) decisions that say speech is the teacher's, on these windows.
    """
    expected = score_windows(teacher, windows) > THRESHOLD
    logits = torch.logit(score_windows(student, windows), EPSILON).flatten()
    ordered = logits.sort(descending=True).values
    speaking = int(expected.sum())
    if not 0 < speaking < len(ordered):
        return 0.0
    shift = -float((ordered[speaking - 1] + ordered[speaking]) / 2)
    net: Any = student
    with torch.no_grad():
        net.classifier.bias += shift
    return shift


def move_onset(student: nn.Module, onset: float) -> None:
    """Shift the bias of the student's `classifier` so that a score of `onset` becomes one of 0.5.

    `onset` is in (0, 1); all other scores move with it on the scale of logits.
    """
    net: Any = student
    with torch.no_grad():
        net.classifier.bias -= math.log(onset / (1 - onset))
