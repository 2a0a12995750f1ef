"""What is called a regression, and what noise; of made-up times: no test asserts a real one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.types import BenchRecord, LatencyReport
from runtime_checks.timing.protocol import EAGER_BASELINE
from runtime_checks.timing.regression import Verdict, compare

RUNS = 20


def report(candidate: str, processes: Sequence[float], **changed: object) -> LatencyReport:
    """Samples around a median for each process, with a scatter of two percent."""
    rng = np.random.default_rng(len(candidate))
    samples = [median * rng.normal(1, 0.02, RUNS) for median in processes]
    values: dict[str, object] = {
        "candidate": candidate,
        "model": "m",
        "window_s": 2.0,
        "artifact_sha256": None,
        "device": "device",
        "threads": 1,
        "warmup_runs": 0,
        "hop_s": 0.5,
        "samples_ms": tuple(float(v) for v in np.concatenate(samples)),
        "processes": (RUNS,) * len(processes),
        "load_ms": 1.0,
        "first_ms": 1.0,
        "peak_rss_bytes": 0,
        "thermal": "unknown",
        "failures": (),
    }
    return LatencyReport.model_validate(values | changed)


def record(own: Sequence[float], eager: Sequence[float], **changed: object) -> BenchRecord:
    reports = (report(EAGER_BASELINE, eager, **changed), report("a.onnx", own, **changed))
    return BenchRecord(seed=0, models={"m": None}, reports=reports, not_run={}, notes=())


STEADY = [10.0, 10.1, 9.9, 10.05, 9.95]
EAGER = [20.0] * 5


def scaled(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [
        (1.15, Verdict.SLOWER),
        (1.0, Verdict.SAME),
        (1.02, Verdict.UNCLEAR),  # within the tolerance, and its interval reaches beyond
        (0.8, Verdict.FASTER),
    ],
)
def test_a_change_that_stands_out_of_the_noise_is_told(factor: float, verdict: Verdict) -> None:
    found = compare(record(STEADY, EAGER), record(scaled(STEADY, factor), EAGER), tolerance=0.03)
    (change,) = found.changes
    assert change.key == ("m", 2.0, 1, "a.onnx")
    assert change.change == pytest.approx(factor, rel=0.01)
    assert change.low < change.change < change.high
    assert change.verdict is verdict
    assert bool(found.slower) is (verdict is Verdict.SLOWER)


def test_the_same_change_is_no_regression_where_processes_differ_by_as_much() -> None:
    noisy = [8.0, 12.0, 9.0, 11.5, 10.0]
    found = compare(record(noisy, EAGER), record(scaled(noisy, 1.15), EAGER), tolerance=0.05)
    assert found.changes[0].verdict is Verdict.UNCLEAR and found.notes == ()


def test_a_machine_that_is_slower_for_all_is_no_regression() -> None:
    slow = record(scaled(STEADY, 3), scaled(EAGER, 3))
    found = compare(record(STEADY, EAGER), slow, tolerance=0.05)
    assert found.changes[0].verdict is Verdict.SAME


def test_what_one_run_lacks_and_what_weakens_a_comparison_is_said() -> None:
    old = record(STEADY, EAGER, device="another", window_s=5.0)
    found = compare(old, record(STEADY, EAGER), tolerance=0.05)
    assert found.changes == ()
    assert found.only_before == ("m, 5 s, 1 thread: a.onnx",)
    assert found.only_now == ("m, 2 s, 1 thread: a.onnx",)
    assert "another machine before: another" in found.notes[0]
    single = compare(record([10.0], [20.0]), record([10.0], [20.0]), tolerance=0.05)
    assert "fewer than 3 processes" in single.notes[0]
    assert single.changes[0].verdict is Verdict.SAME


@given(st.floats(0.5, 2), st.floats(0.01, 0.2))
def test_forwards_and_backwards_agree(factor: float, tolerance: float) -> None:
    one, other = record(STEADY, EAGER), record(scaled(STEADY, factor), EAGER)
    there = compare(one, other, tolerance=tolerance).changes[0]
    back = compare(other, one, tolerance=tolerance).changes[0]
    assert there.change * back.change == pytest.approx(1)
    assert (there.verdict is Verdict.SLOWER) == (back.verdict is Verdict.FASTER)


def test_noise_alone_is_rarely_called_a_regression() -> None:
    rng = np.random.default_rng(1)
    runs = [record(list(rng.normal(10, 0.4, 5)), EAGER) for _ in range(40)]
    found = [
        compare(a, b, tolerance=0.03).slower for a, b in zip(runs[::2], runs[1::2], strict=True)
    ]
    assert sum(map(bool, found)) <= 1
