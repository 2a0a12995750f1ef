"""One score a frame from the scores of all windows that hold it."""

from __future__ import annotations

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


class Aggregator:
    """Hamming-weighted mean over windows, of which frames are taken when they are decided.

    Coria et al. 2021, section 2.1: the score of a frame is the mean over the windows that hold it,
    weighted by a Hamming window, since scores are best in a window's middle. `power` sharpens it:
    at a low latency all windows hold a frame near their end, and the one that heard most of what
    followed should count most. Windows come in order of time, each as [num_frames, columns].
    Frames before the recording's start are left out.
    """

    def __init__(self, *, num_frames: int, columns: int, power: float = 1.0) -> None:
        self._weights: Floats = np.hamming(num_frames).astype(np.float64) ** power
        self._sums: Floats = np.zeros((0, columns))
        self._totals: Floats = np.zeros(0)
        self._taken = 0

    def add(self, scores: NDArray[np.floating], *, first: int) -> None:
        """Add a window's scores [num_frames, columns], the first of them at frame `first`."""
        skipped = max(0, self._taken - first)
        begin = first + skipped - self._taken
        end = begin + len(scores) - skipped
        if end <= begin:
            return
        self._grow(end)
        weights = self._weights[skipped:]
        self._sums[begin:end] += weights[:, None] * scores[skipped:]
        self._totals[begin:end] += weights

    def take(self, until: int) -> Floats:
        """Scores [frames, columns] of the frames from those taken before up to `until`.

        A frame that no window holds (a window has none at its very edges) gets the score of the
        frame before it.
        """
        count = max(0, until - self._taken)
        self._grow(count)
        sums, totals = self._sums[:count], self._totals[:count]
        means = np.divide(sums, totals[:, None], out=np.zeros_like(sums), where=totals[:, None] > 0)
        for frame in np.flatnonzero(totals == 0):
            if frame:
                means[frame] = means[frame - 1]
        self._sums, self._totals = self._sums[count:], self._totals[count:]
        self._taken += count
        return means

    def _grow(self, frames: int) -> None:
        missing = frames - len(self._sums)
        if missing > 0:
            self._sums = np.pad(self._sums, ((0, missing), (0, 0)))
            self._totals = np.pad(self._totals, (0, missing))


class VotedScores:
    """One score a frame and slot, and all windows that hold the frame vote whose it is.

    For a segmentation that scores every frame once: windows say the same of a frame, and differ in
    who they take a slot for. The mean over windows would share a score out among speakers until
    nobody reaches a threshold. Votes weigh as scores do in `Aggregator`; a slot that is nobody's in
    a window, or not active in it, has no vote there.
    """

    def __init__(self, *, num_frames: int, slots: int, columns: int, power: float = 1.0) -> None:
        self._weights: Floats = np.hamming(num_frames).astype(np.float64) ** power
        self._scores: Floats = np.zeros((0, slots))
        self._votes: Floats = np.zeros((0, slots, columns))
        self._held = self._taken = 0

    def add(
        self, scores: NDArray[np.floating], assignment: NDArray[np.int64], *, first: int
    ) -> None:
        """Add a window's scores [num_frames, slots], the first of them at frame `first`, and the
        column of each slot, [slots] (below zero: nobody's)."""
        skipped = max(0, self._taken - first)
        begin = first + skipped - self._taken
        end = begin + len(scores) - skipped
        if end <= begin:
            return
        self._grow(end)
        self._held = first + len(scores)
        # Slots that are not active in a window are zero in it, whatever they are in others.
        known = self._scores[begin:end]
        np.maximum(known, scores[skipped:], out=known)
        for slot in np.flatnonzero(assignment >= 0):
            self._votes[begin:end, slot, assignment[slot]] += self._weights[skipped:]

    def take(self, until: int) -> Floats:
        """Scores [frames, columns] of the frames from those taken before up to `until`.

        A frame that no window holds gets the scores of the frame before it.
        """
        count = max(0, until - self._taken)
        self._grow(count)
        votes, scores = self._votes[:count], self._scores[:count]
        placed = np.zeros((count, votes.shape[2]))
        for slot in range(scores.shape[1]):
            voted = np.flatnonzero(votes[:, slot].any(axis=1))
            winner = votes[voted, slot].argmax(axis=1)
            placed[voted, winner] = np.maximum(placed[voted, winner], scores[voted, slot])
        last = max(0, self._held - self._taken)
        if 0 < last < count:
            placed[last:] = placed[last - 1]
        self._scores, self._votes = self._scores[count:], self._votes[count:]
        self._taken += count
        return placed

    def _grow(self, frames: int) -> None:
        missing = frames - len(self._scores)
        if missing > 0:
            self._scores = np.pad(self._scores, ((0, missing), (0, 0)))
            self._votes = np.pad(self._votes, ((0, missing), (0, 0), (0, 0)))
