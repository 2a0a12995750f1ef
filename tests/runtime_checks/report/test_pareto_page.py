"""The page of the trade-off: places, marks, escaping, the table in Markdown; then in a browser."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from export.types import DerScore, TimeRatio, Verdict
from runtime_checks.pareto import ParetoRecord, Point, mark_non_dominated
from runtime_checks.report.pareto_page import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    markdown_table,
    plot_of,
    render_pareto_html,
)


def score(percent: float) -> DerScore:
    return DerScore(
        pooled=percent,
        window_mean=percent,
        false_alarm=1,
        missed_detection=1,
        confusion=percent - 2,
        reference_speech_s=20,
        num_windows=10,
        collar_s=0,
        skip_overlap=False,
    )


def point(model: str, backend: str, **changes: Any) -> Point:
    values: dict[str, Any] = {
        "model": model,
        "backend": backend,
        "recipe": "fp32",
        "verdict": Verdict.PASS,
        "size_bytes": 1_100_000,
        "der": score(34.0),
        "time": TimeRatio(value=0.3, low=0.29, high=0.31),
        "p50_ms": 6.0,
        "reasons": (),
        "non_dominated": False,
    }
    return Point(**(values | changes))


def record(*points: Point, baseline_der: DerScore | None = None) -> ParetoRecord:
    return ParetoRecord(
        baseline="sinc-4bi-2lin",
        baseline_der=baseline_der,
        device="a machine",
        threads=1,
        runs=50,
        window_s=5,
        hop_s=2.5,
        recordings=("meeting",),
        audio_s=30,
        points=mark_non_dominated(points),
        notes=("meeting: resampled",),
    )


SMALL = point("small", "onnx_ort", der=score(38.0), size_bytes=400_000)
LARGE = point("large", "onnx_ort", time=TimeRatio(value=0.6, low=0.5, high=0.7))
BEATEN = point("beaten", "executorch_xnnpack", der=score(40.0), size_bytes=2_000_000)
ABSENT = point(
    "large", "coreml_mlprogram", der=None, time=None, p50_ms=None, reasons=("no <Mac> here",)
)


def test_points_lie_in_the_plot_in_the_order_of_their_costs() -> None:
    plot = plot_of(record(SMALL, LARGE, BEATEN, ABSENT, baseline_der=score(30.0)))
    by_name = {mark.point.model: mark for mark in plot.marks}
    assert set(by_name) == {"small", "large", "beaten"}
    for mark in plot.marks:
        assert TOP <= mark.y <= HEIGHT - BOTTOM
        assert all(LEFT <= x <= WIDTH - RIGHT for x in mark.x.values())
    assert by_name["small"].x["time"] < by_name["large"].x["time"]
    assert by_name["small"].x["size"] < by_name["large"].x["size"] < by_name["beaten"].x["size"]
    assert by_name["large"].y > by_name["small"].y > by_name["beaten"].y  # down is better
    assert plot.baseline_y is not None and plot.baseline_y > by_name["large"].y
    assert len(plot.y_ticks) >= 3 and all(len(scale.ticks) >= 2 for scale in plot.scales)


def test_the_line_goes_from_one_best_to_the_next() -> None:
    plot = plot_of(record(SMALL, LARGE, BEATEN))
    small, large = (next(m for m in plot.marks if m.point.model == n) for n in ("small", "large"))
    (size,) = (scale for scale in plot.scales if scale.key == "size")
    expected = f"M{small.x['size']:g},{small.y:g}H{large.x['size']:g}V{large.y:g}H{WIDTH - RIGHT}"
    assert size.front == expected


def test_a_single_point_and_none_at_all_still_make_a_page() -> None:
    assert "translate(" in render_pareto_html(record(SMALL))
    assert "no &lt;Mac&gt; here" in render_pareto_html(record(ABSENT))


def test_the_page_fetches_nothing_and_escapes_names() -> None:
    text = render_pareto_html(record(point("<b>x</b>", "onnx_ort"), ABSENT))
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_the_markdown_table_marks_the_best_and_gives_reasons() -> None:
    lines = markdown_table(record(SMALL, LARGE, BEATEN, ABSENT)).splitlines()
    assert lines[0].startswith("| model | backend | recipe | parity | DER | size | time |")
    assert lines[2].startswith("| **small** | **onnx_ort** |") and "**38.00 %**" in lines[2]
    assert lines[4].startswith("| beaten |") and "not measured" in lines[5]
    text = "\n".join(lines)
    assert "- coreml_mlprogram: no <Mac> here" in text
    assert "1 recording (meeting; 30 s)" in text and "sinc-4bi-2lin" in text


@pytest.mark.browser
def test_filters_axes_and_sorting_work_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "pareto.html"
    path.write_text(render_pareto_html(record(SMALL, LARGE, BEATEN, ABSENT)), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(
        "report_browser", Path(__file__).with_name("test_report_browser.py")
    )
    assert spec is not None and spec.loader is not None
    browser = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(browser)
    driver = browser.open_browser(tmp_path / "profile")
    try:
        driver.get(path.as_uri())
        marks = driver.find_elements("css selector", ".mark")
        before = [mark.get_attribute("transform") for mark in marks]
        driver.find_element("css selector", "button[data-axis=size]").click()
        after = [mark.get_attribute("transform") for mark in marks]
        assert len(marks) == 3 and before != after
        driver.find_element("css selector", "input[value=beaten]").click()
        assert [mark.is_displayed() for mark in marks] == [True, True, False]
        driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        driver.find_element("css selector", "th[data-column='5'] button").click()
        names = [e.text for e in driver.find_elements("css selector", ".points tbody th")]
        assert names == ["large", "small", "", "large"]  # the filtered one, the one without DER
        driver.find_element("css selector", "tr[data-model=small]").click()
        assert "DER 38.00 %" in driver.find_element("css selector", ".readout").text
        assert [e for e in driver.get_log("browser") if e["level"] == "SEVERE"] == []
    finally:
        driver.quit()
