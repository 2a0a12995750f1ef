"""The page of `diarport bench`: its figures and the geometry of its lines."""

from __future__ import annotations

import re

import pytest

from export.types import BenchRecord, LatencyReport
from runtime_checks.report.bench_page import render_bench_html
from runtime_checks.report.growth import growth_plots
from runtime_checks.timing.regression import compare


def report(candidate: str, window_s: float, ms: float) -> LatencyReport:
    return LatencyReport(
        candidate=candidate,
        model="<m>",
        window_s=window_s,
        artifact_sha256=None,
        device="device",
        threads=1,
        warmup_runs=0,
        hop_s=0.5,
        samples_ms=(ms, ms, ms, ms, ms, ms),
        processes=(2, 2, 2),
        load_ms=1.0,
        first_ms=1.0,
        peak_rss_bytes=0,
        thermal="unknown",
        failures=(),
    )


def record(onnx_ms: float) -> BenchRecord:
    reports = (
        report("pytorch-eager", 2.0, 4.0),
        report("a.onnx", 2.0, onnx_ms),
        report("pytorch-eager", 30.0, 60.0),
        report("a.onnx", 30.0, 12 * onnx_ms),
    )
    reasons = {"<m>, 2 s: executorch-stock": "it was not done after 300 s"}
    return BenchRecord(seed=7, models={"<m>": None}, reports=reports, not_run=reasons, notes=())


def cells(page: str, subject: str) -> list[str]:
    (row,) = re.findall(rf'<tr data-subject="{subject}">(.*?)</tr>', page, re.DOTALL)
    return [re.sub(r"<[^>]+>", " ", cell).split()[0] for cell in re.findall(r"<td.*?</td>", row)]


def test_ratios_growth_and_what_was_not_timed() -> None:
    page = render_bench_html(record(3.0))
    assert cells(page, "&lt;m&gt;, 2 s, 1 thread") == ["4.00", "0.75"]
    assert cells(page, "&lt;m&gt;, 30 s, 1 thread") == ["60.00", "0.60"]
    assert "<m>" not in page  # names are escaped
    assert "it was not done after 300 s" in page
    assert '<td class="num strong">12.0 <small>(15.0)</small></td>' in page
    assert "<script" not in page and "Against the older run" not in page


def test_a_comparison_names_what_is_slower() -> None:
    compared = compare(record(3.0), record(3.6), tolerance=0.05)
    page = render_bench_html(record(3.6), compared)
    assert page.count('<td class="slower">slower</td>') == 2
    assert "+20.0 %" in page


def test_lines_lie_where_the_times_are() -> None:
    (plot,) = growth_plots(record(3.0).reports)
    eager, onnx = plot.lines
    assert (eager.growth, eager.proportional) == (15, 15) and onnx.growth == 12
    # In proportion to length, a line rises as steeply on both logarithmic scales as its ratio says.
    assert eager.points[0][0] == onnx.points[0][0] == plot.x_ticks[0][0]
    assert eager.points[0][1] < onnx.points[0][1]  # slower is higher
    assert [label for _, label in plot.y_ticks] == ["2", "5", "10", "20", "50", "100"]
    heights = [y for y, _ in plot.y_ticks]
    assert heights == sorted(heights, reverse=True)
    assert heights[1] == pytest.approx(heights[0] - (heights[0] - heights[-1]) * 0.2342, abs=0.1)
    assert growth_plots(record(3.0).reports[:2]) == []
