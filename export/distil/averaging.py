"""The mean of two students' weights, which does better than either where both hear differently."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import TrainingError


def average_weights(student: nn.Module, other: nn.Module, *, source: str) -> None:
    """Set the student's weights to the mean of its own and the other's.

    A uniform soup: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models
    improves accuracy without increasing inference time", ICML 2022, section 2. Both have to have
    started from the same weights, as students of one teacher do: what is learnt from there lies in
    one valley. Raises TrainingError naming `source` when the networks differ.
    """
    own, given = student.state_dict(), other.state_dict()
    differing = sorted(
        name
        for name in own.keys() | given.keys()
        if name not in own or name not in given or own[name].shape != given[name].shape
    )
    if differing:
        raise TrainingError(
            source,
            found=f"another network: {differing[0]} differs, and {len(differing) - 1} more",
            expected="a student of the same design and teacher",
        )
    with torch.no_grad():
        for name, value in own.items():
            if value.is_floating_point():
                value.lerp_(given[name].to(value.dtype), 0.5)
