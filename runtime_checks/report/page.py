"""The HTML report: one file that fetches nothing and runs no script but its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.types import (
    RUNGS,
    ArtifactProfile,
    BundleContent,
    FloatComparison,
    LatencyReport,
    ParityReport,
    Verdict,
)

from ..guard_rails import broken_promises
from ..results import Timeline
from . import wording
from .der_view import der_reasons, der_tables
from .placement import placement_views
from .recording import recording_views, script_data
from .rendering import environment, replace_text, script_hash, source
from .view import (
    AGAINST,
    artifact_views,
    headline,
    latency_groups,
    overall,
    score_limits,
)

STYLES = ("base.css", "recording.css", "tables.css")
SCRIPTS = ("recording.js",)


def write_html(
    path: Path,
    *,
    bundle: BundleContent,
    reports: Sequence[ParityReport],
    timelines: Sequence[Timeline],
    latencies: Sequence[LatencyReport],
    notes: Sequence[str],
    profiles: Sequence[ArtifactProfile] = (),
    comparisons: Sequence[FloatComparison] = (),
) -> None:
    """Write the report, replacing what is there in one step. Raises OSError on a full disk."""
    text = render_html(
        bundle=bundle,
        reports=reports,
        timelines=timelines,
        latencies=latencies,
        notes=notes,
        profiles=profiles,
        comparisons=comparisons,
    )
    replace_text(path, text)


def render_html(
    *,
    bundle: BundleContent,
    reports: Sequence[ParityReport],
    timelines: Sequence[Timeline],
    latencies: Sequence[LatencyReport],
    notes: Sequence[str],
    profiles: Sequence[ArtifactProfile] = (),
    comparisons: Sequence[FloatComparison] = (),
) -> str:
    """The report's text."""
    templates = environment()
    templates.globals |= {"w": wording, "RUNGS": RUNGS[bundle.spec.role], "Verdict": Verdict}
    templates.globals |= {"AGAINST": AGAINST}
    views = artifact_views(bundle, reports)
    recordings = recording_views(timelines, limits=score_limits(reports))
    broken = broken_promises(comparisons)
    verdict, verdict_word = overall(views, broken=bool(broken))
    groups = latency_groups(latencies)
    script = source(SCRIPTS)
    return templates.get_template("page.html.j2").render(
        bundle=bundle,
        spec=bundle.spec,
        geometry=bundle.spec.geometry,
        artifacts=views,
        recordings=recordings,
        recording_anchors={view.uri: view.anchor for view in recordings},
        der_tables=der_tables(reports),
        der_reasons=der_reasons(reports),
        latency_groups=groups,
        latency_by_candidate={
            row.report.candidate: row for group in reversed(groups) for row in group.rows
        },
        comparisons=comparisons,
        broken=broken,
        placements=placement_views(bundle, profiles),
        largest_size=max((a.size_bytes for a in bundle.artifacts), default=1),
        tools=sorted({tool for a in bundle.artifacts for tool in a.tool_versions}),
        verdict=verdict,
        verdict_word=verdict_word,
        headline=headline(views, broken=len(broken)),
        notes=notes,
        data=script_data(recordings),
        style=source(STYLES),
        script=script,
        script_hash=script_hash(script),
    )
