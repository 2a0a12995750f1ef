"""A window as the inputs that a model declares. No torch: artifacts are timed without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.types import TensorSpec

Floats = NDArray[np.float32]

WEIGHTS = "weights"
"""The input of embedding models that says which frames are whose."""


def window_inputs(declared: Sequence[TensorSpec], samples: Floats) -> dict[str, Floats]:
    """A window [samples] as the first of the declared inputs, `speaker_weights` where a model takes
    weights, and zeros for all others: states before the window."""
    given = {declared[0].name: samples[None, None]}
    for tensor in declared[1:]:
        shape = tuple(size or 1 for size in tensor.shape)
        if tensor.name == WEIGHTS:
            given[tensor.name] = speaker_weights(speakers=shape[1], frames=shape[2])
        else:
            given[tensor.name] = np.zeros(shape, np.float32)
    return given


def speaker_weights(*, speakers: int, frames: int) -> Floats:
    """Weights [1, speakers, frames] as a segmentation gives them, the same for every window.

    The first speaker has the whole window, the second its middle third, the third a rising share of
    every frame; further ones have a part each, one after the other.
    """
    weights = np.zeros((1, speakers, frames), np.float32)
    for speaker in range(speakers):
        if speaker == 0:
            weights[0, speaker] = 1
        elif speaker == 1:
            weights[0, speaker, frames // 3 : max(2 * frames // 3, frames // 3 + 1)] = 1
        elif speaker == 2:
            weights[0, speaker] = np.linspace(0.1, 1, frames)
        else:
            edges = np.linspace(0, frames, speakers - 2).astype(int)
            weights[0, speaker, edges[speaker - 3] : edges[speaker - 2]] = 1
    return weights


def padded_segment(
    declared: Sequence[TensorSpec], samples: Floats, *, frame_step_samples: int
) -> dict[str, Floats]:
    """A segment shorter than the window, at its start, with weights of one where it is, for the
    first speaker alone. What is longer than the window is cut off."""
    waveform, weights = (np.zeros([n or 1 for n in t.shape], np.float32) for t in declared)
    kept = samples[: waveform.shape[2]]
    waveform[0, 0, : len(kept)] = kept
    weights[0, 0, : len(kept) // frame_step_samples] = 1
    return {declared[0].name: waveform, declared[1].name: weights}
