"""Aggregation over windows: the published mean, computed as a stream and all at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.types import FrameGeometry
from runtime_checks.diarize.aggregation import Aggregator, first_frame, frames_before

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
def test_a_stream_gives_what_the_whole_gives(seed: int, starts: list[int], cuts: list[int]) -> None:
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

    stream = Aggregator(num_frames=frames, columns=columns)
    taken = []
    for first, scores, cut in zip(firsts, windows, [*cuts, *[0] * len(firsts)], strict=False):
        stream.add(scores, first=first)
        taken.append(stream.take(min(cut, first + 1)))  # what no later window holds
    taken.append(stream.take(total))
    np.testing.assert_allclose(np.concatenate(taken), expected, atol=1e-12)


def test_frames_between_windows_repeat_the_one_before() -> None:
    stream = Aggregator(num_frames=2, columns=1)
    stream.add(np.array([[0.2], [0.6]]), first=0)
    stream.add(np.array([[0.4], [0.8]]), first=3)
    np.testing.assert_allclose(stream.take(5)[:, 0], [0.2, 0.6, 0.6, 0.4, 0.8])


def test_a_frame_in_the_middle_of_a_window_weighs_more() -> None:
    stream = Aggregator(num_frames=5, columns=1)
    stream.add(np.ones((5, 1)), first=0)
    stream.add(np.zeros((5, 1)), first=2)
    middle, edge = np.hamming(5)[2], np.hamming(5)[0]
    assert stream.take(3)[2, 0] == middle / (middle + edge)
