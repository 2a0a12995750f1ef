"""Whole-file diarization: the same windows, and one clustering of all voices at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.types import PipelineParameters

from ..results import Turn
from .agglomeration import SpeakerCount, Voices, groupings
from .centres import (
    Explanation,
    Heard,
    heard_in,
    price,
    settle,
    total_cost,
    with_one_more,
)
from .decisions import Floats
from .incremental import DOUBT, NOBODY
from .online import DecidedFrames
from .stages import Samples, Stages, WindowSpeech, listen, unit_rows
from .turns import TurnBuilder
from .windows import RollingWindow

MOST_WINDOWS = 1500
"""Windows whose voices are clustered at once; their distances take 72 MB if all have two voices. Of
longer recordings it is every so many windows: they overlap, and say the same thing often."""
FEW_VOICES, ALONE = 20.0, 1.5
"""Voices' worth of doubt (`centres.price`), less than online: the recording is over. And what a
speaker costs who is never heard together with another (`centres.total_cost`)."""
IN_VAIN = 2
"""Numbers of speakers above the best so far that are tried before giving up."""


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
    """The speaker of each slot of each window, [slots] (`NOBODY` where it is not active)."""
    stride = 1 + max(0, len(heard) - 1) // MOST_WINDOWS
    voices = heard_in(heard[::stride], parameters)
    if not len(voices.trust):
        # Nobody speaks alone anywhere: slots are all that is known.
        return [np.where(each.active, np.arange(len(each.active)), NOBODY) for each in heard]
    centres = find_centres(voices, parameters, count=count)
    return [nearest(each, centres, parameters) for each in heard]


def find_centres(heard: Heard, parameters: PipelineParameters, *, count: SpeakerCount) -> Floats:
    """Centres [speakers, dimension] of the speakers of a recording, in the order in which they are
    first heard.

    For every number of speakers the better of two beginnings is settled: the groups of
    agglomerative clustering, and the explanation with a speaker less and one more voice. Of the
    numbers that are allowed it is the one with the least `centres.total_cost`.
    """
    low = count.exactly or count.at_least
    high = count.exactly or count.at_most or max(low, parameters.max_speakers)
    windows, places = np.nonzero(heard.trust)
    embeddings = heard.embeddings[windows, places]
    groups = groupings(Voices(embeddings, windows), parameters)
    paid = price(heard, parameters, few=FEW_VOICES)
    tried: list[Explanation] = []
    for number in range(1, high + 1):
        begins = [with_one_more(heard, tried[-1])] if tried else []
        if number in groups or not tried:
            labels = groups.get(number, np.zeros(len(embeddings), np.int64))
            begins.append(settle(heard, _means(embeddings, labels)))
        tried.append(min(begins, key=lambda each: each.cost))
        totals = [total_cost(each, paid=paid, alone=ALONE) for each in tried[low - 1 :]]
        if totals and len(totals) > 1 + IN_VAIN + int(np.argmin(totals)):
            break
    return _in_order(tried[low - 1 + int(np.argmin(totals))])


def _means(embeddings: Floats, labels: NDArray[np.int64]) -> Floats:
    return np.stack([embeddings[labels == each].mean(axis=0) for each in range(labels.max() + 1)])


def _in_order(found: Explanation) -> Floats:
    """Centres in the order in which they are first heard; those that are never heard last."""
    owners = found.owners[found.owners >= 0]
    first = list(dict.fromkeys(int(each) for each in owners))
    return found.centres[[*first, *(k for k in range(len(found.centres)) if k not in first)]]


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
        distances = 1 - speech.embeddings[slots] @ unit_rows(centres).T
        trust = np.clip(speech.clean_s[slots] / parameters.trusted_s, DOUBT, 1)
        rows, columns = linear_sum_assignment(trust[:, None] * distances)
        found[slots[rows]] = columns
    return found
