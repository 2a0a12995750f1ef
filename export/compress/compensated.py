"""Rounding whose errors cancel on the inputs that a layer really has.

Rounding each weight to the nearest step minimises the error of weights, not of what they give. Here
the error of each weight is made good by the weights that are rounded after it, as far as their
inputs go together, which in neighbouring taps of a convolution they do: Frantar et al., "GPTQ:
accurate post-training quantization for generative pre-trained transformers", 2023, algorithm 1,
without its blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAMPING = 0.01
"""Share of the mean variance that is added to each, so that inputs never seen do no harm."""


def compensated(weight: Floats, scales: Floats, covariance: Floats, *, largest: int) -> Floats:
    """`weight` [out, in] on the grid of `scales` [out], -largest to largest steps, for inputs of a
    `covariance` [in, in]."""
    size = len(covariance)
    damping = DAMPING * float(np.trace(covariance)) / size or 1.0
    factors = np.linalg.cholesky(np.linalg.inv(covariance + damping * np.eye(size))).T
    left, made = weight.copy(), np.zeros_like(weight)
    for column in range(size):
        steps = np.clip(np.round(left[:, column] / scales), -largest, largest)
        made[:, column] = steps * scales
        error = (left[:, column] - made[:, column]) / factors[column, column]
        left[:, column + 1 :] -= np.outer(error, factors[column, column + 1 :])
    return made
