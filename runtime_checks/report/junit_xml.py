"""JUnit XML for continuous integration: one suite a comparison, one case a rung."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from export.types import ParityReport, Rung, Verdict

from .wording import failures, limit, quantity, unexplained

# XML 1.0 has no way at all to write these.
FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(reports: Sequence[ParityReport]) -> str:
    """JUnit XML text of parity reports.

    A rung that failed is a failure with metric, value and limit; one that did not run is skipped
    with its reason. A verdict that no rung explains becomes a case of its own, so that it is
    never lost.
    """
    root = ET.Element("testsuites", {"name": "diarport"})
    totals = {"tests": 0, "failures": 0, "skipped": 0}
    for report in reports:
        suite = _suite(report)
        for key in totals:
            totals[key] += int(suite.attrib[key])
        root.append(suite)
    for key, count in totals.items():
        root.set(key, str(count))
    root.set("errors", "0")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(report: ParityReport) -> ET.Element:
    name = _clean(f"{report.artifact_path} against {report.against}")
    cases = [_rung_case(rung, suite=name) for rung in report.rungs]
    if unexplained(report):
        cases.append(_verdict_case(report, suite=name))
    suite = ET.Element(
        "testsuite",
        {
            "name": name,
            "tests": str(len(cases)),
            "failures": str(sum(case.find("failure") is not None for case in cases)),
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
            "errors": "0",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in {
        "artifact_sha256": report.artifact_sha256,
        "tolerance": report.tolerance.value,
        "verdict": report.verdict.value,
        "first_diverging_layer": report.first_diverging_layer,
    }.items():
        if value:
            ET.SubElement(properties, "property", {"name": key, "value": _clean(value)})
    suite.extend(cases)
    return suite


def _rung_case(rung: Rung, *, suite: str) -> ET.Element:
    case = ET.Element("testcase", {"classname": suite, "name": rung.name.value})
    reasons = failures(rung) or [rung.reason or "no metric is outside its limit"]
    if rung.verdict is Verdict.FAIL:
        message = _clean("; ".join(reasons))
        failure = ET.SubElement(case, "failure", {"type": "parity", "message": message})
        details = [*reasons, *([rung.reason] if rung.reason else [])]
        if rung.worst_window:
            details.append(f"worst window {rung.worst_window}")
        failure.text = _clean("\n".join(dict.fromkeys(details)))
    elif rung.verdict is Verdict.NOT_RUN:
        ET.SubElement(case, "skipped", {"message": _clean(rung.reason or "")})
    if rung.metrics:
        lines = [
            f"{metric.name} = {quantity(metric.value, metric.unit)} ({limit(metric)})"
            for metric in rung.metrics
        ]
        ET.SubElement(case, "system-out").text = _clean("\n".join(lines))
    return case


def _verdict_case(report: ParityReport, *, suite: str) -> ET.Element:
    case = ET.Element("testcase", {"classname": suite, "name": "verdict"})
    reason = _clean(report.reason or "no rung was run")
    if report.verdict is Verdict.FAIL:
        ET.SubElement(case, "failure", {"type": "parity", "message": reason})
    elif report.verdict is Verdict.NOT_RUN:
        ET.SubElement(case, "skipped", {"message": reason})
    return case


def _clean(text: str) -> str:
    return FORBIDDEN.sub("�", text)
