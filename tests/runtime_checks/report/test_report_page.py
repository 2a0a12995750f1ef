"""The report's text, without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from export.types import BundleContent, DerInterval, Metric, ParityReport, Rung, Verdict
from runtime_checks.report import markdown, render_html, write_html
from runtime_checks.report.der_view import der_tables
from runtime_checks.report.view import artifact_views, headline, overall, score_limits


def test_the_same_arguments_give_the_same_text(contents: dict[str, Any]) -> None:
    """But for the audio: its container numbers streams at random."""
    first, second = (
        re.sub(r'src="data:audio/[^"]*"', "", render_html(**contents)) for _ in range(2)
    )
    assert first == second


def test_data_cannot_end_its_script_block(contents: dict[str, Any]) -> None:
    text = render_html(**contents)
    blocks = re.findall(r'<script type="application/json" id="report-data">(.*?)</script>', text)
    (data,) = (json.loads(block) for block in blocks)
    assert data[1]["uri"].startswith("<b></script><script>")
    assert data[0]["duration_s"] == 30.0
    assert [row["source"] for row in data[0]["rows"]] == [
        row.source for row in contents["timelines"][0].rows
    ]
    assert "<script>document.title" not in text
    assert len(re.findall(r"<script\b", text)) == 2


def test_a_failed_write_leaves_the_report_that_was_there(
    tmp_path: Path, contents: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("the one before")

    def full(self: Path, text: str, encoding: str) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_html(path, **contents)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "the one before"


def test_an_unchecked_bundle_is_never_a_pass(bundle: BundleContent) -> None:
    bare = bundle.model_copy(update={"parity": ()})
    views = artifact_views(bare, [])
    assert [view.verdict for view in views] == [Verdict.NOT_RUN] * 3
    assert overall(views) == (Verdict.NOT_RUN, "NOT RUN")
    assert headline(views) == "0 of 3 artifacts pass, 3 did not run"
    text = render_html(bundle=bare, reports=[], timelines=[], latencies=[], notes=[])
    assert "it was not checked" in text and "Nothing was timed." in text


def test_a_pass_with_gaps_says_so(bundle: BundleContent, reports: list[ParityReport]) -> None:
    views = artifact_views(bundle, [r for r in reports if not r.artifact_path.endswith(".pte")])
    assert [view.verdict for view in views] == [Verdict.PASS, Verdict.NOT_RUN, Verdict.NOT_RUN]
    assert overall(views) == (Verdict.NOT_RUN, "PASS, WITH GAPS")


def test_limits_come_from_the_scores_rung(reports: list[ParityReport]) -> None:
    assert score_limits(reports) == {
        "segmentation.fp32.onnx": 1e-4,
        "segmentation.fp32.pte": 1e-4,
    }


def test_one_der_table_a_setting(reports: list[ParityReport]) -> None:
    (table,) = der_tables(reports)
    assert [row.source for row in table.rows] == [
        "PyTorch, compressed",
        "PyTorch, float",
        "segmentation.fp32.onnx",
        "segmentation.fp32.pte",
    ]
    deltas = {against: each.delta for against, each in table.rows[3].deltas.items()}
    assert deltas == {"compressed": 2.5, "float": 2.5}
    assert table.stretches is None
    first = reports[0]
    assert first.der is not None
    strict = first.der.artifact.model_copy(update={"collar_s": 0.0})
    other = first.model_copy(update={"der": first.der.model_copy(update={"artifact": strict})})
    assert [each.collar_s for each in der_tables([*reports, other])] == [0.25, 0.0]


@pytest.mark.parametrize(("stretches", "word"), [(12, "few"), (40, "stretches of audio.")])
def test_the_interval_of_a_difference_is_shown_with_what_it_is_from(
    contents: dict[str, Any], stretches: int, word: str
) -> None:
    interval = DerInterval(low=-0.4, high=3.25, confidence=0.95, stretches=stretches)
    reports = [
        report.model_copy(update={"der": report.der.model_copy(update={"interval": interval})})
        for report in contents["reports"]
        if report.der
    ]
    page = render_html(**(contents | {"reports": reports}))
    assert "<small>-0.40 to +3.25</small>" in page
    assert f"over {stretches} stretches of audio" in page and word in page
    assert "+2.50 (-0.40 to +3.25)" in " ".join(markdown(reports, ()).split())


def test_comparisons_that_disagree_are_told_apart(
    bundle: BundleContent, reports: list[ParityReport]
) -> None:
    passing, failing = reports[0], reports[3].model_copy(update={"reason": "too far"})
    mixed = failing.model_copy(update={"artifact_path": passing.artifact_path, "tolerance": "fp16"})
    view = artifact_views(bundle, [passing, mixed])[0]
    assert view.verdict is Verdict.FAIL
    assert view.reasons == ["Against the float PyTorch model: too far"]
    assert view.diverging == {"recurrent.0": "the float PyTorch model"}


def test_a_metric_of_one_comparison_only_has_its_row(
    bundle: BundleContent, reports: list[ParityReport]
) -> None:
    extra = Metric(name="swaps", value=3.0, limit=None, unit="windows", higher_is_better=False)
    rungs = tuple(
        Rung(**{**dict(rung), "metrics": (*rung.metrics, extra)})
        if rung.name == "decisions"
        else rung
        for rung in reports[0].rungs
    )
    changed = reports[0].model_copy(update={"rungs": rungs})
    text = render_html(
        bundle=bundle, reports=[changed, reports[1]], timelines=[], latencies=[], notes=[]
    )
    row = text.split('<tr data-metric="swaps">')[1].split("</tr>")[0]
    assert "<small>windows</small>" in row and row.count("<td") == 6
