"""Which frames of a window an embedding of each speaker is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST_WEIGHT = 1e-8


def overlap_aware_weights(scores: Floats, *, gamma: float, beta: float) -> Floats:
    """Weights [speakers, frames] that are low where others speak, from scores [frames, speakers].

    Coria et al. 2021, equations 2 and 3: `w = s^gamma * softmax(beta * s)^gamma`, the softmax over
    the speakers of a frame.
    """
    exponents = beta * (scores - scores.max(axis=1, keepdims=True))
    shares = np.exp(exponents)
    shares /= shares.sum(axis=1, keepdims=True)
    weights: Floats = np.maximum((scores * shares) ** gamma, SMALLEST_WEIGHT).T
    return weights


def clean_frames(scores: Floats, *, tau: float) -> NDArray[np.bool_]:
    """Where one speaker speaks and nobody else, [frames, speakers]."""
    active = scores >= tau
    clean: NDArray[np.bool_] = active & (active.sum(axis=1, keepdims=True) == 1)
    return clean
