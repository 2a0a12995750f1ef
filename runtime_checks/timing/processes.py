"""Timing in processes of their own: clean thread pools, memory per candidate, crashes survived.

ExecuTorch's thread pool can be set only before anything is loaded, torch's is set for the whole
process, and a native runtime that crashes takes its process along. So each candidate is first
opened alone in a fresh process, which measures its memory and shows whether it survives; what does
is then timed together in another fresh process.
"""

from __future__ import annotations

import multiprocessing
import time
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
    repeats: int = 1,
    progress: Progress = silent,
) -> list[LatencyReport]:
    """Like `protocol.measure`, in fresh processes; candidates must be picklable.

    The timed runs are shared out among `repeats` processes, one after the other: where memory lies
    differs from process to process, and what that does to a time shows only between them.
    `peak_rss_bytes` is that of a process that loads one candidate and runs one window: interpreter,
    libraries and model. A candidate that crashes its process is reported with that as its failure.
    Raises ValueError on more processes than runs.
    """
    if not 1 <= repeats <= timed_runs:
        raise ValueError(f"{timed_runs} runs cannot be shared out among {repeats} processes")
    peaks: list[int] = []
    crashes: dict[int, str] = {}
    for index, candidate in enumerate(candidates):
        try:
            peaks.append(in_child(_Probe(candidate, windows[0], threads)))
        except ChildDiedError as error:
            peaks.append(0)
            crashes[index] = str(error)
        progress(f"memory, {_threads(threads)}", index + 1, len(candidates))
    alive = [index for index in range(len(candidates)) if index not in crashes]
    shares = [len(share) for share in np.array_split(np.arange(timed_runs), repeats)]
    parts: dict[int, list[LatencyReport]] = {index: [] for index in alive}
    for turn, runs in enumerate(shares):
        chosen = [candidates[index] for index in alive]
        timing = _Timing(chosen, windows, threads, hop_s, seed + turn, warmup_runs, runs)
        try:
            found = in_child(timing, _labelled(progress, threads, turn, repeats)) if alive else []
            for index, report in zip(alive, found, strict=True):
                parts[index].append(report)
        except ChildDiedError as error:
            crashes |= dict.fromkeys(alive, f"timed with the others: {error}")
            break
    first = _Timing(candidates, windows, threads, hop_s, seed, warmup_runs, timed_runs)
    return [
        _crashed(candidate, crashes[index], first)
        if index in crashes
        else joined(parts[index]).model_copy(update={"peak_rss_bytes": peaks[index]})
        for index, candidate in enumerate(candidates)
    ]


def joined(reports: Sequence[LatencyReport]) -> LatencyReport:
    """Reports of one candidate from several processes as one; its first run is the first's."""
    loads = [report.load_ms for report in reports if report.load_ms]
    return reports[0].model_copy(
        update={
            "samples_ms": tuple(ms for report in reports for ms in report.samples_ms),
            "processes": tuple(len(report.samples_ms) for report in reports),
            "load_ms": float(np.median(loads)) if loads else 0.0,
            "failures": tuple(failure for report in reports for failure in report.failures),
            "thermal": reports[-1].thermal,
        }
    )


def _labelled(progress: Progress, threads: int, turn: int, repeats: int) -> Progress:
    which = f", process {turn + 1} of {repeats}" if repeats > 1 else ""

    def labelled(stage: str, done: int, total: int) -> None:
        progress(f"{stage}, {_threads(threads)}{which}", done, total)

    return labelled


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
            self.candidate.open(self.threads)(self.candidate.cut(self.window))
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
        model=candidate.model,
        window_s=candidate.window_s,
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


def in_child(
    work: Callable[[Progress], T], progress: Progress = silent, *, limit_s: float | None = None
) -> T:
    """Run picklable work in a fresh process.

    Raises ChildDiedError when that gives no result, or none within the limit.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(work, sender), daemon=True)
    child.start()
    sender.close()
    end = None if limit_s is None else time.monotonic() + limit_s
    try:
        while True:
            if end is not None and not receiver.poll(max(0.0, end - time.monotonic())):
                raise ChildDiedError(f"it was not done after {limit_s:g} s")
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
