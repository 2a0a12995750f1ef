"""Timing in processes of their own: clean thread pools, memory per candidate, crashes survived.

ExecuTorch's thread pool can be set only before anything is loaded, torch's is set for the whole
process, and a native runtime that crashes takes its process along. So each candidate is first
opened alone in a fresh process, which measures its memory and shows whether it survives; what does
is then timed together in another fresh process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from export.progress import Progress, silent
from export.types import LatencyReport

from .protocol import Candidate, describe_device, describe_error, measure, peak_rss_bytes

T = TypeVar("T")


class ChildDiedError(RuntimeError):
    """A child process ended without a result; the message says how."""


def measure_apart(
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
    """Like `protocol.measure`, in fresh processes; candidates must be picklable.

    `peak_rss_bytes` is that of a process that loads one candidate and runs one window: interpreter,
    libraries and model. A candidate that crashes its process is reported with that as its failure.
    """
    peaks: dict[str, int] = {}
    crashes: dict[str, str] = {}
    for index, candidate in enumerate(candidates):
        try:
            peaks[candidate.name] = _in_child(_Probe(candidate, windows[0], threads), silent)
        except ChildDiedError as error:
            crashes[candidate.name] = str(error)
        progress(f"memory, {_threads(threads)}", index + 1, len(candidates))
    alive = [candidate for candidate in candidates if candidate.name not in crashes]
    timing = _Timing(alive, windows, threads, hop_s, seed, warmup_runs, timed_runs)

    def labelled(stage: str, done: int, total: int) -> None:
        progress(f"{stage}, {_threads(threads)}", done, total)

    measured: dict[str, LatencyReport] = {}
    try:
        for report in _in_child(timing, labelled) if alive else []:
            peak = {"peak_rss_bytes": peaks[report.candidate]}
            measured[report.candidate] = report.model_copy(update=peak)
    except ChildDiedError as error:
        crashes |= {candidate.name: f"timed with the others: {error}" for candidate in alive}
    return [
        measured.get(candidate.name) or _crashed(candidate, crashes[candidate.name], timing)
        for candidate in candidates
    ]


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


@dataclass(frozen=True)
class _Probe:
    """Open one candidate, run it once, tell the memory that took."""

    candidate: Candidate
    window: NDArray[np.float32]
    threads: int

    def __call__(self, progress: Progress) -> int:
        # An error here is met again, and put on record, by the timing process.
        with suppress(Exception):
            self.candidate.open(self.threads)(self.window)
        return peak_rss_bytes()


@dataclass(frozen=True)
class _Timing:
    """Time all candidates together."""

    candidates: Sequence[Candidate]
    windows: Sequence[NDArray[np.float32]]
    threads: int
    hop_s: float
    seed: int
    warmup_runs: int
    timed_runs: int

    def __call__(self, progress: Progress) -> list[LatencyReport]:
        return measure(
            self.candidates,
            self.windows,
            threads=self.threads,
            hop_s=self.hop_s,
            seed=self.seed,
            warmup_runs=self.warmup_runs,
            timed_runs=self.timed_runs,
            progress=progress,
        )


def _crashed(candidate: Candidate, failure: str, timing: _Timing) -> LatencyReport:
    return LatencyReport(
        candidate=candidate.name,
        artifact_sha256=candidate.artifact_sha256,
        device=describe_device(),
        threads=timing.threads,
        warmup_runs=timing.warmup_runs,
        hop_s=timing.hop_s,
        samples_ms=(),
        load_ms=0.0,
        first_ms=0.0,
        peak_rss_bytes=0,
        thermal="unknown",
        failures=(failure,),
    )


def _in_child(work: Callable[[Progress], T], progress: Progress) -> T:
    """Run picklable work in a fresh process; raises ChildDiedError when that gives no result."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(work, sender), daemon=True)
    child.start()
    sender.close()
    try:
        while True:
            kind, value = receiver.recv()
            if kind == "result":
                result: T = value
                return result
            if kind == "error":
                raise ChildDiedError(value)
            progress(*value)
    except EOFError:
        child.join()
        raise ChildDiedError(f"its process crashed (exit code {child.exitcode})") from None
    except BaseException:
        child.terminate()
        raise
    finally:
        child.join()


def _serve(work: Callable[[Progress], T], sender: Connection) -> None:
    def report(stage: str, done: int, total: int) -> None:
        sender.send(("progress", (stage, done, total)))

    try:
        sender.send(("result", work(report)))
    except Exception as error:
        sender.send(("error", describe_error(error)))
