"""The timing protocol: what is compared is measured in one run, interleaved, and kept raw.

Candidates take turns in an order that is shuffled anew in every round, and all of them see the same
random window in a round, so that a slow spell of the machine or an unusual window falls on all of
them. Absolute times mean little from one run to the next; the ratio to the PyTorch eager baseline
of the same run is what compares (`runtime_checks.timing.statistics`).
"""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.progress import Progress, silent
from export.types import LatencyReport, Sha256

EAGER_BASELINE = "pytorch-eager"
"""Name of the candidate that all others are compared with."""

MAX_FAILURES = 10
"""Failed runs after which a candidate is given up."""

Run = Callable[[NDArray[np.float32]], Any]
"""One inference on a window, float32 of shape [1, 1, samples]."""


@dataclass(frozen=True)
class Candidate:
    """Something to time: `open(threads)` loads it and returns what runs one window.

    Candidates for shorter windows than the longest of a run see the beginning of each window.
    """

    name: str
    artifact_sha256: Sha256 | None
    open: Callable[[int], Run]
    model: str | None = None
    window_s: float | None = None
    window_samples: int | None = None

    @property
    def key(self) -> tuple[str | None, float | None, str]:
        """What tells it from the others of a run."""
        return (self.model, self.window_s, self.name)

    def cut(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """The candidate's share of a window."""
        return np.ascontiguousarray(window[..., : self.window_samples])


@dataclass
class _Session:
    """A candidate with what was measured of it so far."""

    candidate: Candidate
    run: Run | None = None
    load_ms: float = 0.0
    first_ms: float = 0.0
    samples_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def load(self, window: NDArray[np.float32], *, threads: int) -> None:
        """Open twice and time the second: the first pays for imports and for reading the disk."""
        try:
            self.candidate.open(threads)
            start = time.perf_counter_ns()
            self.run = self.candidate.open(threads)
            self.load_ms = _elapsed_ms(start)
        except Exception as error:
            self.failures.append(f"load: {describe_error(error)}")
            return
        self.first_ms = self.timed("first run", window) or 0.0

    def timed(self, label: str, window: NDArray[np.float32]) -> float | None:
        """Milliseconds of one run; None, and a failure on record, when it raised."""
        if self.run is None:
            return None
        window = self.candidate.cut(window)
        try:
            start = time.perf_counter_ns()
            self.run(window)
            return _elapsed_ms(start)
        except Exception as error:
            self.failures.append(f"{label}: {describe_error(error)}")
        if len(self.failures) >= MAX_FAILURES:
            self.failures.append(f"given up after {MAX_FAILURES} failed runs")
            self.run = None
        return None


def measure(
    candidates: Sequence[Candidate],
    windows: Sequence[NDArray[np.float32]],
    *,
    threads: int,
    hop_s: float,
    seed: int,
    warmup_runs: int = 10,
    timed_runs: int = 100,
    progress: Progress = silent,
) -> list[LatencyReport]:
    """Time candidates on random windows, float32 [1, 1, samples] each, in this very process.

    Load and first run are timed apart; warm-up runs are not kept; garbage is not collected while
    the clock runs. A candidate that fails is reported with its failures and the samples it did
    give (none, with a load time of 0, when it did not load). `peak_rss_bytes` is the peak of this
    process, so of all candidates together: `processes.measure_apart` tells them apart.
    Raises ValueError when there is nothing to measure or two candidates share a key.
    """
    names = [candidate.key for candidate in candidates]
    if not windows or timed_runs < 1 or threads < 1 or len(set(names)) < len(names):
        raise ValueError("measure needs windows, runs, threads and candidates of different names")
    rng = np.random.default_rng(seed)
    sessions = [_Session(candidate) for candidate in candidates]
    before = temperature_c()
    for session in sessions:
        session.load(windows[0], threads=threads)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        _rounds(sessions, windows, count=warmup_runs, label="warm-up", rng=rng, progress=progress)
        for session in sessions:
            session.samples_ms.clear()
        _rounds(sessions, windows, count=timed_runs, label="timed", rng=rng, progress=progress)
    finally:
        if collecting:
            gc.enable()
    thermal, device, peak = _thermal(before, temperature_c()), describe_device(), peak_rss_bytes()
    return [
        LatencyReport(
            candidate=session.candidate.name,
            model=session.candidate.model,
            window_s=session.candidate.window_s,
            artifact_sha256=session.candidate.artifact_sha256,
            device=device,
            threads=threads,
            warmup_runs=warmup_runs,
            hop_s=hop_s,
            samples_ms=tuple(session.samples_ms),
            processes=(len(session.samples_ms),),
            load_ms=session.load_ms,
            first_ms=session.first_ms,
            peak_rss_bytes=peak,
            thermal=thermal,
            failures=tuple(session.failures),
        )
        for session in sessions
    ]


def _rounds(
    sessions: Sequence[_Session],
    windows: Sequence[NDArray[np.float32]],
    *,
    count: int,
    label: str,
    rng: np.random.Generator,
    progress: Progress,
) -> None:
    for index in range(count):
        window = windows[int(rng.integers(len(windows)))]
        for position in rng.permutation(len(sessions)):
            session = sessions[position]
            elapsed_ms = session.timed(f"{label} run {index + 1}", window)
            if elapsed_ms is not None:
                session.samples_ms.append(elapsed_ms)
        progress(f"timing: {label} runs", index + 1, count)


def random_windows(
    samples: NDArray[np.float32], *, window_samples: int, count: int, seed: int
) -> list[NDArray[np.float32]]:
    """Random windows of a recording, float32 [1, 1, window_samples]; a short one is zero-padded."""
    padded = np.zeros(max(len(samples), window_samples), np.float32)
    padded[: len(samples)] = samples
    starts = np.random.default_rng(seed).integers(len(padded) - window_samples + 1, size=count)
    return [padded[start : start + window_samples].reshape(1, 1, -1).copy() for start in starts]


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_device() -> str:
    """Processor, cores this process may use, and system."""
    return f"{_processor()}, {available_cores()} cores, {platform.system()} {platform.machine()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Hardware"} and value.strip():
                return value.strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed command
    return platform.processor() or "unknown processor"


def temperature_c() -> float | None:
    """The hottest thermal zone that the kernel shows, in degrees Celsius."""
    readings = []
    for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            readings.append(int(zone.read_text()) / 1000)
        except (OSError, ValueError):
            continue  # a zone may be listed and yet refuse to be read
    return max(readings, default=None)


def _thermal(before_c: float | None, after_c: float | None) -> str:
    if before_c is None or after_c is None:
        return "unknown"
    return f"hottest zone {before_c:.0f} °C before, {after_c:.0f} °C after"


def peak_rss_bytes() -> int:
    """Peak resident memory of this process.

    Linux's getrusage carries a parent's peak over into a child, so /proc is asked first.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_error(error: BaseException) -> str:
    """An error's type and first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _elapsed_ms(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6
