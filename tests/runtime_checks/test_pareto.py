"""What no other artifact beats, and what was measured of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from export.types import DerScore, TimeRatio, Verdict
from runtime_checks.pareto import Point, mark_non_dominated, non_dominated

Costs = np.ndarray[Any, np.dtype[np.float64]]


def point(name: str, *costs: float, verdict: Verdict = Verdict.PASS, timed: bool = True) -> Point:
    """Of DER in percent, size in bytes, time ratio."""
    der, size, time = costs
    score = DerScore(
        pooled=der,
        window_mean=der,
        false_alarm=0,
        missed_detection=der,
        confusion=0,
        reference_speech_s=10,
        num_windows=3,
        collar_s=0,
        skip_overlap=False,
    )
    return Point(
        model=name,
        backend="onnx_ort",
        recipe="fp32",
        verdict=verdict,
        size_bytes=int(size),
        der=score,
        time=TimeRatio(value=time, low=time, high=time) if timed else None,
        p50_ms=time * 10 if timed else None,
        reasons=(),
        non_dominated=False,
    )


def best(*points: Point) -> list[str]:
    return [each.model for each in mark_non_dominated(points) if each.non_dominated]


def test_better_in_one_and_worse_in_none_beats() -> None:
    assert best(point("a", 30, 100, 0.5), point("b", 30, 100, 0.6)) == ["a"]
    assert best(point("a", 30, 100, 0.5), point("b", 29, 101, 0.5)) == ["a", "b"]
    assert best(point("a", 31, 101, 0.6), point("b", 30, 100, 0.5)) == ["b"]


def test_equal_points_do_not_beat_each_other() -> None:
    assert best(point("a", 30, 100, 0.5), point("b", 30, 100, 0.5)) == ["a", "b"]


def test_what_failed_or_was_not_timed_neither_wins_nor_beats() -> None:
    wrong = point("wrong", 1, 1, 0.1, verdict=Verdict.FAIL)
    untimed = point("untimed", 1, 1, 0.1, timed=False)
    assert best(wrong, untimed, point("slow", 50, 500, 2.0)) == ["slow"]
    assert best(wrong, untimed) == []


def dominated(mine: Costs, other: Costs) -> bool:
    return all(o <= m for m, o in zip(mine, other, strict=True)) and any(
        o < m for m, o in zip(mine, other, strict=True)
    )


@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(1, 3)),
        elements=st.integers(0, 4).map(float),
    )
)
def test_the_marked_are_those_that_nothing_dominates(costs: Costs) -> None:
    found = non_dominated(costs)
    assert found.any()
    for row, free in zip(costs, found, strict=True):
        assert free == (not any(dominated(row, other) for other in costs))
    for row, free in zip(costs, found, strict=True):
        if not free:  # and something that is marked beats it
            assert any(dominated(row, other) for other in costs[found])
