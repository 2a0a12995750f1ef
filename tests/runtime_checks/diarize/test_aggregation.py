"""Aggregation over windows: the published mean, computed as a stream and all at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.types import FrameGeometry
from runtime_checks.diarize.aggregation import (
    Floats,
    Placed,
    first_frame,
    frames_before,
    mean_scores,
    voted_scores,
)

GEOMETRY = FrameGeometry(
    sample_rate_hz=16000,
    window_samples=80000,
    num_frames=293,
    frame_step_samples=270,
    receptive_field_samples=991,
)


@given(start=st.integers(-80000, 10**9))
def test_a_window_is_out_of_step_by_half_a_frame_at_most(start: int) -> None:
    assert abs(first_frame(start, GEOMETRY) * 270 - start) <= 135


@given(sample=st.integers(0, 10**7))
def test_frames_before_a_sample_are_those_with_an_earlier_centre(sample: int) -> None:
    count = frames_before(sample, GEOMETRY)
    assert count == 0 or (count - 1) * 270 + 495.5 < sample
    assert count * 270 + 495.5 >= sample


@given(
    seed=st.integers(0, 1000),
    starts=st.lists(st.integers(1, 3), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 40), max_size=12),
)
def test_parts_give_the_published_mean(seed: int, starts: list[int], cuts: list[int]) -> None:
    frames, columns = 8, 2
    rng = np.random.default_rng(seed)
    firsts = [int(first) - frames // 2 for first in np.cumsum(starts)]
    windows = [rng.random((frames, columns)) for _ in firsts]
    total = max(0, firsts[-1] + frames)

    sums, totals = np.zeros((total, columns)), np.zeros((total, 1))
    for first, scores in zip(firsts, windows, strict=True):
        for frame in range(frames):
            if first + frame >= 0:
                sums[first + frame] += np.hamming(frames)[frame] * scores[frame]
                totals[first + frame] += np.hamming(frames)[frame]
    expected = sums / np.maximum(totals, 1e-12)

    placed = [
        Placed(first, scores, np.arange(columns))
        for first, scores in zip(firsts, windows, strict=True)
    ]
    edges = sorted({0, total, *(cut for cut in cuts if cut <= total)})
    taken = [
        mean_scores(placed, begin=begin, end=end, weights=hamming(frames), columns=columns)
        for begin, end in pairwise(edges)
    ]
    np.testing.assert_allclose(np.concatenate([part for part, _ in taken]), expected, atol=1e-12)
    np.testing.assert_array_equal(np.concatenate([held for _, held in taken]), totals[:, 0] > 0)


def one_slot(first: int, *scores: float, column: int = 0) -> Placed:
    return Placed(first, np.array(scores)[:, None], np.array([column]))


def hamming(count: int) -> Floats:
    return np.hamming(count).astype(np.float64)


def even(count: int) -> Floats:
    return np.ones(count)


def test_frames_that_no_window_holds_are_told() -> None:
    windows = [one_slot(0, 0.2, 0.6), one_slot(3, 0.4, 0.8)]
    for scores_of in (mean_scores, voted_scores):
        scores, held = scores_of(windows, begin=0, end=5, weights=even(2), columns=1)
        np.testing.assert_allclose(scores[:, 0], [0.2, 0.6, 0, 0.4, 0.8])
        assert held.tolist() == [True, True, False, True, True]


def test_a_frame_in_the_middle_of_a_window_weighs_more() -> None:
    weights = hamming(5)
    windows = [one_slot(0, 1, 1, 1, 1, 1), one_slot(2, 0, 0, 0, 0, 0)]
    scores, _ = mean_scores(windows, begin=2, end=3, weights=weights, columns=1)
    assert scores[0, 0] == weights[2] / (weights[2] + weights[0])


def test_nobodys_slots_lower_the_mean_and_have_no_vote() -> None:
    windows = [one_slot(0, 0.8, 0.8), one_slot(0, 0.8, 0.8, column=-1)]
    means, _ = mean_scores(windows, begin=0, end=2, weights=even(2), columns=1)
    votes, _ = voted_scores(windows, begin=0, end=2, weights=even(2), columns=1)
    np.testing.assert_allclose(means[:, 0], 0.4)
    np.testing.assert_allclose(votes[:, 0], 0.8)


def test_windows_vote_whose_a_frame_is_and_leave_its_score() -> None:
    scores = np.array([[0.9, 0.0], [0.8, 0.0], [0.7, 0.6], [0.0, 0.5]])
    silent = np.zeros((4, 2))
    # By the last window slot 0 is not active any more, and slot 1 has got a speaker.
    late = np.vstack([scores[2:], silent[:2]])
    late[:, 0] = 0
    windows = [
        Placed(0, scores, np.array([0, -1])),
        Placed(1, np.vstack([scores[1:], silent[:1]]), np.array([0, -1])),
        Placed(2, late, np.array([1, 2])),
    ]
    found, _ = voted_scores(windows, begin=0, end=4, weights=hamming(4), columns=3)
    np.testing.assert_allclose(found, [[0.9, 0, 0], [0.8, 0, 0], [0.7, 0, 0.6], [0, 0, 0.5]])
