"""The page of `diarport bench`: ratios at a glance, growth, distributions, what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.types import BenchRecord

from ..timing.protocol import EAGER_BASELINE
from ..timing.regression import Comparison
from . import wording
from .growth import HEIGHT, LEFT, WIDTH, growth_plots
from .rendering import environment, replace_text, source
from .view import LatencyGroup, LatencyRow, latency_groups

STYLES = ("base.css", "tables.css", "bench.css")


def write_bench_html(path: Path, record: BenchRecord, compared: Comparison | None) -> None:
    """Write the page, replacing what is there in one step. Raises OSError on a full disk."""
    replace_text(path, render_bench_html(record, compared))


def render_bench_html(record: BenchRecord, compared: Comparison | None = None) -> str:
    """The page's text: one file that fetches nothing and runs no script."""
    templates = environment()
    templates.globals |= {"w": wording}
    groups = latency_groups(record.reports)
    return templates.get_template("bench.html.j2").render(
        record=record,
        models=", ".join(record.models),
        latency_groups=groups,
        columns=_columns(groups),
        overview=[(_subject(group), _by_candidate(group)) for group in groups],
        growth=growth_plots(record.reports),
        size=(WIDTH, HEIGHT, LEFT),
        compared=compared,
        style=source(STYLES),
    )


def _columns(groups: Sequence[LatencyGroup]) -> list[str]:
    names = (row.report.candidate for group in groups for row in group.rows)
    return [name for name in dict.fromkeys(names) if name != EAGER_BASELINE]


def _subject(group: LatencyGroup) -> str:
    first = group.rows[0].report
    threads = f"{group.threads} thread{'' if group.threads == 1 else 's'}"
    return f"{first.model}, {wording.quantity(first.window_s or 0, 's')}, {threads}"


def _by_candidate(group: LatencyGroup) -> dict[str, LatencyRow]:
    return {row.report.candidate: row for row in group.rows}
