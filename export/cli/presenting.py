"""What `build` and `check` show of their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ..errors import ExitCode, RecipeError
from ..types import Artifact, DerComparison, DerScore, LatencyReport, ParityReport, Rung, Verdict
from .common import print_table, say

if TYPE_CHECKING:
    from runtime_checks.check import CheckResult

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.NOT_RUN: "yellow"}


def parse_limits(given: Sequence[str] | None) -> dict[str, object]:
    """`NAME=NUMBER` options (or NAME=null) as a table; the names are checked by the ladder."""
    limits: dict[str, object] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        try:
            limits[name.strip()] = None if value.strip() == "null" else float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise RecipeError(
                f"--limit {text}", found="not understood", expected="NAME=NUMBER or NAME=null"
            )
    return limits


def exit_code(verdict: Verdict) -> ExitCode:
    """1 when something failed. What could not run here fails nothing: it is shown as not run."""
    return ExitCode.PARITY_FAILED if verdict is Verdict.FAIL else ExitCode.OK


def artifact_rows(
    artifacts: Sequence[Artifact], checked: CheckResult, latencies: Sequence[LatencyReport]
) -> list[dict[str, Any]]:
    """One row an artifact: verdict, size, distance in scores and DER, median time and its ratio."""
    from runtime_checks.timing.statistics import find_baseline, ratio, statistics

    summaries = {summary.artifact_path: summary for summary in checked.summaries}
    timed = {report.candidate: report for report in latencies if report.samples_ms}
    rows = []
    for artifact in artifacts:
        summary, time = summaries[artifact.path], timed.get(artifact.path)
        baseline = find_baseline(time, latencies) if time else None
        share = ratio(time, baseline) if time and baseline else None
        compared = _der(checked.reports, artifact.path)
        rows.append(
            {
                "artifact": artifact.path,
                "verdict": summary.verdict.value,
                "reason": summary.reason or "",
                "size_bytes": artifact.size_bytes,
                "max_abs": _metric(checked.reports, artifact.path, "max_abs"),
                "delta_der": compared.delta if compared else None,
                "delta_der_interval": _bounds(compared),
                "p50_ms": statistics(time.samples_ms, hop_s=time.hop_s).p50_ms if time else None,
                "ratio_to_eager": share.value if share else None,
            }
        )
    return rows


def show_result(
    artifacts: Sequence[Artifact],
    checked: CheckResult,
    *,
    latencies: Sequence[LatencyReport] = (),
    quiet: bool,
) -> None:
    """Table of artifacts, what failed and why, DER of the reference, notes."""
    failed = [line for report in checked.reports for line in _failures(report)]
    if not quiet:
        rows = artifact_rows(artifacts, checked, latencies)
        print_table("Artifacts", [_readable(row) for row in rows])
        for row in rows:
            if row["verdict"] == Verdict.NOT_RUN.value:
                say(f"NOT_RUN {row['artifact']}: {row['reason']}")
        if checked.reference_der:
            say(f"PyTorch: {der_line(checked.reference_der)}")
        for note in checked.notes:
            say(f"note: {note}")
    for line in failed:
        typer.secho(line, fg="red", err=True)


def der_line(score: DerScore) -> str:
    """DER with its parts and the settings it was computed with."""
    overlap = "not scored" if score.skip_overlap else "scored"
    return (
        f"DER {score.pooled:.2f} % pooled, {score.window_mean:.2f} % mean over "
        f"{score.num_windows} windows (false alarm {score.false_alarm:.2f}, "
        f"missed {score.missed_detection:.2f}, confusion {score.confusion:.2f}; "
        f"collar {score.collar_s:g} s, overlap {overlap})"
    )


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    style = STYLES[Verdict(row["verdict"])]
    time, share, distance = row["p50_ms"], row["ratio_to_eager"], row["max_abs"]
    return {
        "artifact": row["artifact"],
        "verdict": f"[{style}]{row['verdict']}[/]",
        "size MB": f"{row['size_bytes'] / 1e6:.2f}",
        "max-abs": "" if distance is None else f"{distance:.1e}",
        "delta DER": _difference(row),
        "p50 ms": "" if time is None else f"{time:.2f}",
        "of eager": "" if share is None else f"{share:.2f}",
    }


def _difference(row: Mapping[str, Any]) -> str:
    """`-0.04 (-0.31 to +0.12)`: points, with the interval where there is one."""
    if row["delta_der"] is None:
        return ""
    bounds = row["delta_der_interval"]
    return f"{row['delta_der']:+.2f}" + (
        f" ({bounds[0]:+.2f} to {bounds[1]:+.2f})" if bounds else ""
    )


def _der(reports: Sequence[ParityReport], path: str) -> DerComparison | None:
    """An artifact's DER beside the float model's."""
    found = (r.der for r in reports if r.artifact_path == path and r.against == "float")
    return next(found, None)


def _bounds(compared: DerComparison | None) -> list[float] | None:
    return (
        [compared.interval.low, compared.interval.high] if compared and compared.interval else None
    )


def _metric(reports: Sequence[ParityReport], path: str, name: str) -> float | None:
    for report in reports:
        if report.artifact_path == path and report.against == "float":
            for rung in report.rungs:
                for metric in rung.metrics:
                    if metric.name == name:
                        return metric.value
    return None


def _failures(report: ParityReport) -> list[str]:
    lines = [
        f"FAIL {report.artifact_path} against {report.against}, {rung.name.value}: {_why(rung)}"
        for rung in report.rungs
        if rung.verdict is Verdict.FAIL
    ]
    if lines and report.first_diverging_layer:
        lines.append(f"     first diverging layer: {report.first_diverging_layer}")
    return lines


def _why(rung: Rung) -> str:
    missed = [
        f"{m.name} {m.value:.3g} {m.unit} (limit {m.limit:.3g})"
        for m in rung.metrics
        if m.limit is not None and not m.passed
    ]
    where = f", worst in {rung.worst_window}" if rung.worst_window else ""
    return "; ".join(missed or [rung.reason or "failed"]) + where
