"""Which layers lower precision hurts, as a page: bars to compare, a table to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..sensitivity import LayerLoss, Loss, SensitivityRecord, gains, rows_of
from . import wording
from .plots import round_step
from .rendering import environment, replace_text, source

STYLES = ("base.css", "tables.css", "sensitivity.css")
WIDTH, ROW, TOP, BOTTOM = 960, 26, 48, 10
NAMES = 214  # the column of names, before the bars
GAP = 64  # for the figure behind the longest bar, before the next chart
FLIPS = (NAMES, 560)
DER = (FLIPS[1] + GAP, WIDTH - 14)


@dataclass(frozen=True)
class Scale:
    """Values from low to high over a part of the plot's width."""

    low: float
    high: float
    across: tuple[float, float]

    def place(self, value: float) -> float:
        """Where a value lies."""
        start, end = self.across
        return round(start + (value - self.low) / (self.high - self.low) * (end - start), 2)

    def ticks(self, label: str) -> tuple[tuple[float, str], ...]:
        """Places and labels of round numbers, five or so."""
        step = round_step((self.high - self.low) / 6)
        numbers = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return tuple((self.place(n * step), label.format(n * step) if n else "0") for n in numbers)


@dataclass(frozen=True)
class Bar:
    """One row of the chart, in units of the plot: how long the bar of decision flips is, where the
    change of DER and the ends of its interval lie (None where nothing was scored)."""

    row: LayerLoss
    y: float
    flips: float
    der: float | None
    ends: tuple[float, float] | None
    together: bool


@dataclass(frozen=True)
class Chart:
    """Bars under each other, with the ticks (place, label) of both scales; `zero` is where no
    change of DER lies, None where nothing was scored."""

    bars: tuple[Bar, ...]
    height: float
    flip_ticks: tuple[tuple[float, str], ...]
    der_ticks: tuple[tuple[float, str], ...]
    zero: float | None


def write_sensitivity_html(path: Path, record: SensitivityRecord) -> None:
    """Write the page, replacing what is there in one step. Raises OSError on a full disk."""
    replace_text(path, render_sensitivity_html(record))


def render_sensitivity_html(record: SensitivityRecord) -> str:
    """The page's text."""
    templates = environment()
    templates.globals |= {"w": wording}
    return templates.get_template("sensitivity.html.j2").render(
        record=record,
        gains=gains(record),
        chart=chart_of(record),
        width=WIDTH,
        top=TOP,
        row=ROW,
        names=NAMES,
        flips=FLIPS,
        der=DER,
        style=source(STYLES),
    )


def chart_of(record: SensitivityRecord) -> Chart:
    """Where every bar lies; layers first, then what is lowered together."""
    rows = rows_of(record)
    most = max(row.loss.decision_flips for row in rows)
    flips = Scale(0.0, max(most, 0.01) * 1.001, FLIPS)
    der = _der_scale([row.loss for row in rows])
    bars = []
    for index, row in enumerate(rows):
        together = index >= len(record.layers)
        interval = row.loss.delta_der_interval
        bars.append(
            Bar(
                row=row,
                y=TOP + index * ROW + (ROW / 2 if together else 0),
                flips=round(flips.place(row.loss.decision_flips) - FLIPS[0], 2),
                der=der.place(row.loss.delta_der)
                if der and row.loss.delta_der is not None
                else None,
                ends=(der.place(interval.low), der.place(interval.high))
                if der and interval
                else None,
                together=together,
            )
        )
    return Chart(
        bars=tuple(bars),
        height=bars[-1].y + ROW + BOTTOM,
        flip_ticks=flips.ticks("{:g} %"),
        der_ticks=der.ticks("{:+g}") if der else (),
        zero=der.place(0.0) if der else None,
    )


def _der_scale(losses: Sequence[Loss]) -> Scale | None:
    """From the lowest end of an interval to the highest, zero among them."""
    values = [loss.delta_der for loss in losses if loss.delta_der is not None]
    if not values:
        return None
    intervals = [loss.delta_der_interval for loss in losses if loss.delta_der_interval]
    values += [end for each in intervals for end in (each.low, each.high)]
    low, high = min(*values, 0.0), max(*values, 0.0)
    margin = max(high - low, 0.02) * 0.04
    return Scale(low - margin, high + margin, DER)
