"""How time grows with the window: one line a candidate, on logarithmic scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.types import LatencyReport

WIDTH, HEIGHT, LEFT, BOTTOM = 620.0, 260.0, 46.0, 24.0


@dataclass(frozen=True)
class Line:
    """One candidate: points (x, y), median times by window in seconds, and growth.

    `growth` is the longest window's time over the shortest's, `proportional` what it would be if
    time were proportional to length.
    """

    candidate: str
    points: tuple[tuple[float, float], ...]
    times_ms: dict[float, float]
    growth: float
    proportional: float


@dataclass(frozen=True)
class GrowthPlot:
    """All candidates of a model on some threads; ticks are (position, label)."""

    model: str
    threads: int
    lines: tuple[Line, ...]
    windows_s: tuple[float, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def growth_plots(reports: Sequence[LatencyReport]) -> list[GrowthPlot]:
    """A plot for every model that was timed with windows of several lengths."""
    found: dict[tuple[str, int], dict[str, dict[float, float]]] = {}
    for report in reports:
        if report.samples_ms and report.model and report.window_s:
            times = found.setdefault((report.model, report.threads), {})
            median = float(np.median(report.samples_ms))
            times.setdefault(report.candidate, {})[report.window_s] = median
    plots = []
    for (model, threads), candidates in found.items():
        several = {name: times for name, times in candidates.items() if len(times) > 1}
        if several:
            plots.append(_plot(model, threads, several))
    return plots


def _plot(model: str, threads: int, candidates: dict[str, dict[float, float]]) -> GrowthPlot:
    windows = sorted({window for times in candidates.values() for window in times})
    values = [ms for times in candidates.values() for ms in times.values()]
    ticks = _ticks(min(values), max(values))

    def place(window_s: float, ms: float) -> tuple[float, float]:
        across = math.log(window_s / windows[0]) / math.log(windows[-1] / windows[0])
        up = math.log(ms / ticks[0]) / math.log(ticks[-1] / ticks[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - 20), 1),
            round((1 - up) * (HEIGHT - BOTTOM - 10) + 10, 1),
        )

    lines = []
    for name, times in candidates.items():
        ordered = dict(sorted(times.items()))
        first, last = next(iter(ordered)), next(reversed(ordered))
        lines.append(
            Line(
                candidate=name,
                points=tuple(place(window, ms) for window, ms in ordered.items()),
                times_ms=ordered,
                growth=ordered[last] / ordered[first],
                proportional=last / first,
            )
        )
    return GrowthPlot(
        model=model,
        threads=threads,
        lines=tuple(lines),
        windows_s=tuple(windows),
        x_ticks=tuple((place(window, ticks[0])[0], f"{window:g} s") for window in windows),
        y_ticks=tuple((place(windows[0], tick)[1], f"{tick:g}") for tick in ticks),
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from at most `low` to more than `high`."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    every = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(index for index, tick in enumerate(every) if tick <= low)
    last = min(index for index, tick in enumerate(every) if tick > high)
    return every[first : last + 1]
