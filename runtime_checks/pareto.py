"""The trade-off between error, size and time, and what no other artifact beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.audio import Recording, Window
from export.progress import Progress, silent
from export.types import (
    SCHEMA_VERSION,
    Artifact,
    DerScore,
    LatencyReport,
    ModelSpec,
    TimeRatio,
    Value,
    Verdict,
)

from .der import DerScorer
from .parity.decisions import decide
from .parity.ladder import execute
from .runners.base import RUNNERS, NotRunnableError, why_untimed
from .timing.contenders import OpenArtifact, candidate, windows_of
from .timing.processes import measure_apart
from .timing.protocol import Candidate
from .timing.statistics import ratio

HOP_S = 0.5  # what the real-time factor divides by, which is not shown here


class Point(Value):
    """One artifact: `der` and `time` are None where they could not be measured here (`reasons`).

    `non_dominated`: no artifact measured in all three is as good in error, size and time and
    better in one. An artifact that failed parity is not compared.
    """

    model: str
    backend: str
    recipe: str
    verdict: Verdict
    size_bytes: int
    der: DerScore | None
    time: TimeRatio | None
    p50_ms: float | None
    reasons: tuple[str, ...]
    non_dominated: bool

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.model}, {self.backend}/{self.recipe}"

    @property
    def costs(self) -> tuple[float, float, float] | None:
        """DER in percent, size in bytes, time ratio; None when not all three are known."""
        if self.der is None or self.time is None or self.verdict is Verdict.FAIL:
            return None
        return (self.der.pooled, float(self.size_bytes), self.time.value)


class ParetoRecord(Value):
    """All artifacts of one comparison, measured on the same audio and in the same timed run.

    `baseline` is the model whose PyTorch eager time is 1; `baseline_der` is its own, None when it
    is untrained and only its time is of interest.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    baseline: str
    baseline_der: DerScore | None
    device: str
    threads: int
    runs: int
    window_s: float
    hop_s: float
    recordings: tuple[str, ...]
    audio_s: float
    points: tuple[Point, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Contestant:
    """An artifact of a bundle, with the file and the bundle's verdict on it."""

    spec: ModelSpec
    artifact: Artifact
    path: Path
    verdict: Verdict
    reason: str | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Model, backend, recipe: unique in a comparison."""
        return self.spec.name, self.artifact.recipe.backend, self.artifact.recipe.name


def non_dominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points [points, objectives] no other one dominates; all objectives are minimised.

    A point dominates another when it is nowhere worse and somewhere better (Deb et al., "A fast
    and elitist multiobjective genetic algorithm: NSGA-II", 2002, section III-A). Equal points do
    not dominate each other.
    """
    no_worse = (costs[:, None, :] <= costs[None, :, :]).all(2)
    better = (costs[:, None, :] < costs[None, :, :]).any(2)
    return np.logical_not((no_worse & better).any(0))


def mark_non_dominated(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points, those that nothing dominates marked."""
    known = [index for index, point in enumerate(points) if point.costs is not None]
    costs = np.array([points[index].costs for index in known], np.float64).reshape(-1, 3)
    free = {index for index, best in zip(known, non_dominated(costs), strict=True) if best}
    return tuple(
        point.model_copy(update={"non_dominated": index in free})
        for index, point in enumerate(points)
    )


def error_rate(
    contestant: Contestant,
    windows: Sequence[Window],
    scorer: DerScorer,
    *,
    progress: Progress = silent,
) -> tuple[DerScore | None, str | None]:
    """DER of an artifact's own decisions, or the reason why it has none here."""
    artifact, spec = contestant.artifact, contestant.spec
    factory = RUNNERS[artifact.recipe.backend]
    if reason := factory.unavailable():
        return None, reason
    try:
        runner = factory.open(contestant.path, spec, threads=1, options=artifact.runtime_options)
    except Exception as error:  # as in the ladder: what a runtime raises is its own affair
        return None, f"it cannot be opened: {error}"
    stage = f"DER of {', '.join(contestant.key)}"
    try:
        executed = execute(runner, windows, spec=spec, stage=stage, progress=progress)
    except NotRunnableError as error:
        return None, str(error)
    if executed.scores is None:
        return None, executed.problems[-1][1]
    return scorer.score([decide(scores, spec) for scores in executed.scores]), None


def measure_times(
    contestants: Sequence[Contestant],
    baseline: Candidate,
    recordings: Sequence[Recording],
    *,
    runs: int,
    threads: int,
    seed: int,
    progress: Progress = silent,
) -> tuple[LatencyReport, list[LatencyReport | None]]:
    """Times of the baseline, and of all contestants that are timed here, taking turns in one run.

    The contestants' are in their order, None for one that cannot be timed.
    """
    timed = [c for c in contestants if why_untimed(c.artifact.recipe.backend) is None]
    longest = max((c.spec for c in contestants), key=lambda spec: spec.geometry.window_samples)
    reports = measure_apart(
        [baseline, *map(_candidate, timed)],
        windows_of(recordings, spec=longest, seed=seed),
        threads=threads,
        hop_s=HOP_S,
        seed=seed,
        timed_runs=runs,
        progress=progress,
    )
    found = {contestant.key: report for contestant, report in zip(timed, reports[1:], strict=True)}
    return reports[0], [found.get(contestant.key) for contestant in contestants]


def _candidate(contestant: Contestant) -> Candidate:
    artifact = contestant.artifact
    opener = OpenArtifact(
        artifact.recipe.backend, contestant.path, contestant.spec, artifact.runtime_options
    )
    # Two backends may give their files one name.
    name = f"{artifact.recipe.backend}/{artifact.recipe.name}"
    return candidate(name, opener, spec=contestant.spec, sha256=artifact.sha256)


def make_point(
    contestant: Contestant,
    found: tuple[DerScore | None, str | None],
    timed: LatencyReport | None,
    *,
    baseline: LatencyReport,
) -> Point:
    """What was measured of one artifact, not yet compared with the others."""
    der, why_no_der = found
    backend = contestant.artifact.recipe.backend
    share = ratio(timed, baseline) if timed else None
    reasons = [
        why_no_der,
        None if timed else why_untimed(backend),
        *(timed.failures if timed else ()),
    ]
    if contestant.verdict is Verdict.FAIL:
        reasons.append(f"parity: {contestant.reason or 'failed'}")
    return Point(
        model=contestant.spec.name,
        backend=backend,
        recipe=contestant.artifact.recipe.name,
        verdict=contestant.verdict,
        size_bytes=contestant.artifact.size_bytes,
        der=der,
        time=TimeRatio(value=share.value, low=share.low, high=share.high) if share else None,
        p50_ms=float(np.median(timed.samples_ms)) if timed and timed.samples_ms else None,
        reasons=tuple(dict.fromkeys(reason for reason in reasons if reason)),
        non_dominated=False,
    )
