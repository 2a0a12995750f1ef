"""Diarization error rate of windows, computed by pyannote.metrics.

Each window is scored alone with its own optimal speaker mapping (the chunk-wise DER of the papers
on on-device models): this measures the segmentation network and not the clustering after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.audio import Window
from export.types import DerScore, FrameGeometry

from .parity.decisions import Bools
from .results import Turn
from .rttm import SpeechReference

PARTS = ("false alarm", "missed detection", "confusion")


@dataclass(frozen=True)
class DerSettings:
    """`collar_s` is removed in all around each reference boundary (half on either side); with
    `skip_overlap` regions where the reference has several speakers are not scored."""

    collar_s: float = 0.0
    skip_overlap: bool = False

    def __str__(self) -> str:
        overlap = "not scored" if self.skip_overlap else "scored"
        return f"collar {self.collar_s:g} s, overlapped speech {overlap}"


def turns_of(
    decisions: Bools, geometry: FrameGeometry, *, start_s: float, names: Sequence[str]
) -> list[Turn]:
    """Turns of frame decisions [frames, speakers]; frame i lasts half a step around its centre."""
    turns = []
    half = geometry.frame_step_s / 2
    for active, name in zip(decisions.T, names, strict=True):
        steps = np.diff(active.astype(np.int8), prepend=0, append=0)
        onsets, offsets = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
        for onset, offset in zip(onsets, offsets, strict=True):
            begin = geometry.frame_center_s(int(onset)) - half
            end = geometry.frame_center_s(int(offset) - 1) + half
            turns.append(Turn(start_s + begin, start_s + end, name))
    return turns


class DerScorer:
    """Scores decisions on the windows that a reference covers.

    Identical decisions on a window are scored once, since faithful artifacts repeat them.
    """

    def __init__(
        self,
        reference: SpeechReference,
        windows: Sequence[Window],
        *,
        geometry: FrameGeometry,
        settings: DerSettings | None = None,
    ) -> None:
        from pyannote.metrics.diarization import DiarizationErrorRate

        self.settings = settings or DerSettings()
        self._geometry = geometry
        self._reference, self._windows = reference, windows
        self.covered = [i for i, window in enumerate(windows) if reference.covers(window.uri)]
        self._metric: Any = DiarizationErrorRate(
            collar=self.settings.collar_s, skip_overlap=self.settings.skip_overlap
        )
        self._cache: dict[tuple[int, bytes], dict[str, float]] = {}

    def score(self, decisions: Sequence[Bools]) -> DerScore | None:
        """DER of the decisions [frames, speakers] of all windows; None without reference speech.

        `pooled` and its parts count every covered window. `window_mean` is over the windows with
        reference speech: a rate over no speech is undefined, and false alarms there are in
        `pooled` alone.
        """
        details = [self._window(index, decisions[index]) for index in self.covered]
        speech = sum(detail["total"] for detail in details)
        if speech <= 0:
            return None
        spoken = [detail for detail in details if detail["total"] > 0]
        false_alarm, missed, confusion = (
            100 * sum(detail[part] for detail in details) / speech for part in PARTS
        )
        rates = [sum(detail[part] for part in PARTS) / detail["total"] for detail in spoken]
        return DerScore(
            pooled=false_alarm + missed + confusion,
            window_mean=100 * float(np.mean(rates)),
            false_alarm=false_alarm,
            missed_detection=missed,
            confusion=confusion,
            reference_speech_s=speech,
            num_windows=len(spoken),
            collar_s=self.settings.collar_s,
            skip_overlap=self.settings.skip_overlap,
        )

    def error_s(self, index: int, decisions: Bools) -> float:
        """Seconds of error on one covered window."""
        detail = self._window(index, decisions)
        return sum(detail[part] for part in PARTS)

    def _window(self, index: int, decisions: Bools) -> dict[str, float]:
        key = (index, np.packbits(decisions).tobytes())
        if key not in self._cache:
            self._cache[key] = self._compute(self._windows[index], decisions)
        return self._cache[key]

    def _compute(self, window: Window, decisions: Bools) -> dict[str, float]:
        extent = (
            window.start_s,
            window.start_s + window.valid_samples / self._geometry.sample_rate_hz,
        )
        names = [str(speaker) for speaker in range(decisions.shape[1])]
        turns = turns_of(decisions, self._geometry, start_s=window.start_s, names=names)
        scored = self._reference.scored.get(window.uri, (extent,))
        detail = self._metric.compute_components(
            annotation(self._reference.turns[window.uri]),
            annotation(turns),
            uem=_timeline([part for each in scored if (part := _overlap(each, extent))]),
        )
        return {str(name): float(value) for name, value in detail.items()}


def annotation(turns: Sequence[Turn]) -> Any:
    """Turns as pyannote.core's Annotation; turns of one speaker may overlap."""
    from pyannote.core import Annotation, Segment

    made = Annotation()
    for track, turn in enumerate(turns):
        made[Segment(turn.start_s, turn.end_s), track] = turn.speaker
    return made.support()


def _timeline(intervals: Sequence[tuple[float, float]]) -> Any:
    from pyannote.core import Segment, Timeline

    return Timeline([Segment(*interval) for interval in intervals])


def _overlap(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float] | None:
    start, end = max(first[0], second[0]), min(first[1], second[1])
    return (start, end) if end > start else None
