"""Numbers that a few bits can tell apart: uniform grids and palettes for float weights.

Every function gives float64 values that lie on a grid, of the shape it was given, and each grid is
the one that a converter finds again in these values: the largest value of a row is on the row's
last step, so that rounding them once more to as many bits changes nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Error of tap n given to the taps after it: the error's spectrum is that of (1 - 0.95 / z)^2.
SHAPING = (-1.9, 0.9025)

MOST_ROUNDS = 400


def symmetric(weight: Floats, *, bits: int) -> Floats:
    """A grid through zero for each row (axis 0), as far up as down: -127 to 127 in 8 bits."""
    steps = 2 ** (bits - 1) - 1
    rows = weight.reshape(len(weight), -1)
    scale = np.abs(rows).max(axis=1, keepdims=True) / steps
    made: Floats = (_ratio(rows, scale).round() * scale).reshape(weight.shape)
    return made


def shaped(weight: Floats, *, bits: int) -> Floats:
    """As `symmetric`, for filters of waveforms [channels, 1, taps]: quiet where speech is loud.

    Rounding each tap alone adds white noise to a filter's response, which fills the stopband, where
    the energy of speech is: nearly all below 1 kHz. Here the error of each tap is made good by the
    taps after it (noise shaping: Cutler, "Transmission systems employing quantization", US patent
    2,927,962), which moves it to where speech has little.
    """
    steps = 2 ** (bits - 1) - 1
    rows = weight.reshape(len(weight), -1)
    scale = np.abs(rows).max(axis=1) / steps
    peaks = np.abs(rows).argmax(axis=1)
    made, errors = np.zeros_like(rows), [np.zeros(len(rows))] * len(SHAPING)
    for tap in range(rows.shape[1]):
        wanted = rows[:, tap] + sum(c * e for c, e in zip(SHAPING, errors, strict=True))
        nearest = np.clip(_ratio(wanted, scale).round(), -steps, steps) * scale
        # The peak stays where it is: it tells the grid.
        made[:, tap] = np.where(tap == peaks, rows[:, tap], nearest)
        errors = [made[:, tap] - wanted, *errors[:-1]]
    return made.reshape(weight.shape)


def blocks(weight: Floats, *, bits: int, size: int) -> Floats:
    """A grid that holds zero for every block of `size` values along axis 1, from its smallest value
    to its largest: -8 to 7 in 4 bits, about an offset. Raises ValueError on another width."""
    if weight.ndim != 2 or weight.shape[1] % size:
        raise ValueError(f"no blocks of {size} in a weight of shape {weight.shape}")
    values = weight.reshape(len(weight), -1, size)
    low = values.min(axis=2, keepdims=True).clip(max=0)
    high = values.max(axis=2, keepdims=True).clip(min=0)
    scale = (high - low) / (2**bits - 1)
    half = 2 ** (bits - 1)
    # Halves go up at both ends: to the nearest even number they could go towards each other, and
    # the grid would have a step less than it may.
    offset = -half - np.floor(_ratio(low, scale) + 0.5)
    steps = (np.floor(_ratio(values, scale) + 0.5) + offset).clip(-half, half - 1)
    made: Floats = ((steps - offset) * scale).reshape(weight.shape)
    return made


def palette(weight: Floats, *, bits: int, rows: int) -> Floats:
    """At most 2 ** bits values for each group of `rows` rows: k-means in one dimension.

    From palettes that are even over the range, by Lloyd's iteration ("Least squares quantization
    in PCM", 1982), which on sorted values is a few sums. The same weights give the same palette.
    """
    groups = [weight[i : i + rows] for i in range(0, len(weight), rows)]
    return np.concatenate([_palette(group, 2**bits) for group in groups])


def gathered(values: Floats, *, bits: int) -> Floats:
    """At most 2 ** bits values, of which each stands for a run of neighbours: the means between the
    largest gaps. Of numbers that differ by rounding alone, as a transform's do, the same numbers.
    """
    ordered = np.unique(values)
    if len(ordered) <= 2**bits:
        return values
    gaps = np.sort(np.argsort(np.diff(ordered), kind="stable")[-(2**bits - 1) :])
    means = np.array([run.mean() for run in np.split(ordered, gaps + 1)])
    made: Floats = means[np.searchsorted(ordered[gaps + 1], values, side="right")]
    return made


def divisor(width: int, *, most: int) -> int:
    """The largest divisor of a width that is at most `most`."""
    return max(size for size in range(1, most + 1) if width % size == 0)


def _palette(values: Floats, entries: int) -> Floats:
    ordered = np.sort(values, axis=None)
    if len(np.unique(ordered)) <= entries:
        return values
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.linspace(ordered[0], ordered[-1], entries)
    for _ in range(MOST_ROUNDS):
        borders = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        borders = np.concatenate([[0], borders, [len(ordered)]])
        counts = np.diff(borders)
        means = np.diff(sums[borders]) / np.maximum(counts, 1)
        moved = np.where(counts > 0, means, centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, values)]


def _ratio(values: Floats, scale: Floats) -> Floats:
    """values / scale, and zero where the scale is."""
    return np.divide(
        values, scale, out=np.zeros(np.broadcast_shapes(values.shape, scale.shape)), where=scale > 0
    )
