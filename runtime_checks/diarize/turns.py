"""From frames that are decided bit by bit to turns."""

from __future__ import annotations

import numpy as np

from export.types import FrameGeometry

from ..parity.decisions import Bools
from ..results import Turn


class TurnBuilder:
    """Joins active frames to turns; a frame lasts half a step around its centre.

    `names` of the columns are given as they begin to speak: `speaker1` is who speaks first.
    """

    def __init__(self, geometry: FrameGeometry) -> None:
        self._geometry = geometry
        self._frames = 0
        self._open: dict[int, int] = {}
        self._names: dict[int, str] = {}

    @property
    def names(self) -> dict[int, str]:
        """Names of the columns that have spoken."""
        return dict(self._names)

    def add(self, active: Bools) -> tuple[list[Turn], list[Turn]]:
        """Frames [frames, columns] that follow those added before.

        Returns the parts of turns that lie in these frames, and the whole turns that end in them.
        """
        parts, ended = [], []
        first, self._frames = self._frames, self._frames + len(active)
        before = np.zeros((1, active.shape[1]), np.bool_)
        before[0, list(self._open)] = True
        changes = np.diff(np.concatenate([before, active]).astype(np.int8), axis=0)
        since = dict.fromkeys(self._open, first)
        for frame, column in np.argwhere(changes):
            at, speaker = first + int(frame), int(column)
            if changes[frame, column] > 0:
                self._names.setdefault(speaker, f"speaker{len(self._names) + 1}")
                self._open[speaker] = since[speaker] = at
            else:
                parts.append(self._turn(since.pop(speaker), at, speaker))
                ended.append(self._turn(self._open.pop(speaker), at, speaker))
        parts += [self._turn(at, self._frames, speaker) for speaker, at in since.items()]
        return [part for part in parts if part.end_s > part.start_s], ended

    def open_turns(self) -> list[Turn]:
        """Turns that go on, up to the last frame that was added."""
        return [self._turn(at, self._frames, column) for column, at in sorted(self._open.items())]

    def finish(self) -> list[Turn]:
        """The turns that are open, ended."""
        rest = self.open_turns()
        self._open.clear()
        return rest

    def _turn(self, first: int, end: int, column: int) -> Turn:
        half = self._geometry.frame_step_s / 2
        begin_s = self._geometry.frame_center_s(first) - half
        end_s = self._geometry.frame_center_s(end - 1) + half
        return Turn(begin_s, end_s, self._names[column])
