"""A pipeline of artifacts beside the one of PyTorch: the same audio, hop by hop in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.audio import Recording
from export.progress import Progress, silent
from export.types import PipelineParameters, Precision, Verdict

from ..der import DerSettings, annotation
from ..results import Turn
from ..rttm import SpeechReference
from .agglomeration import SpeakerCount
from .online import OnlineDiarizer
from .stages import Stages, WindowSpeech, listen
from .whole import assign_all, turns_of_windows
from .windows import RollingWindow

MODES = ("online", "whole file")
LIMITS = {Precision.FP32: 0.1}
OTHER_LIMIT = 1.0
"""Percent of DER by which an artifact pipeline may differ from PyTorch's."""
PARTS = ("segmentation", "embedding", "clustering")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of every hop by part, [hops] each."""

    parts: dict[str, NDArray[np.float64]]

    def percentile(self, part: str, percent: float) -> float:
        """Of one part, or of `hop`, all of them together."""
        values = sum(self.parts.values()) if part == "hop" else self.parts[part]
        return float(np.percentile(values, percent))


@dataclass(frozen=True)
class ModeComparison:
    """One mode over all recordings, DER in percent, pooled.

    `artifact_der` and `pytorch_der` are against the reference (None without one);
    `between_der` is the artifacts' against PyTorch's turns. `speakers` are (artifacts, PyTorch) by
    recording. The verdict is that of the difference of the DERs, or of `between_der` without a
    reference.
    """

    mode: str
    artifact_der: float | None
    pytorch_der: float | None
    between_der: float
    speakers: dict[str, tuple[int, int]]
    limit: float

    @property
    def difference(self) -> float:
        """What is held against the limit."""
        if self.artifact_der is None or self.pytorch_der is None:
            return self.between_der
        return abs(self.artifact_der - self.pytorch_der)

    @property
    def verdict(self) -> Verdict:
        """Whether the artifacts decide as PyTorch does."""
        return Verdict.PASS if self.difference <= self.limit else Verdict.FAIL


@dataclass(frozen=True)
class PipelineComparison:
    """Both modes, and what a hop costs with artifacts and with PyTorch, in turns in one run."""

    modes: tuple[ModeComparison, ...]
    artifact: Latency
    pytorch: Latency

    @property
    def verdict(self) -> Verdict:
        """The worst of the modes."""
        return Verdict.worst([mode.verdict for mode in self.modes])


@dataclass
class _Side:
    """One of the two pipelines while it listens."""

    stages: Stages
    times: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    turns: dict[tuple[str, str], list[Turn]] = field(default_factory=dict)

    def latency(self) -> Latency:
        return Latency({part: np.array(values) for part, values in self.times.items()})


def compare_pipelines(
    artifact: Stages,
    pytorch: Stages,
    *,
    parameters: PipelineParameters,
    tolerance: Precision,
    recordings: Sequence[Recording],
    speech: SpeechReference | None,
    settings: DerSettings,
    progress: Progress = silent,
) -> PipelineComparison:
    """Run both pipelines over the recordings, online and whole, and compare what they say."""
    sides = (_Side(artifact), _Side(pytorch))
    for done, recording in enumerate(recordings):
        progress("pipelines", done, len(recordings))
        _run(recording, sides, parameters)
    progress("pipelines", len(recordings), len(recordings))
    limit = LIMITS.get(tolerance, OTHER_LIMIT)
    modes = tuple(
        _compare(mode, sides, recordings, speech=speech, settings=settings, limit=limit)
        for mode in MODES
    )
    return PipelineComparison(modes, sides[0].latency(), sides[1].latency())


def _run(recording: Recording, sides: tuple[_Side, _Side], parameters: PipelineParameters) -> None:
    geometry = sides[0].stages.spec.geometry
    rolling = RollingWindow(
        window_samples=geometry.window_samples,
        hop_samples=round(parameters.hop_s * geometry.sample_rate_hz),
    )
    online = [OnlineDiarizer(side.stages, parameters) for side in sides]
    heard: list[list[WindowSpeech]] = [[], []]
    ended: list[list[Turn]] = [[], []]
    for hop in [*rolling.push(recording.samples), *rolling.finish()]:
        # In turns: whoever comes second finds warm caches, and that evens out.
        for which in (0, 1) if hop.index % 2 else (1, 0):
            window = listen(hop, sides[which].stages, parameters)
            decision = online[which].take(window)
            heard[which].append(window)
            ended[which] += decision.ended
            if hop.index:  # the first hop of a recording is a cold one
                for part in PARTS:
                    sides[which].times[part].append(getattr(decision, f"{part}_ms"))
    for which, side in enumerate(sides):
        for decision in online[which].finish():
            ended[which] += decision.ended
        side.turns["online", recording.uri] = ended[which]
        assignments = assign_all(heard[which], parameters, count=SpeakerCount())
        side.turns["whole file", recording.uri] = turns_of_windows(
            heard[which], assignments, side.stages, parameters
        )


def _compare(
    mode: str,
    sides: tuple[_Side, _Side],
    recordings: Sequence[Recording],
    *,
    speech: SpeechReference | None,
    settings: DerSettings,
    limit: float,
) -> ModeComparison:
    mine, theirs = ({r.uri: side.turns[mode, r.uri] for r in recordings} for side in sides)
    covered = [r for r in recordings if speech is not None and speech.covers(r.uri)]
    truth = {r.uri: speech.turns[r.uri] for r in covered} if speech else {}
    scored = speech.scored if speech else {}
    return ModeComparison(
        mode=mode,
        artifact_der=pooled_der(truth, mine, covered, settings=settings, scored=scored),
        pytorch_der=pooled_der(truth, theirs, covered, settings=settings, scored=scored),
        between_der=pooled_der(theirs, mine, recordings, settings=settings) or 0.0,
        speakers={r.uri: (_people(mine[r.uri]), _people(theirs[r.uri])) for r in recordings},
        limit=limit,
    )


def _people(turns: Sequence[Turn]) -> int:
    return len({turn.speaker for turn in turns})


def pooled_der(
    reference: dict[str, Any],
    hypothesis: dict[str, list[Turn]],
    recordings: Sequence[Recording],
    *,
    settings: DerSettings,
    scored: dict[str, tuple[tuple[float, float], ...]] | None = None,
) -> float | None:
    """DER in percent of turns against turns by recording; None where nothing is said.

    Where the reference says nothing and the hypothesis does, all of it is error: 100 % of what was
    said in place of a rate over nothing.
    """
    from pyannote.core import Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    metric = DiarizationErrorRate(collar=settings.collar_s, skip_overlap=settings.skip_overlap)
    errors_s = total_s = 0.0
    for recording in recordings:
        parts = (scored or {}).get(recording.uri, ((0.0, recording.duration_s),))
        detail = metric.compute_components(
            annotation(reference[recording.uri]),
            annotation(hypothesis[recording.uri]),
            uem=Timeline([Segment(*part) for part in parts]),
        )
        errors_s += sum(detail[p] for p in ("false alarm", "missed detection", "confusion"))
        total_s += detail["total"]
    if not total_s:
        return 100.0 if errors_s and recordings else None
    return 100 * errors_s / total_s
