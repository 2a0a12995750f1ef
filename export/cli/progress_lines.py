"""Progress of hours: a bar, or lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..progress import Progress
from .common import progress_bar, say


@contextmanager
def progress_lines(*, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal; elsewhere (a log file) a line a minute with the remaining time."""
    if quiet or sys.stderr.isatty():
        with progress_bar(quiet=quiet) as bar:
            yield bar
    else:
        yield line_progress(every_s=60)


def line_progress(*, every_s: float) -> Progress:
    """Progress as lines on stderr, at most one every `every_s` seconds a stage."""
    began: dict[str, tuple[float, int]] = {}
    told: dict[str, float] = {}

    def report(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage in began and done <= began[stage][1]:  # the same stage, begun again
            del began[stage], told[stage]
        start, first = began.setdefault(stage, (now, done))
        if now - told.setdefault(stage, start) < every_s or done == first:
            return
        told[stage] = now
        left_s = (now - start) / (done - first) * (total - done)
        say(f"{stage}: {done} of {total}, {left_s / 60:.0f} min left")

    return report
