"""The HTML report: one file that fetches nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from export.types import (
    ArtifactProfile,
    BundleContent,
    LatencyReport,
    ParityReport,
    RungName,
    Verdict,
)

from ..results import Timeline
from . import wording
from .placement import placement_views
from .recording import recording_views, script_data
from .view import (
    AGAINST,
    artifact_views,
    der_reasons,
    der_tables,
    headline,
    latency_groups,
    overall,
    score_limits,
)

TEMPLATES = ("runtime_checks.report", "templates")
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
) -> None:
    """Write the report, replacing what is there in one step. Raises OSError on a full disk."""
    text = render_html(
        bundle=bundle,
        reports=reports,
        timelines=timelines,
        latencies=latencies,
        notes=notes,
        profiles=profiles,
    )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def render_html(
    *,
    bundle: BundleContent,
    reports: Sequence[ParityReport],
    timelines: Sequence[Timeline],
    latencies: Sequence[LatencyReport],
    notes: Sequence[str],
    profiles: Sequence[ArtifactProfile] = (),
) -> str:
    """The report's text."""
    environment = _environment()
    views = artifact_views(bundle, reports)
    recordings = recording_views(timelines, limits=score_limits(reports))
    verdict, verdict_word = overall(views)
    groups = latency_groups(latencies)
    script = _source(environment, SCRIPTS)
    return environment.get_template("page.html.j2").render(
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
        placements=placement_views(bundle, profiles),
        largest_size=max((a.size_bytes for a in bundle.artifacts), default=1),
        tools=sorted({tool for a in bundle.artifacts for tool in a.tool_versions}),
        verdict=verdict,
        verdict_word=verdict_word,
        headline=headline(views),
        notes=notes,
        data=script_data(recordings),
        style=Markup(_source(environment, STYLES)),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704 - our own files
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(*TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # tojson escapes <, >, & and ' as well, so that no text can end the script block it stands in.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    environment.globals |= {"w": wording, "RungName": RungName, "Verdict": Verdict}
    environment.globals |= {"AGAINST": AGAINST}
    return environment


def _source(environment: Environment, names: Sequence[str]) -> str:
    """Files of the template folder as they are: braces in them are theirs, not Jinja's."""
    loader = PackageLoader(*TEMPLATES)
    return "\n".join(loader.get_source(environment, name)[0] for name in names)
