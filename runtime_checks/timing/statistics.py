"""Derived from raw timings: percentiles, outliers, real-time factor, ratio to a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from export.types import LatencyReport

from .protocol import EAGER_BASELINE

OUTLIER_MADS = 3.0
BOOTSTRAP_RESAMPLES = 2000
CONFIDENCE = 0.95

Comparable = tuple[str, int, str | None, float | None]
"""Device, threads, model and window in seconds."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of timings in milliseconds.

    Percentiles interpolate linearly; `cv` is the sample standard deviation over the mean (0 for a
    single run); the real-time factor is the median time over the hop between windows.
    """

    runs: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    cv: float
    real_time_factor: float


@dataclass(frozen=True)
class Summary:
    """Statistics of all samples, and without the outliers beyond 3 MAD."""

    all: Statistics
    without_outliers: Statistics
    outliers: int


@dataclass(frozen=True)
class Ratio:
    """Median over the baseline's median, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def statistics(samples_ms: Sequence[float] | NDArray[np.float64], *, hop_s: float) -> Statistics:
    """Statistics of at least one sample; raises ValueError on none."""
    values = np.asarray(samples_ms, np.float64)
    if values.size == 0:
        raise ValueError("no samples")
    p50, p90, p95, p99 = (float(p) for p in np.percentile(values, [50, 90, 95, 99]))
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return Statistics(
        runs=values.size,
        mean_ms=mean,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        cv=deviation / mean if mean > 0 else 0.0,
        real_time_factor=p50 / (hop_s * 1000),
    )


def is_outlier(samples_ms: Sequence[float] | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which samples lie further than 3 median absolute deviations from the median.

    With a median absolute deviation of zero (a clock coarser than the spread) none does.
    """
    values = np.asarray(samples_ms, np.float64)
    distance = np.abs(values - np.median(values))
    mad = np.median(distance)
    if mad == 0:
        return np.zeros(values.shape, np.bool_)
    outliers: NDArray[np.bool_] = distance > OUTLIER_MADS * mad
    return outliers


def summarise(report: LatencyReport) -> Summary | None:
    """Statistics of a report, None when no run succeeded."""
    if not report.samples_ms:
        return None
    values = np.asarray(report.samples_ms)
    outlier = is_outlier(values)
    return Summary(
        all=statistics(values, hop_s=report.hop_s),
        without_outliers=statistics(values[~outlier], hop_s=report.hop_s),
        outliers=int(outlier.sum()),
    )


def ratio(report: LatencyReport, baseline: LatencyReport, *, seed: int = 0) -> Ratio | None:
    """Ratio of medians of two candidates of one run, None when one of them has no samples.

    Bootstrap percentile interval (Efron 1979). Where neither failed, the samples of one round
    are resampled together: they saw the same window at nearly the same time. Of several processes
    whole processes are drawn first, then samples in them (a two-stage bootstrap, Davison and
    Hinkley 1997, 3.8): they differ by more than their samples show.
    """
    own, other = np.asarray(report.samples_ms), np.asarray(baseline.samples_ms)
    if own.size == 0 or other.size == 0:
        return None
    rng = np.random.default_rng(seed)
    chosen = _resamples(rng, report)
    paired = report.processes == baseline.processes and own.size == other.size
    paired = paired and not (report.failures or baseline.failures)
    chosen_other = chosen if paired else _resamples(rng, baseline)
    ratios = np.median(own[chosen], axis=1) / np.median(other[chosen_other], axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Ratio(float(np.median(own) / np.median(other)), float(low), float(high))


def _resamples(rng: np.random.Generator, report: LatencyReport) -> NDArray[np.int64]:
    """Indices of samples, [resamples, about as many as there are samples]."""
    sizes = np.array([size for size in report.processes if size] or [len(report.samples_ms)])
    starts = np.cumsum(sizes) - sizes
    drawn = rng.integers(len(sizes), size=(BOOTSTRAP_RESAMPLES, len(sizes)))
    within = rng.random((BOOTSTRAP_RESAMPLES, len(sizes), round(float(sizes.mean()))))
    offsets = np.floor(within * sizes[drawn][..., None]).astype(np.int64)
    indices: NDArray[np.int64] = (starts[drawn][..., None] + offsets).reshape(len(drawn), -1)
    return indices


def find_baseline(report: LatencyReport, reports: Iterable[LatencyReport]) -> LatencyReport | None:
    """The PyTorch eager report that a report compares with."""
    for other in reports:
        if other.candidate == EAGER_BASELINE and comparable(other) == comparable(report):
            return other
    return None


def comparable(report: LatencyReport) -> Comparable:
    """What must agree for two times of one run to compare."""
    return (report.device, report.threads, report.model, report.window_s)


def derived(report: LatencyReport, reports: Sequence[LatencyReport]) -> dict[str, object]:
    """All statistics of a report as plain JSON data; None where there is nothing to derive from."""
    baseline = find_baseline(report, reports)
    summary = summarise(report)
    to_eager = ratio(report, baseline) if baseline else None
    return {
        "candidate": report.candidate,
        "model": report.model,
        "window_s": report.window_s,
        "threads": report.threads,
        "summary": asdict(summary) if summary else None,
        "ratio_to_eager": asdict(to_eager) if to_eager else None,
    }
