"""Has anything become slower since an older run? What compares is the ratio to PyTorch eager.

A run's own scatter says little about the next run: where memory lies, how a machine is loaded and
how warm it is stay the same for minutes. So a run is several processes, each gives one ratio, and
what differs between them is the noise that a change has to stand out from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from export.types import BenchRecord, LatencyReport

from .protocol import EAGER_BASELINE
from .statistics import find_baseline

CONFIDENCE = 0.99
MIN_PROCESSES = 3
PIECES = 5

Key = tuple[str | None, float | None, int, str]
"""Model, window in seconds, threads, candidate."""


class Verdict(StrEnum):
    """What can be said of a change."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "no slower"
    UNCLEAR = "too noisy to tell"


@dataclass(frozen=True)
class Change:
    """A candidate's ratio to eager, before and now.

    `change` is now over before, with its interval; `verdict` compares it with the tolerance.
    """

    key: Key
    before: float
    now: float
    change: float
    low: float
    high: float
    verdict: Verdict

    @property
    def name(self) -> str:
        """For people."""
        return describe(self.key)


@dataclass(frozen=True)
class Comparison:
    """All changes, what is in one run only, and what to keep in mind."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...]
    only_now: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def slower(self) -> list[Change]:
        """The regressions."""
        return [change for change in self.changes if change.verdict is Verdict.SLOWER]


def compare(before: BenchRecord, now: BenchRecord, *, tolerance: float) -> Comparison:
    """Compare the candidates that both runs have; eager itself is what they are measured by.

    A candidate is slower when its ratio has grown by more than `tolerance` (0.05: five percent)
    and by more than the noise, and no slower when the interval's upper end is within the
    tolerance. The interval (99 %) is Welch's (1947) on the logarithms of the processes' ratios.
    """
    old, new = _ratios(before), _ratios(now)
    shared = [key for key in new if key in old]
    changes = tuple(_change(key, old[key], new[key], tolerance=tolerance) for key in shared)
    return Comparison(
        changes=changes,
        only_before=tuple(describe(key) for key in old if key not in new),
        only_now=tuple(describe(key) for key in new if key not in old),
        notes=tuple(_notes(before, now)),
    )


def describe(key: Key) -> str:
    """`sinc-1bi, 2 s, 1 thread: segmentation.fp32.onnx`."""
    model, window_s, threads, candidate = key
    length = "" if window_s is None else f", {window_s:g} s"
    return f"{model}{length}, {threads} thread{'' if threads == 1 else 's'}: {candidate}"


def _change(
    key: Key, before: NDArray[np.float64], now: NDArray[np.float64], *, tolerance: float
) -> Change:
    old, new = np.log(before), np.log(now)
    difference = float(new.mean() - old.mean())
    variances = (old.var(ddof=1) / len(old), new.var(ddof=1) / len(new))
    error = math.sqrt(sum(variances))
    margin = 0.0
    if error > 0:
        parts = sum(v**2 / (len(x) - 1) for v, x in zip(variances, (old, new), strict=True))
        margin = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, sum(variances) ** 2 / parts))
    low, high = math.exp(difference - margin), math.exp(difference + margin)
    return Change(
        key=key,
        before=float(np.exp(old.mean())),
        now=float(np.exp(new.mean())),
        change=math.exp(difference),
        low=low,
        high=high,
        verdict=_verdict(math.exp(difference), low, high, tolerance=tolerance),
    )


def _verdict(change: float, low: float, high: float, *, tolerance: float) -> Verdict:
    if low > 1 and change > 1 + tolerance:
        return Verdict.SLOWER
    if high < 1 and change < 1 / (1 + tolerance):
        return Verdict.FASTER
    return Verdict.SAME if high <= 1 + tolerance else Verdict.UNCLEAR


def _ratios(record: BenchRecord) -> dict[Key, NDArray[np.float64]]:
    """Each process's ratio of medians, by candidate."""
    found = {}
    for report in record.reports:
        baseline = find_baseline(report, record.reports)
        if report.candidate == EAGER_BASELINE or baseline is None:
            continue
        own, eager = _medians(report), _medians(baseline)
        if own.size and own.size == eager.size:
            key = (report.model, report.window_s, report.threads, report.candidate)
            found[key] = own / eager
    return found


def _medians(report: LatencyReport) -> NDArray[np.float64]:
    """The median of each process; of fewer than three, of five pieces of the run instead."""
    samples = np.asarray(report.samples_ms)
    if enough_processes(report):
        pieces = np.split(samples, np.cumsum(report.processes)[:-1])
    elif len(samples) >= PIECES:
        pieces = np.array_split(samples, PIECES)
    else:
        return np.empty(0)
    return np.array([np.median(piece) for piece in pieces])


def enough_processes(report: LatencyReport) -> bool:
    """Whether there are processes enough to tell how much they differ."""
    return len(report.processes) >= MIN_PROCESSES and min(report.processes) > 0


def _notes(before: BenchRecord, now: BenchRecord) -> Sequence[str]:
    notes = []
    devices = [sorted({report.device for report in run.reports}) for run in (before, now)]
    if devices[0] != devices[1]:
        notes.append(
            f"measured on another machine before: {', '.join(devices[0])}; "
            "ratios to eager compare roughly only"
        )
    timed = [report for run in (before, now) for report in run.reports if report.samples_ms]
    if not all(enough_processes(report) for report in timed):
        notes.append(
            f"a run of fewer than {MIN_PROCESSES} processes: noise between processes is unknown, "
            "and what differs may be no more than that (--repeats)"
        )
    return notes
