"""A stateful artifact from hop to hop, and as if it took a whole window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from export.types import Initial, StreamSpec, TensorSpec

from .runners.base import Arrays, Judging, Noting, Runner

Floats = NDArray[np.float32]


class StatefulStream:
    """One recording through a stateful artifact; a new one for every recording."""

    def __init__(self, runner: Runner, stream: StreamSpec) -> None:
        self._runner, self._stream = runner, stream
        self._states: dict[str, Floats] | None = None

    @property
    def needs(self) -> int:
        """How many samples the next hop takes: the first one takes the lead too."""
        lead = self._stream.lead_samples if self._states is None else 0
        return self._stream.hop_samples + lead

    def push(self, samples: Floats) -> Floats:
        """Scores float32 [hop_frames, classes] of the next `needs` samples, float32 [samples]."""
        stream = self._stream
        if len(samples) != self.needs:
            raise ValueError(f"{len(samples)} samples, the next hop takes {self.needs}")
        if self._states is None:
            self._states = initial_states(stream, samples[: stream.lead_samples])
            samples = samples[stream.lead_samples :]
        given = {stream.inputs[0].name: np.ascontiguousarray(samples)[None, None]}
        found = self._runner.run({**given, **self._states})
        self._states = {state.input: found[state.output] for state in stream.states}
        scores: Floats = found[stream.outputs[0].name][0]
        return scores


def initial_states(stream: StreamSpec, lead: Floats) -> dict[str, Floats]:
    """States before a recording that begins with the samples `lead`."""
    shapes = {tensor.name: tuple(size or 1 for size in tensor.shape) for tensor in stream.inputs}
    return {
        state.input: (
            np.ascontiguousarray(lead, np.float32).reshape(shapes[state.input])
            if state.initial is Initial.AUDIO
            else np.zeros(shapes[state.input], np.float32)
        )
        for state in stream.states
    }


class StreamedWindows:
    """A runner of windows [1, 1, samples] that goes through each of them hop by hop.

    What follows a window are zeros: no frame sees what comes after it.
    """

    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None

    def __init__(self, runner: Runner, stream: StreamSpec, *, num_frames: int) -> None:
        self._runner, self._stream, self._frames = runner, stream, num_frames

    def run(self, inputs: Mapping[str, Floats]) -> Arrays:
        """Scores [1, num_frames, classes] of the one window."""
        (window,) = inputs.values()
        run, samples = StatefulStream(self._runner, self._stream), window[0, 0]
        scores, taken = list[Floats](), 0
        while len(scores) * self._stream.hop_frames < self._frames:
            piece = samples[taken : taken + run.needs]
            taken += run.needs
            scores.append(run.push(np.pad(piece, (0, run.needs - len(piece)))))
        return {self._stream.outputs[0].name: np.concatenate(scores)[None, : self._frames]}

    def taps(self, inputs: Mapping[str, Floats], layers: Sequence[str]) -> None:
        """None: the layers of one hop are no layers of a window."""
        return

    def faults(self) -> tuple[str, ...]:
        """What the artifact's own runner found at fault."""
        return self._runner.faults() if isinstance(self._runner, Judging) else ()

    def notes(self) -> tuple[str, ...]:
        """What the artifact's own runner has to tell."""
        return self._runner.notes() if isinstance(self._runner, Noting) else ()
