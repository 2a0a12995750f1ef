"""From scores to who speaks: probabilities a speaker, and thresholds with hysteresis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.types import ModelSpec

from ..parity.decisions import Bools, probabilities, speaker_sets

Floats = NDArray[np.float64]


def speaker_probabilities(scores: NDArray[np.floating], spec: ModelSpec) -> Floats:
    """Probability that each speaker slot speaks, [frames, speakers], from [frames, classes].

    Of a powerset model it is the sum over the sets that hold the speaker (Plaquet and Bredin
    2023, equation 3).
    """
    values = probabilities(scores, spec)
    if spec.powerset_max_classes is None:
        return values
    return values @ speaker_sets(spec).astype(np.float64)


def hysteresis(
    scores: Floats, *, onset: float, offset: float, before: Bools | None = None
) -> Bools:
    """Active from where a score reaches `onset` until it falls below `offset`.

    `scores` is [frames, speakers] and `before` [speakers] tells who was active in the frame before
    the first (nobody). Gelly and Gauvain, "Minimum word error training of RNN-based voice activity
    detection" (2015), as in pyannote.audio's Binarize.
    """
    frames, speakers = scores.shape
    state = np.zeros(speakers, dtype=np.bool_) if before is None else before
    rises, stays = scores >= onset, scores >= offset
    # The state of a frame is that of the last frame that settled it, either way.
    settled = rises | ~stays
    last = np.where(settled, np.arange(1, frames + 1)[:, None], 0)
    last = np.maximum.accumulate(last, axis=0)
    padded = np.concatenate([state[None], rises & stays])
    result: Bools = np.take_along_axis(padded, last, axis=0)
    return result
