"""Segmentation that goes on from hop to hop: every frame is scored once, by new audio alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.errors import RecipeError
from export.types import ModelSpec, PipelineParameters, StreamSpec

from ..runners.base import Runner
from ..stateful import StatefulStream
from .stages import Samples, Segment
from .windows import Hop, RollingWindow

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class StatefulSegmentation:
    """An opened stateful artifact, what it takes and gives, and the contract of its model."""

    runner: Runner
    stream: StreamSpec
    spec: ModelSpec

    @property
    def hop_s(self) -> float:
        """Its hop, which is the pipeline's."""
        return self.stream.hop_samples / self.spec.geometry.sample_rate_hz

    def check(self, parameters: PipelineParameters) -> None:
        """Raise `RecipeError` on a pipeline with another hop."""
        rate = self.spec.geometry.sample_rate_hz
        if round(parameters.hop_s * rate) != self.stream.hop_samples:
            raise RecipeError(
                "hop",
                found=f"{parameters.hop_s:g} s",
                expected=f"{self.hop_s:g} s, that of the stateful artifact",
                todo="Leave out --hop-s, or take whole windows: --windowed.",
            )

    def windows(self) -> RollingWindow:
        """The rolling window, which voices are told by; the first ends later by the lead."""
        return RollingWindow(
            window_samples=self.spec.geometry.window_samples,
            hop_samples=self.stream.hop_samples,
            lead_samples=self.stream.lead_samples,
        )

    def begin(self) -> Segment:
        """What scores the hops of one recording, in their order."""
        return RollingScores(self)

    def on_grid(self, hop: Hop) -> Hop:
        """A hop that begins where the first of the window's last frames does: frames lie on the
        recording's own grid, less than a frame's step from where the window begins."""
        geometry = self.spec.geometry
        frames = geometry.num_frames * geometry.frame_step_samples
        return replace(
            hop, start=hop.start + geometry.window_samples - self.stream.lead_samples - frames
        )


class RollingScores:
    """Scores of the last window's frames, of which each call computes those of its own hop."""

    def __init__(self, stateful: StatefulSegmentation) -> None:
        self._run = StatefulStream(stateful.runner, stateful.stream)
        self._scores = nobody(stateful.spec)

    def __call__(self, samples: Samples) -> Scores:
        """Scores [frames, classes] of a window [samples], whose last samples are the new ones."""
        new = self._run.push(samples[-self._run.needs :])
        self._scores = np.concatenate([self._scores[len(new) :], new])
        return self._scores


def nobody(spec: ModelSpec) -> Scores:
    """Scores [frames, classes] of a window in which nobody speaks."""
    scores = np.zeros((spec.geometry.num_frames, spec.outputs[0].shape[2] or 1), np.float32)
    if spec.powerset_max_classes is not None:  # log-probabilities, the first of the empty set
        scores[:, 1:] = np.log(np.finfo(np.float32).tiny)
    return scores
