"""Geometry of the plots: score differences on a log scale, timings as strips with boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.types import LatencyReport

from ..results import TimelineRow
from ..timing.statistics import is_outlier

MAX_POINTS = 1500
SMALLEST_DIFFERENCE = 1e-9
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


@dataclass(frozen=True)
class DifferencePlot:
    """One artifact's score difference over time.

    `path` is in units of 1/1000 of the width and of the height; `points` are (second, value) for
    the reader, the largest value of each bin. `limit_y` is None where the scale does not reach it.
    """

    source: str
    path: str
    points: tuple[tuple[float, float], ...]
    largest: float | None
    largest_s: float | None
    not_finite: int
    limit: float | None
    limit_y: float | None
    ticks: tuple[tuple[float, str], ...]


def difference_plots(
    rows: Sequence[TimelineRow], *, duration_s: float, limits: dict[str, float]
) -> list[DifferencePlot]:
    """Plots of all rows that have differences, on one scale so that they compare."""
    series = {row.source: _binned(row) for row in rows if row.difference is not None}
    values = [v for points, _ in series.values() for _, v in points if v > SMALLEST_DIFFERENCE]
    shown = [limits[source] for source in series if source in limits]
    # The few smallest would stretch the scale over decades where there is nothing to see.
    shown += [float(np.quantile(values, 0.02)), max(values)] if values else [SMALLEST_DIFFERENCE]
    low = math.floor(math.log10(max(min(shown), SMALLEST_DIFFERENCE)))
    high = max(low + 1, math.ceil(math.log10(max(shown)) + 0.05))

    def height(value: float) -> float:
        return 1 - (math.log10(max(value, 10.0**low)) - low) / (high - low)

    step = math.ceil((high - low) / 3)
    ticks = tuple((height(10.0**e), f"1e{e}") for e in range(low, high + 1, step))
    plots = []
    for source, (points, not_finite) in series.items():
        largest = max(points, key=lambda point: point[1], default=None)
        limit = limits.get(source)
        plots.append(
            DifferencePlot(
                source=source,
                path=_step_path([(t / duration_s, height(v)) for t, v in points]),
                points=tuple(points),
                largest=largest[1] if largest else None,
                largest_s=largest[0] if largest else None,
                not_finite=not_finite,
                limit=limit,
                limit_y=None if limit is None else height(limit),
                ticks=ticks,
            )
        )
    return plots


def _binned(row: TimelineRow) -> tuple[list[tuple[float, float]], int]:
    """The largest finite value of each of at most MAX_POINTS bins; how many are not finite."""
    if row.difference is None or row.difference_s is None:
        return [], 0
    finite = np.isfinite(row.difference)
    times, values = row.difference_s[finite], row.difference[finite]
    per_bin = max(1, math.ceil(len(values) / MAX_POINTS))
    points = []
    for start in range(0, len(values), per_bin):
        best = start + int(np.argmax(values[start : start + per_bin]))
        points.append((round(float(times[best]), 4), float(f"{float(values[best]):.3g}")))
    return points, int((~finite).sum())


def _step_path(points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    pairs = (f"{x * 1000:.1f},{y * 1000:.1f}" for x, y in points)
    return "M" + " ".join(pairs)


@dataclass(frozen=True)
class Strip:
    """One candidate's timings as percentages of the width.

    `dots` are (x, y from 0 to 1, whether an outlier); `beyond` counts the samples that are off
    the scale, and `largest_ms` tells how far.
    """

    dots: tuple[tuple[float, float, bool], ...]
    box: tuple[float, float]
    median: float
    p95: float
    beyond: int
    largest_ms: float


@dataclass(frozen=True)
class StripPlot:
    """Timings of one run on one scale; ticks are (percentage, label in ms)."""

    strips: dict[str, Strip]
    ticks: tuple[tuple[float, str], ...]


def strip_plot(reports: Sequence[LatencyReport]) -> StripPlot:
    """Strips of the reports that have samples. The scale ends well over the largest 95th
    percentile, so that a few hiccups of the machine do not squash everything else."""
    sampled = [report for report in reports if report.samples_ms]
    end = 1.25 * max((float(np.percentile(r.samples_ms, 95)) for r in sampled), default=1.0)
    tick_step = round_step(end / 6)
    ticks = []
    for index in range(int(end / tick_step) + 1):
        value = index * tick_step
        ticks.append((100 * value / end, f"{value:g}"))
    strips = {r.candidate: _strip(np.asarray(r.samples_ms), end) for r in sampled}
    return StripPlot(strips, tuple(ticks))


def _strip(values: NDArray[np.float64], end: float) -> Strip:
    outlier = is_outlier(values)
    dots = tuple(
        # Steps of the golden ratio spread neighbours evenly without any randomness.
        (round(100 * float(value) / end, 3), round((index * GOLDEN_RATIO) % 1, 3), bool(out))
        for index, (value, out) in enumerate(zip(values, outlier, strict=True))
        if value <= end
    )
    p25, p50, p75, p95 = (100 * float(p) / end for p in np.percentile(values, [25, 50, 75, 95]))
    return Strip(dots, (p25, p75), p50, p95, int((values > end).sum()), float(values.max()))


def round_step(rough: float) -> float:
    """The next of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
