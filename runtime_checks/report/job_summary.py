"""GitHub-flavoured Markdown for a job summary or a pull-request comment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from export.types import DerComparison, LatencyReport, ParityReport, Rung, RungName, Verdict

from ..timing.statistics import find_baseline, ratio, summarise
from .wording import (
    RUNG_TITLES,
    VERDICT_WORDS,
    failures,
    interval,
    quantity,
    unexplained,
)

SYMBOLS = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.NOT_RUN: "⚪"}


def markdown(reports: Sequence[ParityReport], latencies: Sequence[LatencyReport]) -> str:
    """Verdicts by artifact and rung, what failed and what did not run, DER and timing."""
    parts = ["## diarport: " + _headline(reports), ""]
    parts += _verdicts(reports)
    parts += _reasons(reports)
    parts += _der(reports)
    parts += _timing(latencies)
    return "\n".join(parts).rstrip() + "\n"


def _headline(reports: Sequence[ParityReport]) -> str:
    by_artifact: dict[str, list[Verdict]] = {}
    for report in reports:
        by_artifact.setdefault(report.artifact_path, []).append(report.verdict)
    verdicts = [Verdict.worst(each) for each in by_artifact.values()]
    if not verdicts:
        return "nothing was checked"
    counted = ((verdict, verdicts.count(verdict)) for verdict in Verdict)
    return ", ".join(f"{SYMBOLS[v]} {n} {VERDICT_WORDS[v]}" for v, n in counted if n)


def _verdicts(reports: Sequence[ParityReport]) -> list[str]:
    rows = []
    climbed = {rung.name for report in reports for rung in report.rungs}
    names = [name for name in RungName if name in climbed]
    for report in reports:
        by_name = {rung.name: rung for rung in report.rungs}
        cells = [_rung_cell(by_name.get(name)) for name in names]
        verdict = f"{SYMBOLS[report.verdict]} **{VERDICT_WORDS[report.verdict]}**"
        rows.append([_code(report.artifact_path), report.against, verdict, *cells])
    titles = [RUNG_TITLES[name] for name in names]
    return _table(["Artifact", "Against", "Verdict", *titles], rows) if rows else []


def _rung_cell(rung: Rung | None) -> str:
    if rung is None:
        return ""
    limited = [metric for metric in rung.metrics if metric.limit is not None]
    shown = (limited or list(rung.metrics))[:1]
    return " ".join([SYMBOLS[rung.verdict], *(_text(quantity(m.value, m.unit)) for m in shown)])


def _reasons(reports: Sequence[ParityReport]) -> list[str]:
    """What failed and what did not run; what both comparisons say alike is said once."""
    failed: dict[str, list[str]] = {}
    skipped: dict[str, list[str]] = {}
    for report in reports:
        name = _code(report.artifact_path)
        if report.verdict is Verdict.NOT_RUN:
            line = f"{name}: {_text(report.reason or 'no rung was run')}"
            skipped.setdefault(line, []).append(report.against)
            continue
        for rung in report.rungs:
            title = f"{name}, {RUNG_TITLES[rung.name].lower()}"
            if rung.verdict is Verdict.FAIL:
                why = "; ".join(failures(rung)) or rung.reason or "failed"
                window = f" (worst window {_code(rung.worst_window)})" if rung.worst_window else ""
                line = f"{title}: {_text(why)}{window}"
                failed.setdefault(line, []).append(report.against)
            elif rung.verdict is Verdict.NOT_RUN:
                line = f"{title}: {_text(rung.reason or '')}"
                skipped.setdefault(line, []).append(report.against)
        if unexplained(report) and report.verdict is Verdict.FAIL:
            line = f"{name}: {_text(report.reason or 'failed')}"
            failed.setdefault(line, []).append(report.against)
        if report.first_diverging_layer:
            line = f"{name}: first diverging layer {_code(report.first_diverging_layer)}"
            failed.setdefault(line, []).append(report.against)
    parts = []
    for title, lines in (("What failed", failed), ("What did not run", skipped)):
        if lines:
            found = [f"- {line} (against {' and '.join(each)})" for line, each in lines.items()]
            parts += [f"### {title}", "", *found, ""]
    return parts


def _der(reports: Sequence[ParityReport]) -> list[str]:
    rows = []
    for report in reports:
        if report.der is None:
            continue
        own, other = report.der.artifact, report.der.reference
        rows.append(
            [
                _code(report.artifact_path),
                report.against,
                f"{own.pooled:.2f} %",
                f"{other.pooled:.2f} %",
                _difference(report.der),
                f"{own.false_alarm:.2f}",
                f"{own.missed_detection:.2f}",
                f"{own.confusion:.2f}",
                f"{own.collar_s:g} s, overlap {'skipped' if own.skip_overlap else 'scored'}",
            ]
        )
    header = ["Artifact", "Against", "DER", "PyTorch", "Difference", "False alarm", "Missed"]
    header += ["Confusion", "Collar"]
    return ["### Diarization error rate", "", *_table(header, rows)] if rows else []


def _difference(der: DerComparison) -> str:
    found = der.interval
    return f"{der.delta:+.2f}" + (f" ({interval(found.low, found.high)})" if found else "")


def _timing(latencies: Sequence[LatencyReport]) -> list[str]:
    rows = []
    for report in latencies:
        summary, baseline = summarise(report), find_baseline(report, latencies)
        to_eager = ratio(report, baseline) if baseline else None
        row = [_code(report.candidate), str(report.threads)]
        if summary:
            found = summary.all
            row += [f"{found.p50_ms:.2f} ms", f"{found.p95_ms:.2f} ms", f"{found.cv * 100:.1f} %"]
            row.append(f"{found.real_time_factor:.3g}")
        else:
            row += [_text(report.failures[0] if report.failures else "no runs"), "", "", ""]
        share = f"{to_eager.value:.2f} ({to_eager.low:.2f}–{to_eager.high:.2f})" if to_eager else ""
        rows.append([*row, share])
    header = ["Candidate", "Threads", "p50", "p95", "CV", "Real-time factor", "Ratio to eager"]
    if not rows:
        return []
    device = _text(latencies[0].device)
    note = f"{device}; ratios of medians within this run, with their 95 % bootstrap interval."
    return ["### Time", "", note, "", *_table(header, rows)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _text(text: str) -> str:
    """Text that neither Markdown nor HTML nor a table cell can be broken with."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$@])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Inline code in a table cell; backticks cannot be escaped in code and are replaced."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"
