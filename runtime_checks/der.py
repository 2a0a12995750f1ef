"""Diarization error rate of windows, computed by pyannote.metrics.

Each window is scored alone with its own optimal speaker mapping (the chunk-wise DER of the papers
on on-device models): this measures the segmentation network and not the clustering after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from export.audio import Window
from export.types import DerComparison, DerInterval, DerScore, FrameGeometry

from .parity.decisions import Bools
from .results import Turn
from .rttm import SpeechReference

PARTS = ("false alarm", "missed detection", "confusion")
FEW_STRETCHES = 30  # a percentile interval from fewer is itself too narrow
RESAMPLES = 4000
CONFIDENCE = 0.95
SEED = 0

Floats = NDArray[np.float64]


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

    def compare(
        self, artifact: Sequence[Bools], reference: Sequence[Bools]
    ) -> DerComparison | None:
        """Both scores on the same windows, with the interval of their difference."""
        mine, theirs = self.score(artifact), self.score(reference)
        if mine is None or theirs is None:
            return None
        differences = [
            self.error_s(i, artifact[i]) - self.error_s(i, reference[i]) for i in self.covered
        ]
        speech = [self._window(i, reference[i])["total"] for i in self.covered]
        interval = paired_interval(differences, speech, stretches=self._stretches())
        return DerComparison(artifact=mine, reference=theirs, interval=interval)

    def _stretches(self) -> list[int]:
        """For each covered window the piece of audio that it is in, one window long."""
        window_s = self._geometry.window_s
        places = [
            (window.uri, int(window.start_s / window_s + 1e-6))
            for window in (self._windows[i] for i in self.covered)
        ]
        numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
        return [numbers[place] for place in places]

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


def paired_interval(
    differences_s: ArrayLike, speech_s: ArrayLike, *, stretches: ArrayLike
) -> DerInterval | None:
    """Percentile bootstrap interval of 100 * sum(differences) / sum(speech), in points.

    `differences_s` are seconds of error of an artifact minus its reference's and `speech_s` seconds
    of reference speech, both by window; the pair of a window stays together (a paired bootstrap,
    Efron and Tibshirani 1993, chapter 8). `stretches` numbers the piece of audio of each window:
    whole pieces are drawn, since windows that overlap repeat each other (a block bootstrap, Künsch
    1989; their chapter 8.6). None with fewer than two pieces that hold speech.
    """
    pieces = np.asarray(stretches, np.int64)
    differences: Floats = np.bincount(pieces, differences_s).astype(np.float64)
    speech: Floats = np.bincount(pieces, speech_s).astype(np.float64)
    if np.count_nonzero(speech) < 2:
        return None
    rng = np.random.default_rng(SEED)
    rates = np.concatenate([_resampled(differences, speech, rng) for _ in range(RESAMPLES // 100)])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(rates, [tail, 1 - tail])
    return DerInterval(
        low=float(low), high=float(high), confidence=CONFIDENCE, stretches=len(speech)
    )


def how_sure(interval: DerInterval | None, *, limit: float | None = None) -> str:
    """What the interval of a difference says, and what it leaves open."""
    if interval is None:
        return "one stretch of audio, which gives the difference no interval"
    said = (
        f"{100 * interval.confidence:g} % interval of the difference {interval.low:+.2f} to "
        f"{interval.high:+.2f} points, from {interval.stretches} stretches of audio"
    )
    if interval.stretches < FEW_STRETCHES:
        said += ": few, so the interval is wide and uncertain itself"
    if limit is not None and interval.low <= limit < interval.high:
        said += f"; it holds the limit of {limit:g}, so more audio may decide otherwise"
    return said


def _resampled(differences: Floats, speech: Floats, rng: np.random.Generator) -> Floats:
    """A hundred resampled rates in percent; of a draw without speech, not a number."""
    drawn = rng.integers(len(speech), size=(100, len(speech)))
    spoken = speech[drawn].sum(axis=1)
    missing = np.full(len(spoken), np.nan)
    rates: Floats = np.divide(
        100 * differences[drawn].sum(axis=1), spoken, out=missing, where=spoken > 0
    )
    return rates


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
