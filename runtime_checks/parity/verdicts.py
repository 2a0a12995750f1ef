"""What is said of one artifact in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from export.types import RUNGS, Artifact, ParityReport, ParitySummary, Precision, Role, Verdict

from .rungs import Scores, not_run

Against = Literal["compressed", "float"]
AGAINST: tuple[Against, ...] = ("compressed", "float")


@dataclass(frozen=True)
class Examined:
    """Verdicts on one artifact, its scores (None when they cannot be compared), and what its
    runner has to tell."""

    reports: tuple[ParityReport, ...]
    summary: ParitySummary
    scores: tuple[Scores, ...] | None
    notes: tuple[str, ...] = ()


def not_run_report(
    artifact: Artifact, against: Against, reason: str, *, role: Role
) -> ParityReport:
    """The report on an artifact that cannot be run here, and why."""
    recipe = artifact.recipe
    precision: Precision = (
        recipe.activation_precision if against == "compressed" else recipe.tolerance
    )
    return ParityReport(
        artifact_path=artifact.path,
        artifact_sha256=artifact.sha256,
        against=against,
        tolerance=precision,
        rungs=tuple(not_run(name, reason) for name in RUNGS[role]),
        der=None,
        verdict=Verdict.NOT_RUN,
        reason=reason,
    )


def gather(
    artifact: Artifact, reports: Sequence[ParityReport], scores: tuple[Scores, ...] | None
) -> Examined:
    """What both reports come to: the worst verdict, and the reason for it."""
    verdict = Verdict.worst([report.verdict for report in reports])
    reason = next(
        (f"against {r.against}: {r.reason}" for r in reports if r.verdict is verdict and r.reason),
        None,
    )
    if verdict is Verdict.NOT_RUN:
        reason = next((r.reason for r in reports if r.reason), None)
    summary = ParitySummary(artifact_path=artifact.path, verdict=verdict, reason=reason)
    return Examined(tuple(reports), summary, scores)
