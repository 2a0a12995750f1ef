"""What the page shows, arranged for its templates; every decision on wording is made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.types import (
    Artifact,
    BundleContent,
    LatencyReport,
    Metric,
    ParityReport,
    Rung,
    RungName,
    Verdict,
)

from ..timing.protocol import EAGER_BASELINE
from ..timing.statistics import (
    Comparable,
    Ratio,
    Summary,
    comparable,
    find_baseline,
    ratio,
    summarise,
)
from .plots import StripPlot, strip_plot
from .wording import AGAINST_TITLES, VERDICT_WORDS, quantity

AGAINST = ("compressed", "float")


@dataclass(frozen=True)
class LadderRung:
    """One rung of one artifact: its results against both references, by name."""

    name: RungName
    results: dict[str, Rung]
    metrics: tuple[tuple[str, dict[str, Metric]], ...]


@dataclass(frozen=True)
class ArtifactView:
    """All that is known of one artifact. `artifact` is None for one that is not in the bundle."""

    path: str
    anchor: str
    artifact: Artifact | None
    reports: dict[str, ParityReport]
    verdict: Verdict
    summary_reason: str | None
    ladder: tuple[LadderRung, ...]

    @property
    def reasons(self) -> list[str]:
        """Why the verdict is what it is, where a report says so; what both say is said once."""
        if not self.reports:
            return [self.summary_reason or "it was not checked"]
        found: dict[str, list[str]] = {}
        for against, report in self.reports.items():
            if report.reason:
                found.setdefault(report.reason, []).append(against)
        return [
            reason
            if len(given_by) == len(self.reports)
            else f"Against {AGAINST_TITLES[given_by[0]]}: {reason}"
            for reason, given_by in found.items()
        ]

    @property
    def tolerance(self) -> str:
        """Whose limits were applied: `fp32`, or `fp32 and fp16` where the comparisons differ."""
        used = dict.fromkeys(report.tolerance.value for report in self.reports.values())
        return " and ".join(used)

    @property
    def climbed(self) -> bool:
        """Whether any rung was run."""
        ran = (
            rung.verdict is not Verdict.NOT_RUN for r in self.ladder for rung in r.results.values()
        )
        return any(ran)

    @property
    def diverging(self) -> dict[str, str]:
        """First diverging layer, and which comparisons found it."""
        layers: dict[str, list[str]] = {}
        for against, report in self.reports.items():
            if report.first_diverging_layer:
                layers.setdefault(report.first_diverging_layer, []).append(against)
        return {
            layer: " and ".join(AGAINST_TITLES[each] for each in found)
            for layer, found in layers.items()
        }

    def rung_verdict(self, name: RungName) -> Verdict:
        """The worse of both comparisons."""
        rungs = [r for report in self.reports.values() for r in report.rungs if r.name is name]
        return Verdict.worst([rung.verdict for rung in rungs])

    def rung_reason(self, name: RungName) -> str:
        """Why a rung did not run, or what else there is to say of it."""
        rungs = [r for report in self.reports.values() for r in report.rungs if r.name is name]
        reasons = [r.reason for r in rungs if r.reason] if rungs else self.reasons
        return "; ".join(dict.fromkeys(reasons))


@dataclass(frozen=True)
class LatencyRow:
    """One candidate of one run."""

    report: LatencyReport
    summary: Summary | None
    ratio: Ratio | None
    is_baseline: bool


@dataclass(frozen=True)
class LatencyGroup:
    """What compares: one device, one number of threads, one model, windows of one length.

    `subject` names model and window where a run had several.
    """

    device: str
    threads: int
    subject: str
    rows: tuple[LatencyRow, ...]
    plot: StripPlot


def artifact_views(bundle: BundleContent, reports: Sequence[ParityReport]) -> list[ArtifactView]:
    """The bundle's artifacts in its order, then any other that a report is about."""
    by_path = {artifact.path: artifact for artifact in bundle.artifacts}
    paths = list(dict.fromkeys([*by_path, *(report.artifact_path for report in reports)]))
    summaries = {summary.artifact_path: summary for summary in bundle.parity}
    views = []
    for index, path in enumerate(paths):
        own: dict[str, ParityReport] = {r.against: r for r in reports if r.artifact_path == path}
        summary = summaries.get(path)
        verdict = Verdict.worst([report.verdict for report in own.values()])
        if not own and summary:
            verdict = summary.verdict
        views.append(
            ArtifactView(
                path=path,
                anchor=f"artifact-{index}",
                artifact=by_path.get(path),
                reports={against: own[against] for against in AGAINST if against in own},
                verdict=verdict,
                summary_reason=summary.reason if summary else None,
                ladder=_ladder(own),
            )
        )
    return views


