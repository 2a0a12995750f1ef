"""JUnit XML and Markdown: what a machine and a pull request read."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from export.types import (
    RUNGS,
    LatencyReport,
    Metric,
    ParityReport,
    Precision,
    Role,
    Rung,
    RungName,
    Verdict,
)
from runtime_checks.report import junit, markdown
from runtime_checks.report.wording import clock, letter, metric_name, number, share_of_limit, size

PTE = "segmentation.fp32.pte"


def _suites(reports: list[ParityReport]) -> dict[str, ET.Element]:
    root = ET.fromstring(junit(reports))
    return {suite.attrib["name"]: suite for suite in root.findall("testsuite")}


def test_junit_has_a_suite_a_comparison_and_a_case_a_rung(reports: list[ParityReport]) -> None:
    root = ET.fromstring(junit(reports))
    assert root.tag == "testsuites"
    assert {k: root.attrib[k] for k in ("tests", "failures", "skipped", "errors")} == {
        "tests": "36",
        "failures": "8",
        "skipped": "16",
        "errors": "0",
    }
    suites = _suites(reports)
    assert len(suites) == 6
    passing = suites["segmentation.fp32.onnx against float"]
    assert [c.attrib["name"] for c in passing.findall("testcase")] == [
        n.value for n in RUNGS[Role.SEGMENTATION]
    ]
    assert (passing.attrib["failures"], passing.attrib["skipped"]) == ("0", "1")


def test_junit_failure_names_metric_value_and_limit(reports: list[ParityReport]) -> None:
    suite = _suites(reports)[f"{PTE} against compressed"]
    failure = suite.find("testcase[@name='scores']/failure")
    assert failure is not None
    assert failure.attrib["message"] == "max abs is 0.31 probability, limit ≤ 1e-4 probability"
    assert failure.text is not None and "worst window sample@10.00s" in failure.text
    properties = {p.attrib["name"]: p.attrib["value"] for p in suite.iter("property")}
    assert properties["first_diverging_layer"] == "recurrent.0"
    assert properties["artifact_sha256"] == "c" * 64


def test_junit_skips_with_the_reason(reports: list[ParityReport]) -> None:
    suite = _suites(reports)["segmentation.fp16.mlpackage against compressed"]
    skipped = suite.findall("testcase/skipped")
    assert len(skipped) == 6
    assert {s.attrib["message"] for s in skipped} == {"Core ML runs on a Mac only; this is Linux"}


@pytest.mark.parametrize(
    ("verdict", "tag"), [(Verdict.FAIL, "failure"), (Verdict.NOT_RUN, "skipped")]
)
def test_junit_keeps_a_verdict_that_no_rung_explains(verdict: Verdict, tag: str) -> None:
    report = ParityReport(
        artifact_path="a.onnx",
        artifact_sha256="0" * 64,
        against="float",
        tolerance=Precision.FP32,
        rungs=(),
        der=None,
        verdict=verdict,
        reason="it does\x00 not <load> & \ud800 more",
    )
    (suite,) = _suites([report]).values()
    found = suite.find(f"testcase[@name='verdict']/{tag}")
    assert found is not None
    # NUL and lone surrogates cannot be written in XML at all.
    assert found.attrib["message"] == "it does� not <load> & � more"


def test_markdown_counts_artifacts_and_tells_what_failed(
    reports: list[ParityReport], latencies: list[LatencyReport]
) -> None:
    text = markdown(reports, latencies)
    assert text.startswith("## diarport: ✅ 1 PASS, ❌ 1 FAIL, ⚪ 1 NOT RUN\n")
    assert "| `segmentation.fp32.onnx` | float | ✅ **PASS** | ✅ 0 | ⚪ | ✅ 2.5e-7 " in text
    assert (
        "- `segmentation.fp32.pte`, diarization error: delta DER is 2.5 points, limit ≤ 0.01 "
        "points (worst window `sample@10.00s`) (against compressed and float)\n"
    ) in text
    assert text.count("Core ML runs on a Mac only") == 1
    assert "| 19.75 % | 17.25 % | +2.50 | 4.00 | 10.75 | 5.00 | 0.25 s, overlap scored |" in text
    assert "| `pytorch-eager` | 1 | 10.00 ms |" in text
    assert "| 1.00 (1.00–1.00) |" in text


def test_markdown_tables_survive_hostile_text(
    reports: list[ParityReport], latencies: list[LatencyReport]
) -> None:
    text = markdown(reports, latencies)
    assert "<script>" not in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        columns = {line.replace("\\|", "").count("|") for line in rows}
        assert len(columns) <= 1, block


def test_markdown_of_nothing_says_so() -> None:
    assert markdown([], []) == "## diarport: nothing was checked\n"


def test_numbers_are_short_and_exact_enough() -> None:
    written = [number(v) for v in (0, 1e-7, 1.234e-5, 0.00123, 12.3456, 1234.5, 2.5e6, -0.5)]
    assert written == ["0", "1e-7", "1.23e-5", "0.00123", "12.35", "1234", "2.5e6", "-0.5"]
    assert [size(v) for v in (999, 1500, 5_990_000)] == ["999 B", "1.5 kB", "5.99 MB"]
    assert [clock(v) for v in (0, 59.96, 61.25)] == ["0:00.0", "1:00.0", "1:01.2"]
    assert [letter(v) for v in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]
    assert metric_name("delta_der") == "delta DER"


@pytest.mark.parametrize(
    ("value", "limit", "higher", "share"),
    [
        (1.0, None, False, None),
        (0.0, 0.0, False, None),
        (0.5, 0.0, False, 1.0),
        (0.25, 1.0, False, 0.25),
        (2.0, 1.0, False, 1.0),
        (80.0, 60.0, True, 0.75),
        (40.0, 60.0, True, 1.0),
    ],
)
def test_share_of_the_limit(
    value: float, limit: float | None, higher: bool, share: float | None
) -> None:
    metric = Metric(name="m", value=value, limit=limit, unit="", higher_is_better=higher)
    assert share_of_limit(metric) == share


def test_a_failed_rung_without_metrics_gives_its_reason() -> None:
    rung = Rung(
        name=RungName.CONTRACT,
        verdict=Verdict.FAIL,
        metrics=(),
        worst_window=None,
        reason="output has 292 frames, expected 293",
    )
    report = ParityReport(
        artifact_path="a.onnx",
        artifact_sha256="0" * 64,
        against="float",
        tolerance=Precision.FP32,
        rungs=(rung,),
        der=None,
        verdict=Verdict.FAIL,
        reason=None,
    )
    (suite,) = _suites([report]).values()
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "output has 292 frames, expected 293"
    assert "contract: output has 292 frames, expected 293 (against float)" in markdown([report], [])
