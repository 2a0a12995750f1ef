"""Simulated rooms: impulse responses by the image source method of pyroomacoustics.

Scheibler, Bezzam and Dokmanić, "Pyroomacoustics: a Python package for audio room simulation and
array processing algorithms" (ICASSP 2018); image sources: Allen and Berkley, "Image method for
efficiently simulating small-room acoustics" (1979).
"""

from __future__ import annotations

import numpy as np
import pyroomacoustics as pra
from numpy.typing import NDArray
from scipy.signal import oaconvolve

Samples = NDArray[np.float32]

# From an office to a large meeting room; a microphone on a table or on a laptop.
SMALLEST_M, LARGEST_M = (2.5, 2.5, 2.3), (9.0, 7.0, 3.8)
T60_S = (0.15, 0.8)
MOUTH_HEIGHT_M, MICROPHONE_HEIGHT_M = (1.0, 1.8), (0.7, 1.6)
TO_WALL_M = 0.3
# Images beyond are fainter than the noise that is added; every order costs more than the last.
MOST_REFLECTIONS = 12


def room_responses(rng: np.random.Generator, *, sources: int, sample_rate_hz: int) -> list[Samples]:
    """Impulse responses from `sources` places of one random room to one microphone.

    Each has unit energy and begins at its direct path, so that a room changes neither the level
    nor the time of what is played in it.
    """
    size_m = rng.uniform(SMALLEST_M, LARGEST_M)
    absorption, order = _walls(rng.uniform(*T60_S), size_m)
    pra.constants.set("num_threads", 1)
    room = pra.ShoeBox(
        size_m,
        fs=sample_rate_hz,
        materials=pra.Material(absorption),
        max_order=min(order, MOST_REFLECTIONS),
    )
    room.add_microphone(_place(rng, size_m, heights_m=MICROPHONE_HEIGHT_M))
    for _ in range(sources):
        room.add_source(_place(rng, size_m, heights_m=MOUTH_HEIGHT_M))
    room.compute_rir()
    return [_aligned(np.asarray(response, np.float32)) for response in room.rir[0]]


def play_in_room(samples: Samples, response: Samples) -> Samples:
    """Samples as the microphone hears them: as many, without the tail after their end."""
    heard: Samples = oaconvolve(samples, response)[: len(samples)].astype(np.float32)
    return heard


def _walls(t60_s: float, size_m: NDArray[np.float64]) -> tuple[float, int]:
    """Absorption for a reverberation time, or all but none for one shorter than walls can give."""
    try:
        absorption, order = pra.inverse_sabine(t60_s, size_m)
    except ValueError:
        return 0.95, 3
    return float(absorption), int(order)


def _place(
    rng: np.random.Generator, size_m: NDArray[np.float64], *, heights_m: tuple[float, float]
) -> NDArray[np.float64]:
    ground = rng.uniform(TO_WALL_M, size_m[:2] - TO_WALL_M)
    return np.array([*ground, rng.uniform(*heights_m)])


def _aligned(response: Samples) -> Samples:
    direct = int(np.argmax(np.abs(response) > 0.5 * np.max(np.abs(response))))
    cut = response[direct:]
    unit: Samples = (cut / np.sqrt(np.sum(cut**2))).astype(np.float32)
    return unit
