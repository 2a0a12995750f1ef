"""What a check hands to the report: timelines beside the value types of `export.types`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Turn:
    """One speaker speaking from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True)
class TimelineRow:
    """What one source (`reference`, `pytorch` or an artifact's path) says of a recording.

    `difference` is the largest score difference from the float64 reference over the classes, per
    frame, float32 [frames], at `difference_s` [frames]; both are None for the reference rows.
    """

    source: str
    turns: tuple[Turn, ...]
    difference_s: NDArray[np.float32] | None
    difference: NDArray[np.float32] | None


@dataclass(frozen=True)
class Timeline:
    """One recording with all rows. `samples` is float32 [samples]; `has_reference` tells whether
    a reference (RTTM) covers it."""

    uri: str
    samples: NDArray[np.float32]
    sample_rate_hz: int
    has_reference: bool
    rows: tuple[TimelineRow, ...]
