"""Matching of onsets and offsets."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime_checks.parity.boundaries import compare_boundaries
from runtime_checks.parity.decisions import Bools

GATE = 30


def activity(*intervals: tuple[int, int], frames: int = 200) -> Bools:
    active = np.zeros((frames, 1), dtype=np.bool_)
    for first, last in intervals:
        active[first:last] = True
    return active


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_equal_decisions_have_no_shift(values: list[bool]) -> None:
    active = np.array(values, dtype=np.bool_)[:, None]
    found = compare_boundaries(active, active, max_shift_frames=GATE)
    assert found.unmatched == 0
    assert set(found.shifts_frames) <= {0}


@given(st.integers(0, 10_000))
def test_both_directions_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((60, 2)) > 0.5, rng.random((60, 2)) > 0.5
    forth = compare_boundaries(a, b, max_shift_frames=3)
    back = compare_boundaries(b, a, max_shift_frames=3)
    assert (sum(forth.shifts_frames), forth.unmatched) == (sum(back.shifts_frames), back.unmatched)
    steps = [np.abs(np.diff(x.astype(int), axis=0, prepend=0, append=0)).sum() for x in (a, b)]
    assert 2 * len(forth.shifts_frames) + forth.unmatched == sum(steps)
    assert all(0 <= shift <= 3 for shift in forth.shifts_frames)


@given(st.integers(0, GATE), st.integers(0, 100))
def test_a_shift_is_measured_in_frames(shift: int, start: int) -> None:
    reference = activity((start, start + 40))
    artifact = activity((start + shift, start + 40 + shift))
    found = compare_boundaries(artifact, reference, max_shift_frames=GATE)
    assert found.shifts_frames == (shift, shift)
    assert found.unmatched == 0


def test_a_lost_turn_is_unmatched_and_drags_no_other_along() -> None:
    reference = activity((10, 50), (52, 60), (100, 150))
    artifact = activity((11, 50), (100, 149))
    found = compare_boundaries(artifact, reference, max_shift_frames=5)
    assert sorted(found.shifts_frames) == [0, 0, 1, 1]
    assert found.unmatched == 2
    assert found.total == 6


def test_beyond_the_gate_both_boundaries_are_unmatched() -> None:
    found = compare_boundaries(activity((0, 100)), activity((0, 150)), max_shift_frames=GATE)
    assert found.shifts_frames == (0,)
    assert found.unmatched == 2


def test_speakers_are_matched_apart() -> None:
    one, other = activity((10, 20)), activity((12, 20))
    found = compare_boundaries(
        np.hstack([one, other]), np.hstack([other, one]), max_shift_frames=GATE
    )
    assert sorted(found.shifts_frames) == [0, 0, 2, 2]
