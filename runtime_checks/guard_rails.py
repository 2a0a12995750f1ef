"""A smaller artifact beside the fp32 artifact of its backend: is it smaller, and is it no slower?

Both were built and timed in the same build, the times in turns. What a recipe promised and does not
keep fails the build; what it did not promise is told all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from export.budget import LARGER, SLOWER, allowed_names, partner_key, promises_of
from export.types import Artifact, FloatComparison, LatencyReport, TimeRatio

from .runners.base import why_untimed
from .timing.statistics import ratio

FEWEST_RUNS = 20
"""Runs below which a ratio of medians says nothing."""

TOLERANCE = 0.05
"""Part of a time that may come from where two processes' memory lies."""


def compare_with_float(
    artifact: Artifact, partner: Artifact, *, latencies: Sequence[LatencyReport]
) -> FloatComparison:
    """An artifact beside `partner`, fp32 of the same backend, with what is not as promised.

    A time is longer only when its ratio is by 5 percent and its whole interval is above what was
    promised (nothing promised: 1). Raises `RecipeError` on promises that are not understood.
    """
    recipe, promises = artifact.recipe, promises_of(artifact.recipe)
    time, untimed = _time(artifact, partner, latencies)
    shares = {LARGER: artifact.size_bytes / partner.size_bytes}
    findings = {}
    limit = 1.0 if promises.size is None else promises.size
    if shares[LARGER] > limit:
        findings[LARGER] = (
            f"{artifact.size_bytes} bytes, {shares[LARGER]:.3f} of fp32's {partner.size_bytes}; "
            f"{_promised(promises.size)}"
        )
    limit = 1.0 if promises.time is None else promises.time
    if time and time.low > limit and time.value > limit * (1 + TOLERANCE):
        findings[SLOWER] = (
            f"{time.value:.2f} ({time.low:.2f}-{time.high:.2f}) of fp32's median time; "
            f"{_promised(promises.time)}"
        )
    promised = {LARGER: promises.size is not None, SLOWER: promises.time is not None}
    allowed = allowed_names(recipe)
    return FloatComparison(
        artifact_path=artifact.path,
        size_bytes=artifact.size_bytes,
        float_size_bytes=partner.size_bytes,
        time=time,
        untimed=untimed,
        promises=promises,
        findings=findings,
        allowed=tuple(name for name in findings if name in allowed),
        broken=tuple(name for name in findings if promised[name] and name not in allowed),
    )


def broken_promises(comparisons: Sequence[FloatComparison]) -> dict[str, list[str]]:
    """What each artifact breaks, in words, by its path; each ends with what would allow it."""
    return {
        each.artifact_path: [
            f"{name} than promised: {each.findings[name]}. Allow it by --allow {name}"
            for name in each.broken
        ]
        for each in comparisons
        if each.broken
    }


def compare_all(
    artifacts: Sequence[Artifact],
    partners: Mapping[tuple[str, bool], Artifact],
    *,
    latencies: Sequence[LatencyReport],
) -> tuple[FloatComparison, ...]:
    """Every artifact that is smaller than fp32, beside the partner of its backend and form."""
    return tuple(
        compare_with_float(artifact, partner, latencies=latencies)
        for artifact in artifacts
        if (partner := partners.get(partner_key(artifact))) and artifact is not partner
    )


def _time(
    artifact: Artifact, partner: Artifact, latencies: Sequence[LatencyReport]
) -> tuple[TimeRatio | None, str | None]:
    """The ratio of medians, or why there is none."""
    timed = {report.artifact_sha256: report for report in latencies}
    mine, theirs = timed.get(artifact.sha256), timed.get(partner.sha256)
    if mine is None or theirs is None:
        return None, why_untimed(artifact.recipe.backend) or "nothing was timed"
    for report in (mine, theirs):
        if report.failures and not report.samples_ms:
            return None, f"{report.candidate}: {report.failures[0]}"
    runs = min(len(mine.samples_ms), len(theirs.samples_ms))
    share = ratio(mine, theirs)
    if share is None or runs < FEWEST_RUNS:
        return None, f"{runs} timed runs, of which {FEWEST_RUNS} are needed to tell"
    return TimeRatio(value=share.value, low=share.low, high=share.high), None


def _promised(limit: float | None) -> str:
    return "nothing was promised" if limit is None else f"promised is {limit:g}"
