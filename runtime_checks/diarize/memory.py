"""The voices that an online clustering keeps: few enough to be compared anew all the time."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from export.types import PipelineParameters

from .centres import VOICES, Heard, voices_of
from .decisions import Floats
from .stages import WindowSpeech

CAPACITY = 300
"""Windows; with a hop of 0.5 s, two and a half minutes in which somebody speaks."""


class Memory:
    """Voices of windows in order of time, at most `CAPACITY` windows.

    When it is full, a window goes of the speaker with most, the one that follows his one before it
    soonest: who spoke seldom, or long ago, is not forgotten, and what is left is spread over time.
    """

    def __init__(self, parameters: PipelineParameters, *, capacity: int = CAPACITY) -> None:
        self._parameters, self._capacity = parameters, capacity
        self._voices: list[tuple[Floats, Floats]] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, speech: WindowSpeech) -> bool:
        """Keep a window's voices; whether it has any."""
        if not speech.active.any():
            return False
        pair = voices_of(speech, self._parameters, least_s=self._parameters.rho_update_s)
        if not pair[1].any():
            return False
        self._voices.append(pair)
        self._starts.append(speech.start)
        return True

    def heard(self) -> Heard:
        """All that is kept."""
        if not self._voices:
            return Heard(np.zeros((0, VOICES, 0)), np.zeros((0, VOICES)))
        return Heard(
            np.stack([pair[0] for pair in self._voices]),
            np.stack([pair[1] for pair in self._voices]),
        )

    def forget(self, owners: NDArray[np.int64]) -> None:
        """Down to the capacity; `owners` [windows, VOICES] says whose voices they are."""
        whose = [int(row[0]) for row in owners]
        while len(self._starts) > self._capacity:
            most = Counter(whose).most_common(1)[0][0]
            places = [place for place, owner in enumerate(whose) if owner == most]
            follows = np.diff([self._starts[place] for place in places])
            gone = places[1 + int(follows.argmin())] if len(follows) else places[0]
            for kept in (whose, self._voices, self._starts):
                del kept[gone]