def _ladder(reports: dict[str, ParityReport]) -> tuple[LadderRung, ...]:
    rungs = []
    for name in RungName:
        results = {
            against: rung
            for against in AGAINST
            if against in reports
            for rung in reports[against].rungs
            if rung.name is name
        }
        metrics: dict[str, dict[str, Metric]] = {}
        for against, rung in results.items():
            for metric in rung.metrics:
                metrics.setdefault(metric.name, {})[against] = metric
        if results:
            rungs.append(LadderRung(name, results, tuple(metrics.items())))
    return tuple(rungs)


def headline(views: Sequence[ArtifactView], *, broken: int = 0) -> str:
    """`2 of 3 artifacts pass, 1 did not run, 1 breaks a promise`."""
    counts = {v: sum(view.verdict is v for view in views) for v in Verdict}
    if not views:
        return "No artifacts"
    passes = "passes" if counts[Verdict.PASS] == 1 else "pass"
    parts = [f"{counts[Verdict.PASS]} of {len(views)} artifacts {passes}"]
    if counts[Verdict.FAIL]:
        parts.append(f"{counts[Verdict.FAIL]} fail{'s' if counts[Verdict.FAIL] == 1 else ''}")
    if counts[Verdict.NOT_RUN]:
        parts.append(f"{counts[Verdict.NOT_RUN]} did not run")
    if broken:
        parts.append(f"{broken} break{'s' if broken == 1 else ''} a promise")
    return ", ".join(parts)


def overall(views: Sequence[ArtifactView], *, broken: bool = False) -> tuple[Verdict, str]:
    """The worst verdict, and the word for it that hides nothing: a pass with gaps says so, and a
    recipe's promise that is `broken` fails."""
    verdicts = [view.verdict for view in views]
    worst = Verdict.FAIL if broken else Verdict.worst(verdicts)
    if worst is Verdict.NOT_RUN and Verdict.PASS in verdicts:
        return worst, "PASS, WITH GAPS"
    return worst, VERDICT_WORDS[worst]


def score_limits(reports: Sequence[ParityReport]) -> dict[str, float]:
    """Limit of the largest score difference by artifact, where there is one."""
    limits: dict[str, float] = {}
    for report in sorted(reports, key=lambda r: AGAINST.index(r.against)):
        for rung in report.rungs:
            for metric in rung.metrics:
                wanted = rung.name is RungName.SCORES and metric.name.startswith("max_abs")
                if wanted and metric.limit is not None:
                    limits.setdefault(report.artifact_path, metric.limit)
    return limits


def latency_groups(latencies: Sequence[LatencyReport]) -> list[LatencyGroup]:
    """Reports that compare with each other, in the order given."""
    groups: dict[Comparable, list[LatencyReport]] = {}
    for report in latencies:
        groups.setdefault(comparable(report), []).append(report)
    several = len({(model, window_s) for _, _, model, window_s in groups}) > 1
    views = []
    for (device, threads, model, window_s), group in groups.items():
        rows = []
        for report in group:
            baseline = find_baseline(report, group)
            to_eager = ratio(report, baseline) if baseline else None
            is_baseline = report.candidate == EAGER_BASELINE
            rows.append(LatencyRow(report, summarise(report), to_eager, is_baseline))
        subject = f"{model}, {quantity(window_s or 0, 's')}" if several else ""
        views.append(LatencyGroup(device, threads, subject, tuple(rows), strip_plot(group)))
    return views
