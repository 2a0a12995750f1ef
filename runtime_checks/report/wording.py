"""How values are written in every kind of report."""

from __future__ import annotations

import math

from export.types import Metric, ParityReport, Rung, RungName, Verdict

RUNG_TITLES = {
    RungName.CONTRACT: "Contract",
    RungName.FEATURES: "Front-end features",
    RungName.SCORES: "Scores",
    RungName.DECISIONS: "Decisions",
    RungName.BOUNDARIES: "Boundaries",
    RungName.DER: "Diarization error",
    RungName.EMBEDDINGS: "Embeddings",
}
VERDICT_WORDS = {
    Verdict.PASS: "PASS",
    Verdict.FAIL: "FAIL",
    Verdict.NOT_RUN: "NOT RUN",
}
VERDICT_SIGNS = {Verdict.PASS: "✓", Verdict.FAIL: "✗", Verdict.NOT_RUN: "–"}
ABBREVIATIONS = {"der", "snr"}
AGAINST_TITLES = {
    "compressed": "the compressed PyTorch model",
    "float": "the float PyTorch model",
}


def number(value: float) -> str:
    """Four significant digits; scientific below a thousandth and from a million on."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}"


def interval(low: float, high: float) -> str:
    """`-0.31 to +0.42`, of differences."""
    return f"{low:+.2f} to {high:+.2f}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{number(value)} {unit}".rstrip()


def limit(metric: Metric) -> str:
    """A metric's limit, in the metric's unit, with its direction; or that it is only reported."""
    if metric.limit is None:
        return "reported only"
    return f"{'≥' if metric.higher_is_better else '≤'} {number(metric.limit)}"


def share_of_limit(metric: Metric) -> float | None:
    """How much of its limit a value uses, 0 to 1 (1: at or over it); None where there is nothing
    to share: no limit, or a limit of zero that is kept."""
    if metric.limit is None or (metric.limit == 0 and metric.passed):
        return None
    used, allowed = abs(metric.value), abs(metric.limit)
    if metric.higher_is_better:
        used, allowed = allowed, used
    if not metric.passed:
        return 1.0
    return min(1.0, used / allowed) if allowed > 0 else 1.0


def metric_name(name: str) -> str:
    """`delta_der` as words: `delta DER`."""
    words = name.split("_")
    return " ".join(word.upper() if word in ABBREVIATIONS else word for word in words)


def size(size_bytes: int) -> str:
    """Bytes in decimal kB or MB, as the field's papers count."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e6:.2f} MB"


def count(value: int) -> str:
    """An integer with its thousands apart."""
    return f"{value:,}"


def clock(seconds: float, *, tenths_shown: bool = True) -> str:
    """`m:ss.s`, or `m:ss`."""
    if not tenths_shown:
        return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths // 10 % 60:02d}.{tenths % 10}"


def letter(identity: int) -> str:
    """Name of a matched speaker in pictures: A, B, ... Z, AA, AB, ..."""
    name = ""
    identity += 1
    while identity:
        identity, digit = divmod(identity - 1, 26)
        name = chr(ord("A") + digit) + name
    return name


def failures(rung: Rung) -> list[str]:
    """One sentence for each metric of a rung that is outside its limit."""
    return [
        f"{metric_name(metric.name)} is {quantity(metric.value, metric.unit)}, "
        f"limit {limit(metric)} {metric.unit}".rstrip()
        for metric in rung.metrics
        if not metric.passed
    ]


def unexplained(report: ParityReport) -> bool:
    """Whether no rung has the verdict that the report has."""
    return all(rung.verdict is not report.verdict for rung in report.rungs)
