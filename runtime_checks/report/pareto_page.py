"""The trade-off as a page: a plot to explore, a table to sort; nothing is fetched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.types import Verdict

from ..pareto import ParetoRecord, Point
from . import wording
from .plots import round_step
from .rendering import environment, replace_text, script_hash, source

STYLES = ("base.css", "recording.css", "tables.css", "pareto.css")
SCRIPTS = ("pareto.js",)
WIDTH, HEIGHT = 960, 500
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 26, 52
COLOURS = 8
SHAPES = ("circle", "square", "triangle", "diamond")
OUTLINES = {
    "circle": "M-6,0a6,6 0 1,0 12,0a6,6 0 1,0 -12,0z",
    "square": "M-5.5,-5.5h11v11h-11z",
    "triangle": "M0,-7L7,5.5H-7z",
    "diamond": "M0,-7.5L7.5,0L0,7.5L-7.5,0z",
}


@dataclass(frozen=True)
class Axis:
    """A cost on the horizontal axis, logarithmic: how it is named, read and written."""

    key: str
    label: str
    of: Callable[[Point], float]
    text: Callable[[float], str]


AXES = (
    Axis(
        "time",
        "time, of PyTorch eager of {baseline}",
        lambda p: p.time.value if p.time else 0,
        "{:.3g}".format,
    ),
    Axis("size", "size, MB", lambda p: p.size_bytes / 1e6, "{:.3g}".format),
)


@dataclass(frozen=True)
class Mark:
    """A point where it lies: `x` by axis and `y` in units of the plot, with what it is drawn as."""

    index: int
    point: Point
    x: dict[str, float]
    y: float
    colour: int
    outline: str
    label: str


@dataclass(frozen=True)
class Scale:
    """One horizontal axis: ticks (place, label), the line of what nothing beats in it and DER."""

    key: str
    label: str
    ticks: tuple[tuple[float, str], ...]
    front: str


@dataclass(frozen=True)
class Plot:
    """All that the plot draws; `y_ticks` are (place, label in percent)."""

    marks: tuple[Mark, ...]
    scales: tuple[Scale, ...]
    y_ticks: tuple[tuple[float, str], ...]
    baseline_y: float | None


def write_pareto_html(path: Path, record: ParetoRecord) -> None:
    """Write the page, replacing what is there in one step. Raises OSError on a full disk."""
    replace_text(path, render_pareto_html(record))


def render_pareto_html(record: ParetoRecord) -> str:
    """The page's text."""
    templates = environment()
    templates.globals |= {"w": wording, "Verdict": Verdict}
    script = source(SCRIPTS)
    models, backends, recipes = (
        sorted({getattr(point, key) for point in record.points})
        for key in ("model", "backend", "recipe")
    )
    return templates.get_template("pareto.html.j2").render(
        record=record,
        plot=plot_of(record),
        figures=[figures(point) for point in record.points],
        filters={"model": models, "backend": backends, "recipe": recipes},
        colours={model: index % COLOURS for index, model in enumerate(models)},
        outlines={b: OUTLINES[SHAPES[i % len(SHAPES)]] for i, b in enumerate(backends)},
        best=sum(point.non_dominated for point in record.points),
        box={"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM},
        width=WIDTH,
        height=HEIGHT,
        style=source(STYLES),
        script=script,
        script_hash=script_hash(script),
    )


def plot_of(record: ParetoRecord) -> Plot:
    """Where every point lies that is known in error, size and time."""
    shown = [(i, p) for i, p in enumerate(record.points) if p.der is not None and p.time]
    models = sorted({point.model for point in record.points})
    backends = sorted({point.backend for point in record.points})
    errors = [point.der.pooled for _, point in shown if point.der]
    if record.baseline_der:
        errors.append(record.baseline_der.pooled)
    height, y_ticks = _linear(errors, low=HEIGHT - BOTTOM, high=TOP)
    places = {a.key: _logarithmic([a.of(p) for _, p in shown], a.text) for a in AXES}
    labelled: set[str] = set()
    marks = []
    for index, point in shown:
        assert point.der is not None  # noqa: S101 - shown only with it
        label = point.model if point.non_dominated and point.model not in labelled else ""
        labelled.add(label)
        marks.append(
            Mark(
                index=index,
                point=point,
                x={a.key: places[a.key][0](a.of(point)) for a in AXES},
                y=height(point.der.pooled),
                colour=models.index(point.model) % COLOURS,
                outline=OUTLINES[SHAPES[backends.index(point.backend) % len(SHAPES)]],
                label=label,
            )
        )
    compared = [mark for mark in marks if mark.point.costs is not None]
    scales = tuple(
        Scale(
            key=axis.key,
            label=axis.label.format(baseline=record.baseline),
            ticks=places[axis.key][1],
            front=_front([(mark.x[axis.key], mark.y) for mark in compared]),
        )
        for axis in AXES
    )
    baseline_y = height(record.baseline_der.pooled) if record.baseline_der else None
    return Plot(tuple(marks), scales, y_ticks, baseline_y)


def _linear(
    values: Sequence[float], *, low: float, high: float
) -> tuple[Callable[[float], float], tuple[tuple[float, str], ...]]:
    """A scale from a round number below the values to one above, and its ticks."""
    least, most = min(values, default=0.0), max(values, default=1.0)
    step = round_step(max(most - least, 1.0) / 5)
    start, end = math.floor(least / step - 0.2), math.ceil(most / step + 0.2)

    def place(value: float) -> float:
        return round(low + (value / step - start) / (end - start) * (high - low), 2)

    return place, tuple((place(n * step), f"{n * step:g} %") for n in range(start, end + 1))


def _logarithmic(
    values: Sequence[float], text: Callable[[float], str]
) -> tuple[Callable[[float], float], tuple[tuple[float, str], ...]]:
    """A logarithmic scale over the values with ticks at 1, 2 and 5 times powers of ten."""
    least, most = min(values, default=1.0), max(values, default=1.0)
    low, high = math.log10(least) - 0.08, math.log10(most) + 0.08

    def place(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return round(LEFT + share * (WIDTH - RIGHT - LEFT), 2)

    decades = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        rounds = [f * 10.0**e for e in decades for f in factors]
        ticks = [value for value in rounds if low <= math.log10(value) <= high]
        if len(ticks) >= 3:
            break
    return place, tuple((place(value), text(value)) for value in ticks)


def _front(places: Sequence[tuple[float, float]]) -> str:
    """The steps along what nothing to the left lies below (y grows downwards), as an SVG path."""
    path, lowest = "", -math.inf
    for x, y in sorted(places, key=lambda place: (place[0], -place[1])):
        if y > lowest:
            path += f"H{x:g}V{y:g}" if path else f"M{x:g},{y:g}"
            lowest = y
    return f"{path}H{WIDTH - RIGHT}" if path else ""


def figures(point: Point) -> dict[str, str]:
    """One row of the table, in words."""
    time = point.time
    return {
        "model": point.model,
        "backend": point.backend,
        "recipe": point.recipe,
        "parity": wording.VERDICT_WORDS[point.verdict],
        "DER": f"{point.der.pooled:.2f} %" if point.der else "not measured",
        "size": wording.size(point.size_bytes),
        "time": f"{time.value:.3f} ({time.low:.3f}-{time.high:.3f})" if time else "not timed",
        "p50 ms": "" if point.p50_ms is None else f"{point.p50_ms:.2f}",
    }


def markdown_table(record: ParetoRecord) -> str:
    """The table as Markdown, with what it was measured on; what nothing beats is in bold."""
    rows = [figures(point) for point in record.points]
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for point, row in zip(record.points, rows, strict=True):
        cells = [f"**{cell}**" if point.non_dominated and cell else cell for cell in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", measured_on(record)]
    reasons = {f"{p.backend}: {reason}" for p in record.points for reason in p.reasons}
    lines += ["", *(f"- {reason}" for reason in sorted(reasons))] if reasons else []
    return "\n".join(lines) + "\n"


def measured_on(record: ParetoRecord) -> str:
    """A sentence each on the audio, the times and the marks."""
    scored = next((point.der for point in record.points if point.der), None)
    rule = ""
    if scored:
        overlap = "not scored" if scored.skip_overlap else "scored"
        rule = (
            f", pooled over {scored.num_windows} windows with speech, each with its own best "
            f"mapping of speakers, collar {scored.collar_s:g} s, overlapped speech {overlap}"
        )
    count = len(record.recordings)
    number = "1 recording" if count == 1 else f"{count} recordings"
    plural = "" if record.threads == 1 else "s"
    own = ""
    if record.baseline_der:
        own = f" (DER {record.baseline_der.pooled:.2f} %)"
    return (
        f"DER of {number} ({', '.join(record.recordings)}; {record.audio_s:.0f} s), windows of "
        f"{record.window_s:g} s every {record.hop_s:g} s{rule}. Time is the median of "
        f"{record.runs} runs over that of PyTorch eager of {record.baseline}{own} in the same "
        f"interleaved run, with its 95 % interval, {record.threads} thread{plural}, "
        f"{record.device}. In bold: no other artifact that was measured is as good in DER, size "
        "and time and better in one."
    )
