"""The online pipeline: audio in as it comes, who speaks out as soon as the latency allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.errors import RecipeError
from export.types import PipelineParameters

from ..parity.decisions import Bools
from ..results import Turn
from .aggregation import Placed, first_frame, frames_before, mean_scores, voted_scores
from .decisions import Floats, hysteresis
from .incremental import IncrementalClustering
from .stages import Samples, Stages, WindowSpeech, listen
from .stateful import StatefulSegmentation
from .turns import TurnBuilder
from .windows import Hop, RollingWindow


@dataclass(frozen=True)
class Decision:
    """What one hop decided: who speaks from `from_s` to `until_s`.

    `speaking` are turns cut to that interval, `ended` the whole turns that ended in it. `active`
    holds its frames [frames, max_speakers]. `assignment` is the speaker of each slot of the window
    (-1: none). `heard_s` is how much was heard by then. The last decision of a recording, which
    decides what is left at its end, has no window of its own: its times are zero.
    """

    index: int
    heard_s: float
    from_s: float
    until_s: float
    speaking: tuple[Turn, ...]
    ended: tuple[Turn, ...]
    active: Bools
    assignment: tuple[int, ...]
    segmentation_ms: float
    embedding_ms: float
    clustering_ms: float


class DecidedFrames:
    """Windows that are assigned in, frames that are decided out: aggregation and thresholds.

    A window is kept until its last frame is decided; until then `reassign` may change whose its
    slots are. `scored_once` says that all windows have the same score of a frame, so that only
    whose it is has to be found. A frame that no window holds (a window has none at its very edges)
    is like the one before it.
    """

    def __init__(
        self,
        stages: Stages,
        parameters: PipelineParameters,
        *,
        speakers: int,
        scored_once: bool = False,
    ) -> None:
        self._geometry, self._parameters = stages.spec.geometry, parameters
        self._speakers = speakers
        hamming: Floats = np.hamming(self._geometry.num_frames).astype(np.float64)
        self._weights: Floats = hamming**parameters.hamming_power
        self._scores_of = voted_scores if scored_once else mean_scores
        self._windows: list[tuple[WindowSpeech, Placed]] = []
        self._taken = 0
        self._last: Floats = np.zeros(speakers)
        self._before: Bools = np.zeros(speakers, np.bool_)

    def add(self, speech: WindowSpeech, assignment: NDArray[np.int64]) -> None:
        """Add a window."""
        first = first_frame(speech.start, self._geometry)
        self._windows.append((speech, Placed(first, speech.scores, assignment)))

    def reassign(self, label: Callable[[WindowSpeech], NDArray[np.int64]]) -> None:
        """Let `label` say anew who speaks in the windows that hold frames not decided yet."""
        self._windows = [
            (speech, replace(placed, columns=label(speech))) for speech, placed in self._windows
        ]

    def until(self, sample: int) -> Bools:
        """Who speaks in the frames up to a sample that were not given before."""
        begin, end = self._taken, max(self._taken, frames_before(sample, self._geometry))
        scores, held = self._scores_of(
            [placed for _, placed in self._windows],
            begin=begin,
            end=end,
            weights=self._weights,
            columns=self._speakers,
        )
        for frame in np.flatnonzero(~held):
            scores[frame] = scores[frame - 1] if frame else self._last
        active = hysteresis(
            scores,
            onset=self._parameters.tau_active,
            offset=self._parameters.tau_inactive,
            before=self._before,
        )
        if end > begin:
            self._last, self._before = scores[-1], active[-1]
        self._taken = end
        frames = self._geometry.num_frames
        self._windows = [each for each in self._windows if each[1].first + frames > end]
        return active


def check_times(parameters: PipelineParameters, *, window_s: float) -> None:
    """Raise `RecipeError` unless hop <= latency <= window: what is decided lies in a window."""
    hop_s, latency_s = parameters.hop_s, parameters.latency_s
    if not hop_s <= latency_s <= window_s:
        raise RecipeError(
            "latency",
            found=f"{latency_s:g} s with a hop of {hop_s:g} s",
            expected=f"from a hop to a window of {window_s:g} s",
            todo="Choose another --latency-s or --hop-s.",
        )


class OnlineDiarizer:
    """Decides, after every hop, the hop that lies `latency_s` back (Coria et al. 2021, section 2).

    What it has decided never changes; what is not decided yet follows from what is known by now,
    however long ago it was heard. Memory and time of a hop do not depend on how much was heard
    before, but for one centre a speaker.

    With a `stateful` segmentation a hop scores its own frames only, once and for all. What a longer
    latency then buys is whose voice they are: more windows have been compared by then.
    """

    def __init__(
        self,
        stages: Stages,
        parameters: PipelineParameters,
        *,
        stateful: StatefulSegmentation | None = None,
    ) -> None:
        geometry = stages.spec.geometry
        check_times(parameters, window_s=geometry.window_s)
        self._stages, self._parameters, self._stateful = stages, parameters, stateful
        self._rate = geometry.sample_rate_hz
        self._hop = round(parameters.hop_s * self._rate)
        self._latency = round(parameters.latency_s * self._rate)
        self._windows = RollingWindow(window_samples=geometry.window_samples, hop_samples=self._hop)
        if stateful is not None:
            stateful.check(parameters)
            self._windows = stateful.windows()
            self._stages = replace(stages, segment=stateful.begin())
        self.clustering = IncrementalClustering(parameters)
        self._frames = DecidedFrames(
            stages,
            parameters,
            speakers=parameters.max_speakers,
            scored_once=stateful is not None,
        )
        self._turns = TurnBuilder(geometry)
        self._decided, self._heard, self._index = 0, 0, 0

    def push(self, samples: Samples) -> Iterator[Decision]:
        """What these samples (float32 [any number]) let decide: one decision a hop."""
        for hop in self._windows.push(samples):
            yield self._hear(hop)

    def finish(self) -> Iterator[Decision]:
        """Decide the rest and end all turns; afterwards the diarizer is done."""
        for hop in self._windows.finish():
            yield self._hear(hop)
        if self._heard:
            yield self._decide(None, until=self._heard, last=True)

    def take(self, speech: WindowSpeech) -> Decision:
        """Decide with the next window, of whoever listened to it."""
        return self._decide(speech, until=speech.end - self._latency + self._hop)

    def _hear(self, hop: Hop) -> Decision:
        hop = hop if self._stateful is None else self._stateful.on_grid(hop)
        return self.take(listen(hop, self._stages, self._parameters))

    def open_turns(self) -> list[Turn]:
        """Turns that are decided up to now and go on."""
        return self._turns.open_turns()

    def _decide(self, speech: WindowSpeech | None, *, until: int, last: bool = False) -> Decision:
        begin = time.perf_counter()
        assignment: NDArray[np.int64] = np.zeros(0, np.int64)
        if speech is not None:
            assignment = self.clustering.assign(speech)
            self._frames.add(speech, assignment)
            self._frames.reassign(self.clustering.label)
            self._heard = speech.end
        until = max(self._decided, until)
        active = self._frames.until(until)
        speaking, ended = self._turns.add(active)
        if last:
            ended += self._turns.finish()
        from_s, self._decided = self._decided / self._rate, until
        self._index += 1
        return Decision(
            index=self._index - 1,
            heard_s=self._heard / self._rate,
            from_s=from_s,
            until_s=until / self._rate,
            speaking=tuple(speaking),
            ended=tuple(ended),
            active=active,
            assignment=tuple(int(each) for each in assignment),
            segmentation_ms=speech.segmentation_ms if speech else 0.0,
            embedding_ms=speech.embedding_ms if speech else 0.0,
            clustering_ms=1000 * (time.perf_counter() - begin),
        )
