"""Whole-file diarization: the same windows, and one clustering of all voices at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.types import PipelineParameters

from ..results import Turn
from .agglomeration import SpeakerCount, Voices, cluster
from .decisions import Floats
from .incremental import DOUBT, NOBODY
from .online import DecidedFrames
from .stages import Samples, Stages, WindowSpeech, listen
from .turns import TurnBuilder
from .windows import RollingWindow

MOST_VOICES = 2000
"""Voices that are clustered at once; their distances take 32 MB."""
ROUNDS = 2


class WholeFileDiarizer:
    """Listens to a recording to its end and then says who spoke when."""

    def __init__(self, stages: Stages, parameters: PipelineParameters) -> None:
        geometry = stages.spec.geometry
        self._stages, self._parameters = stages, parameters
        self._windows = RollingWindow(
            window_samples=geometry.window_samples,
            hop_samples=round(parameters.hop_s * geometry.sample_rate_hz),
        )
        self.heard: list[WindowSpeech] = []

    def push(self, samples: Samples) -> None:
        """Listen to more samples, float32 [any number]."""
        for hop in self._windows.push(samples):
            self.heard.append(_kept(listen(hop, self._stages, self._parameters)))

    def finish(self, count: SpeakerCount | None = None) -> list[Turn]:
        """Turns of the whole recording, in order of time."""
        for hop in self._windows.finish():
            self.heard.append(_kept(listen(hop, self._stages, self._parameters)))
        assignments = assign_all(self.heard, self._parameters, count=count or SpeakerCount())
        return turns_of_windows(self.heard, assignments, self._stages, self._parameters)


def _kept(speech: WindowSpeech) -> WindowSpeech:
    """What is kept of a window until the end, in float32: of an hour some 50 MB."""
    scores, embeddings = speech.scores.astype(np.float32), speech.embeddings.astype(np.float32)
    return replace(speech, scores=scores, embeddings=embeddings)


def turns_of_windows(
    heard: Sequence[WindowSpeech],
    assignments: Sequence[NDArray[np.int64]],
    stages: Stages,
    parameters: PipelineParameters,
) -> list[Turn]:
    """Turns of windows whose slots are assigned; each frame counts once all its windows are in."""
    speakers = 1 + max((int(each.max()) for each in assignments), default=NOBODY)
    frames = DecidedFrames(stages, parameters, speakers=max(1, speakers))
    builder = TurnBuilder(stages.spec.geometry)
    turns: list[Turn] = []
    for index, (speech, assignment) in enumerate(zip(heard, assignments, strict=True)):
        frames.add(speech, assignment)
        following = heard[index + 1].start if index + 1 < len(heard) else speech.end
        turns += builder.add(frames.until(following))[1]
    return sorted([*turns, *builder.finish()], key=lambda turn: (turn.start_s, turn.speaker))


def assign_all(
    heard: Sequence[WindowSpeech], parameters: PipelineParameters, *, count: SpeakerCount
) -> list[NDArray[np.int64]]:
    """The speaker of each slot of each window, [slots] (`NOBODY` where it is not active).

    Voices with enough clean speech are clustered; then every window's slots go to the nearest
    speakers, no two to one, and speakers are moved to the mean of what they were given.
    """
    voices = collect_voices(heard, parameters)
    if not len(voices.embeddings):
        # Nobody speaks alone for long enough anywhere: slots are all that is known.
        return [np.where(each.active, np.arange(len(each.active)), NOBODY) for each in heard]
    labels = cluster(voices, parameters, count=count)
    centres = [voices.embeddings[labels == label].mean(axis=0) for label in range(labels.max() + 1)]
    for _ in range(ROUNDS):
        assignments = [nearest(each, np.stack(centres), parameters) for each in heard]
        centres = _moved(heard, assignments, centres, parameters)
    return assignments


def collect_voices(heard: Sequence[WindowSpeech], parameters: PipelineParameters) -> Voices:
    """Slots with clean speech enough for a speaker to be founded on, every so many windows.

    The stride is the smallest with which no more than `MOST_VOICES` remain: windows overlap, and
    long recordings say the same thing often. Where no slot has so much clean speech, as in a
    recording of a second, those with the most are taken.
    """
    slots = [
        (index, int(slot))
        for index, each in enumerate(heard)
        for slot in np.flatnonzero(each.active & (each.clean_s > 0))
    ]
    enough = [(i, s) for i, s in slots if heard[i].clean_s[s] >= parameters.new_s]
    if not enough and slots:
        most = max(heard[i].clean_s[s] for i, s in slots)
        enough = [(i, s) for i, s in slots if heard[i].clean_s[s] >= most / 2]
    stride = 1
    while sum(i % stride == 0 for i, _ in enough) > MOST_VOICES:
        stride += 1
    chosen = [(i, s) for i, s in enough if i % stride == 0]
    if not chosen:
        return Voices(np.zeros((0, 0)), np.zeros(0, np.int64))
    return Voices(
        embeddings=np.stack([heard[i].embeddings[s] for i, s in chosen]),
        windows=np.array([i for i, _ in chosen], np.int64),
    )


def nearest(
    speech: WindowSpeech, centres: Floats, parameters: PipelineParameters
) -> NDArray[np.int64]:
    """The speakers of a window's slots, [slots], by distance from `centres` [speakers, dimension].

    Together the nearest, no two slots the same; distances count by how much clean speech they are
    of. A slot that nobody is left for is `NOBODY`'s.
    """
    found = np.full(len(speech.active), NOBODY, np.int64)
    slots = np.flatnonzero(speech.active)
    if len(slots):
        lengths = np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
        distances = 1 - speech.embeddings[slots] @ (centres / lengths).T
        trust = np.clip(speech.clean_s[slots] / parameters.trusted_s, DOUBT, 1)
        rows, columns = linear_sum_assignment(trust[:, None] * distances)
        found[slots[rows]] = columns
    return found


def _moved(
    heard: Sequence[WindowSpeech],
    assignments: Sequence[NDArray[np.int64]],
    centres: Sequence[Floats],
    parameters: PipelineParameters,
) -> list[Floats]:
    """Means of the embeddings that speakers were given; who was given none stays."""
    sums = [np.zeros_like(centre) for centre in centres]
    for speech, assignment in zip(heard, assignments, strict=True):
        for slot in np.flatnonzero(speech.clean_s >= parameters.rho_update_s):
            if assignment[slot] != NOBODY:
                sums[assignment[slot]] += speech.embeddings[slot]
    return [total if total.any() else old for total, old in zip(sums, centres, strict=True)]
