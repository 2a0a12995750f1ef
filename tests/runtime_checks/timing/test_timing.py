"""The timing protocol and what is derived from it. No test asserts a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.types import LatencyReport
from runtime_checks.timing.processes import measure_apart
from runtime_checks.timing.protocol import (
    EAGER_BASELINE,
    MAX_FAILURES,
    Candidate,
    measure,
    random_windows,
)
from runtime_checks.timing.statistics import (
    derived,
    find_baseline,
    is_outlier,
    ratio,
    statistics,
    summarise,
)

Array = NDArray[np.float32]
WINDOWS = [np.full((1, 1, 4), value, np.float32) for value in range(5)]
SAMPLES = st.lists(st.floats(0.001, 1e4), min_size=1, max_size=200)


def recording_candidate(name: str, log: list[tuple[str, float]], **options: Any) -> Candidate:
    """A candidate that logs its name and window, and raises on the calls of `failing`."""
    failing = options.get("failing", lambda call: False)
    calls = [0]

    def run(window: Array) -> None:
        calls[0] += 1
        if failing(calls[0]):
            raise RuntimeError(f"call {calls[0]}\nwith a second line")
        log.append((name, float(window[0, 0, 0])))

    return Candidate(name, f"sha of {name}", lambda threads: run)


def report(
    samples_ms: list[float], *, candidate: str = "a", threads: int = 1, failures: int = 0
) -> LatencyReport:
    return LatencyReport(
        candidate=candidate,
        artifact_sha256=None,
        device="device",
        threads=threads,
        warmup_runs=0,
        hop_s=0.5,
        samples_ms=tuple(samples_ms),
        load_ms=1.0,
        first_ms=1.0,
        peak_rss_bytes=0,
        thermal="unknown",
        failures=("failed",) * failures,
    )


def test_order_is_shuffled_each_round_and_the_window_shared() -> None:
    log: list[tuple[str, float]] = []
    candidates = [recording_candidate(name, log) for name in "abc"]
    reports = measure(
        candidates, WINDOWS, threads=1, hop_s=0.5, seed=3, warmup_runs=2, timed_runs=40
    )
    first, rounds = log[:3], [log[i : i + 3] for i in range(3, len(log), 3)]
    assert [name for name, _ in first] == ["a", "b", "c"]
    assert len(rounds) == 42
    for turns in rounds:
        assert sorted(name for name, _ in turns) == ["a", "b", "c"]
        assert len({window for _, window in turns}) == 1
    assert len({tuple(name for name, _ in turns) for turns in rounds}) == 6
    assert {turns[0][1] for turns in rounds} == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert [r.candidate for r in reports] == ["a", "b", "c"]
    assert [len(r.samples_ms) for r in reports] == [40, 40, 40]
    assert reports[0].artifact_sha256 == "sha of a"
    assert (reports[0].threads, reports[0].warmup_runs, reports[0].hop_s) == (1, 2, 0.5)


def test_the_seed_decides_order_and_windows() -> None:
    logs: list[list[tuple[str, float]]] = []
    for seed in (1, 1, 2):
        log: list[tuple[str, float]] = []
        candidates = [recording_candidate(name, log) for name in "ab"]
        measure(candidates, WINDOWS, threads=1, hop_s=1, seed=seed, timed_runs=20)
        logs.append(log)
    assert logs[0] == logs[1] != logs[2]


def test_failures_are_recorded_and_the_other_runs_kept() -> None:
    log: list[tuple[str, float]] = []
    flaky = recording_candidate("flaky", log, failing=lambda call: call in {4, 6})
    sound = recording_candidate("sound", log)
    first, second = measure(
        [flaky, sound], WINDOWS, threads=1, hop_s=1, seed=0, warmup_runs=1, timed_runs=10
    )
    assert first.failures == (
        "timed run 2: RuntimeError: call 4",
        "timed run 4: RuntimeError: call 6",
    )
    assert (len(first.samples_ms), len(second.samples_ms)) == (8, 10)
    assert second.failures == ()


def test_a_candidate_that_always_fails_is_given_up() -> None:
    log: list[tuple[str, float]] = []
    broken = recording_candidate("broken", log, failing=lambda call: True)
    sound = recording_candidate("sound", log)
    first, second = measure([broken, sound], WINDOWS, threads=1, hop_s=1, seed=0, timed_runs=30)
    assert first.samples_ms == () and len(second.samples_ms) == 30
    assert len(first.failures) == MAX_FAILURES + 1
    assert first.failures[0] == "first run: RuntimeError: call 1"
    assert "given up" in first.failures[-1]
    assert summarise(first) is None and ratio(first, second) is None


def test_a_candidate_that_does_not_load_is_reported() -> None:
    def refuse(threads: int) -> Callable[[Array], Any]:
        raise OSError(f"no such file for {threads} threads")

    (found,) = measure([Candidate("x", None, refuse)], WINDOWS, threads=2, hop_s=1, seed=0)
    assert found.failures == ("load: OSError: no such file for 2 threads",)
    assert (found.samples_ms, found.load_ms, found.first_ms) == ((), 0.0, 0.0)


def test_nonsense_is_refused() -> None:
    candidate = recording_candidate("a", [])
    for arguments in ([candidate, candidate], WINDOWS), ([candidate], []):
        with pytest.raises(ValueError, match="measure needs"):
            measure(*arguments, threads=1, hop_s=1, seed=0)
    with pytest.raises(ValueError, match="measure needs"):
        measure([candidate], WINDOWS, threads=0, hop_s=1, seed=0)


def test_statistics_of_known_samples() -> None:
    found = statistics([float(v) for v in range(1, 102)], hop_s=0.5)
    assert (found.runs, found.mean_ms, found.p50_ms) == (101, 51.0, 51.0)
    assert (found.p90_ms, found.p95_ms, found.p99_ms) == (91.0, 96.0, 100.0)
    assert found.cv == pytest.approx(np.sqrt(101 * 102 / 12) / 51)
    assert found.real_time_factor == pytest.approx(0.102)
    assert statistics([4.0], hop_s=1).cv == 0.0
    with pytest.raises(ValueError, match="no samples"):
        statistics([], hop_s=1)


def test_outliers_lie_beyond_three_median_absolute_deviations() -> None:
    # Median 10, deviations 1, 1, 0, 1, 3, 4: the median deviation is 1.
    samples = [9.0, 9.0, 10.0, 10.0, 11.0, 13.0, 14.0]
    assert is_outlier(samples).tolist() == [False] * 6 + [True]
    found = summarise(report(samples))
    assert found is not None
    assert (found.outliers, found.all.runs, found.without_outliers.runs) == (1, 7, 6)
    assert found.without_outliers.mean_ms == pytest.approx(62 / 6)
    assert not is_outlier([5.0, 5.0, 5.0, 9.0]).any()


@given(SAMPLES)
def test_percentiles_are_ordered_and_within_the_samples(samples: list[float]) -> None:
    found = statistics(samples, hop_s=1)
    chain = [min(samples), found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms, max(samples)]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(chain))
    assert found.cv >= 0


@given(SAMPLES)
def test_leaving_outliers_out_keeps_the_majority(samples: list[float]) -> None:
    found = summarise(report(samples))
    assert found is not None
    assert found.outliers + found.without_outliers.runs == len(samples)
    assert found.outliers * 2 <= len(samples)
    outlier = is_outlier(samples)
    if outlier.any():
        distance = np.abs(np.asarray(samples) - np.median(samples))
        assert distance[outlier].min() > distance[~outlier].max()


@given(SAMPLES, st.floats(0.01, 100))
def test_ratio_of_a_scaled_candidate_is_the_scale(samples: list[float], scale: float) -> None:
    found = ratio(report([v * scale for v in samples]), report(samples))
    assert found is not None
    assert found.value == pytest.approx(scale)
    # Paired by round, noise that both share cancels in every resample.
    assert [found.low, found.high] == pytest.approx([scale, scale])


def test_ratio_interval_holds_the_truth_and_knows_unpaired_samples() -> None:
    rng = np.random.default_rng(5)
    slow, fast = rng.normal(20, 1, 100).tolist(), rng.normal(10, 1, 90).tolist()
    found = ratio(report(slow), report(fast, failures=10))
    assert found is not None
    assert found.low < 2.0 < found.high and found.high - found.low < 0.2


def test_the_baseline_is_of_the_same_thread_count() -> None:
    reports = [
        report([1.0], candidate=EAGER_BASELINE, threads=2),
        report([4.0], candidate=EAGER_BASELINE, threads=1),
        report([2.0], candidate="x", threads=1),
    ]
    assert find_baseline(reports[2], reports) is reports[1]
    found = derived(reports[2], reports)
    assert found["ratio_to_eager"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert derived(reports[2], reports[2:])["ratio_to_eager"] is None


def test_random_windows_are_pieces_of_the_recording() -> None:
    samples = np.arange(100, dtype=np.float32)
    windows = random_windows(samples, window_samples=10, count=50, seed=0)
    starts = [int(window[0, 0, 0]) for window in windows]
    assert all(
        np.array_equal(window[0, 0], samples[start : start + 10])
        for window, start in zip(windows, starts, strict=True)
    )
    assert len(set(starts)) > 20 and max(starts) <= 90
    (short,) = random_windows(samples[:3], window_samples=5, count=1, seed=0)
    assert short.tolist() == [[[0.0, 1.0, 2.0, 0.0, 0.0]]]


def _open_holding(megabytes: int, threads: int) -> Callable[[Array], Any]:
    held = np.ones(megabytes * 131072)
    return lambda window: held[0] * threads


def _open_crashing(threads: int) -> Callable[[Array], Any]:
    return lambda window: os.abort()


def test_apart_tells_memory_apart_and_survives_a_crash() -> None:
    candidates = [
        Candidate("small", None, partial(_open_holding, 1)),
        Candidate("crashing", "sha", _open_crashing),
        Candidate("large", None, partial(_open_holding, 200)),
    ]
    stages: list[str] = []
    small, crashing, large = measure_apart(
        candidates,
        WINDOWS,
        threads=1,
        hop_s=1,
        seed=0,
        timed_runs=5,
        progress=lambda stage, done, total: stages.append(f"{stage} {done}/{total}"),
    )
    assert (len(small.samples_ms), len(large.samples_ms)) == (5, 5)
    grown = large.peak_rss_bytes - small.peak_rss_bytes
    assert 190 * 2**20 < grown < 210 * 2**20
    assert crashing.samples_ms == () and crashing.artifact_sha256 == "sha"
    assert crashing.failures == ("its process crashed (exit code -6)",)
    assert stages[:3] == [f"memory, 1 thread {n}/3" for n in (1, 2, 3)]
    assert stages[-1] == "timing: timed runs, 1 thread 5/5"
