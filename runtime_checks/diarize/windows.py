"""The rolling window: audio in chunks of any size in, one window a hop out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hop:
    """One window and what is new in it.

    `samples` is float32 [window_samples]. It begins at sample `start` of the recording, which is
    negative while the recording is younger than a window: zeros stand for what was before. It ends
    at `start + window_samples`; the recording itself ends at `end`, earlier only in the last hop,
    where zeros stand for what does not come.
    """

    index: int
    start: int
    end: int
    samples: NDArray[np.float32]


class RollingWindow:
    """Windows of `window_samples` that end every `hop_samples` (Coria et al. 2021, section 2).

    The first window ends after one hop, not after one window, so that no latency is ever longer
    than the one asked for; with `lead_samples` it ends so much later, as a stateful artifact needs
    it. Which windows come does not depend on how the audio is cut into chunks.
    """

    def __init__(self, *, window_samples: int, hop_samples: int, lead_samples: int = 0) -> None:
        if not 0 < hop_samples + lead_samples <= window_samples or hop_samples < 1:
            raise ValueError(f"a hop of {hop_samples} samples in a window of {window_samples}")
        self._hop, self._lead = hop_samples, lead_samples
        self._window: NDArray[np.float32] = np.zeros(window_samples, np.float32)
        self._new: NDArray[np.float32] = np.zeros(lead_samples + hop_samples, np.float32)
        self._filled, self._index, self._end = 0, 0, 0

    def push(self, samples: NDArray[np.float32]) -> Iterator[Hop]:
        """Hops that these samples (float32 [any number]) complete."""
        taken = 0
        while taken < len(samples):
            piece = samples[taken : taken + len(self._new) - self._filled]
            self._new[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            taken += len(piece)
            if self._filled == len(self._new):
                yield self._advance()

    def finish(self) -> Iterator[Hop]:
        """The last hop, completed with zeros, where samples are left over."""
        if self._filled:
            self._new[self._filled :] = 0
            yield self._advance()

    def _advance(self) -> Hop:
        self._window = np.concatenate([self._window[len(self._new) :], self._new])
        self._new = self._new[-self._hop :]
        self._end += self._filled
        self._index += 1
        self._filled = 0
        start = self._lead + self._index * self._hop - len(self._window)
        return Hop(self._index - 1, start, self._end, self._window)
