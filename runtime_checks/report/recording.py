"""One recording as the page draws it, and the data that its script reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..results import Timeline
from .plots import DifferencePlot, difference_plots
from .speech import (
    DrawnRow,
    audio_data_uri,
    draw_rows,
    peak_dbfs,
    waveform_path,
)
from .wording import clock, letter

MAX_AUDIO_S = 3600.0
"""Recordings are embedded up to this length in all; a browser chokes on much more."""

LABELLED_TICKS = 6
TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)


@dataclass(frozen=True)
class RecordingView:
    """A timeline with everything placed; `legend` holds (identity, names by source)."""

    uri: str
    anchor: str
    duration_s: float
    sample_rate_hz: int
    has_reference: bool
    peak_dbfs: float | None
    audio: str | None
    waveform: str
    waveform_bins: int
    identities: int
    rows: tuple[DrawnRow, ...]
    plots: tuple[DifferencePlot, ...]
    legend: tuple[tuple[int, str], ...]
    ticks: tuple[tuple[float, str], ...]


def recording_views(
    timelines: Sequence[Timeline], *, limits: dict[str, float]
) -> list[RecordingView]:
    """Views in the order given; audio is embedded until `MAX_AUDIO_S` is spent."""
    views, embedded_s = [], 0.0
    for index, timeline in enumerate(timelines):
        duration_s = len(timeline.samples) / timeline.sample_rate_hz
        embedded_s += duration_s
        views.append(
            _view(
                timeline,
                anchor=f"recording-{index}",
                duration_s=duration_s,
                limits=limits,
                embed=embedded_s <= MAX_AUDIO_S,
            )
        )
    return views


def _view(
    timeline: Timeline, *, anchor: str, duration_s: float, limits: dict[str, float], embed: bool
) -> RecordingView:
    rows = draw_rows(timeline)
    path, bins = waveform_path(timeline.samples)
    rate = timeline.sample_rate_hz
    identities = 1 + max((t.identity for row in rows for t in row.turns), default=0)
    return RecordingView(
        uri=timeline.uri,
        anchor=anchor,
        duration_s=duration_s,
        sample_rate_hz=rate,
        has_reference=timeline.has_reference,
        peak_dbfs=peak_dbfs(timeline.samples),
        audio=audio_data_uri(timeline.samples, sample_rate_hz=rate) if embed else None,
        waveform=path,
        waveform_bins=bins,
        identities=identities,
        rows=tuple(rows),
        plots=tuple(difference_plots(timeline.rows, duration_s=duration_s, limits=limits)),
        legend=tuple((i, _names(rows, i)) for i in range(identities)),
        ticks=_ticks(duration_s),
    )


def _names(rows: Sequence[DrawnRow], identity: int) -> str:
    """What the first sources call a speaker: `speaker90 (reference), 1 (pytorch)`."""
    names = []
    for row in rows[:2]:
        own = dict.fromkeys(t.speaker for t in row.turns if t.identity == identity)
        names += [f"{name} ({row.source})" for name in own]
    return ", ".join(names)


def _ticks(duration_s: float) -> tuple[tuple[float, str], ...]:
    step = next((s for s in TICK_STEPS_S if duration_s / s <= LABELLED_TICKS), TICK_STEPS_S[-1])
    count = int(duration_s / step)
    return tuple(
        (100 * i * step / duration_s, clock(i * step, tenths_shown=step < 1))
        for i in range(count + 1)
    )


def script_data(views: Sequence[RecordingView]) -> list[dict[str, Any]]:
    """What the page's script needs to tell the values under the pointer."""
    return [
        {
            "uri": view.uri,
            "duration_s": view.duration_s,
            "rows": [
                {
                    "source": row.source,
                    "turns": [[t.start_s, t.end_s, letter(t.identity)] for t in row.turns],
                }
                for row in view.rows
            ],
            "differences": {plot.source: plot.points for plot in view.plots},
        }
        for view in views
    ]
