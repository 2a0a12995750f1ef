"""How far onsets and offsets of speech moved between two sets of decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .decisions import Bools


@dataclass(frozen=True)
class BoundaryShifts:
    """Shifts in frames of the boundaries that have a counterpart, and how many have none.

    `total` counts the boundaries of both sides, a matched pair as one.
    """

    shifts_frames: tuple[int, ...]
    unmatched: int

    @property
    def total(self) -> int:
        """Boundaries in all."""
        return len(self.shifts_frames) + self.unmatched


def compare_boundaries(
    artifact: Bools, reference: Bools, *, max_shift_frames: int
) -> BoundaryShifts:
    """Match onsets with onsets and offsets with offsets, speaker by speaker.

    Both are [frames, speakers]. The matching with the smallest sum of shifts is taken; a pair
    further apart than `max_shift_frames` counts as two unmatched boundaries. Speech that touches
    an edge of the window has its boundary there.
    """
    shifts: list[int] = []
    unmatched = 0
    for mine, theirs in zip(artifact.T, reference.T, strict=True):
        for sign in (1, -1):
            pairs, alone = _match(
                _boundaries(mine, sign), _boundaries(theirs, sign), max_shift=max_shift_frames
            )
            shifts += pairs
            unmatched += alone
    return BoundaryShifts(tuple(shifts), unmatched)


def _boundaries(active: Bools, sign: int) -> NDArray[np.int64]:
    """First frames of speech (sign 1), or first frames after it (sign -1)."""
    steps = np.diff(active.astype(np.int64), prepend=0, append=0)
    return np.flatnonzero(steps == sign)


def _match(
    mine: NDArray[np.int64], theirs: NDArray[np.int64], *, max_shift: int
) -> tuple[list[int], int]:
    distance = np.abs(mine[:, None] - theirs[None, :])
    # Beyond the gate every distance costs the same, or one far pair could drag near ones apart;
    # a little more than a frame beyond, so that of equal sums the one with more pairs is taken.
    rows, columns = linear_sum_assignment(
        np.where(distance > max_shift, max_shift + 1.001, distance)
    )
    found = distance[rows, columns]
    shifts = [int(shift) for shift in found if shift <= max_shift]
    return shifts, len(mine) + len(theirs) - 2 * len(shifts)
