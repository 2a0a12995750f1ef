"""One score a frame from the scores of all windows that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.types import FrameGeometry

Floats = NDArray[np.float64]


def first_frame(start: int, geometry: FrameGeometry) -> int:
    """Frame of the recording's grid that is nearest to a window's first frame.

    The recording's frame `k` has its centre at `k * frame_step_samples + receptive_field / 2`
    samples; a window that begins at sample `start` is out of step by half a frame at most.
    """
    step = geometry.frame_step_samples
    return (2 * start + step) // (2 * step)


def frames_before(sample: int, geometry: FrameGeometry) -> int:
    """How many frames of the recording's grid have their centre before a sample."""
    step, field = geometry.frame_step_samples, geometry.receptive_field_samples
    return max(0, -((field - 2 * sample) // (2 * step)))


@dataclass(frozen=True)
class Placed:
    """A window: its scores [num_frames, slots], the first of them at frame `first` of the
    recording's grid, and the column of each slot, [slots] (below zero: nobody's)."""

    first: int
    scores: NDArray[np.floating]
    columns: NDArray[np.int64]

    def within(self, begin: int, end: int) -> tuple[slice, slice]:
        """Its own frames that lie in [begin, end), and where they lie there."""
        low = min(max(begin, self.first), end)
        high = max(low, min(end, self.first + len(self.scores)))
        return slice(low - self.first, high - self.first), slice(low - begin, high - begin)


def mean_scores(
    windows: Sequence[Placed], *, begin: int, end: int, weights: Floats, columns: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores [end - begin, columns] of frames, and which of them any window holds.

    Coria et al. 2021, section 2.1: the score of a frame is the mean over the windows that hold it,
    by `weights` [num_frames], a Hamming window, since scores are best in a window's middle.
    """
    sums, totals = np.zeros((end - begin, columns)), np.zeros(end - begin)
    for window in windows:
        mine, here = window.within(begin, end)
        totals[here] += weights[mine]
        for slot in np.flatnonzero(window.columns >= 0):
            sums[here, window.columns[slot]] += weights[mine] * window.scores[mine, slot]
    held = totals > 0
    return np.divide(sums, totals[:, None], out=sums, where=held[:, None]), held


def voted_scores(
    windows: Sequence[Placed], *, begin: int, end: int, weights: Floats, columns: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """The same for a segmentation that scores every frame once: windows vote whose the score is.

    They say the same of a frame, and differ in who they take a slot for: the mean over windows
    would share a score out among speakers until nobody reaches a threshold. Votes weigh as scores
    do; a slot that is nobody's in a window, or not active in it, has no vote there.
    """
    slots = max((window.scores.shape[1] for window in windows), default=0)
    scores, held = np.zeros((end - begin, slots)), np.zeros(end - begin, np.bool_)
    votes = np.zeros((end - begin, slots, columns))
    for window in windows:
        mine, here = window.within(begin, end)
        held[here] = True
        # Slots that are not active in a window are zero in it, whatever they are in others.
        scores[here] = np.maximum(scores[here], window.scores[mine])
        for slot in np.flatnonzero(window.columns >= 0):
            votes[here, slot, window.columns[slot]] += weights[mine]
    placed = np.zeros((end - begin, columns))
    for slot in range(slots):
        voted = np.flatnonzero(votes[:, slot].any(axis=1))
        winner = votes[voted, slot].argmax(axis=1)
        placed[voted, winner] = np.maximum(placed[voted, winner], scores[voted, slot])
    return placed, held
