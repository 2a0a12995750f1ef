"""Who really talks in a training window, where that is known, as the frames that a loss takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import FrameGeometry
from .conversations import Turn

Turns = tuple[Turn, ...]


def cut_turns(turns: Sequence[Turn], *, start: int, size: int) -> Turns:
    """Turns in a stretch of `size` samples from `start` on, from its beginning."""
    found = (
        Turn(t.speaker, max(t.start - start, 0), min(t.end - start, size))
        for t in turns
        if t.start < start + size and t.end > start
    )
    return tuple(turn for turn in found if turn.start < turn.end)


def mirrored(turns: Sequence[Turn], *, size: int) -> Turns:
    """The turns of a recording of `size` samples and of the same played backwards after it."""
    back = (Turn(t.speaker, 2 * size - t.end, 2 * size - t.start) for t in turns)
    return (*turns, *back)


def spliced(first: Sequence[Turn], second: Sequence[Turn], *, at: int, size: int) -> Turns:
    """The first's turns up to sample `at`, the second's from there to `size`."""
    head = cut_turns(first, start=0, size=at)
    tail = cut_turns(second, start=at, size=size - at)
    return (*head, *(Turn(t.speaker, t.start + at, t.end + at) for t in tail))


def stretched(turns: Sequence[Turn], *, before: int, after: int) -> Turns:
    """Turns of audio that was resampled from `before` samples to `after`."""
    return tuple(
        Turn(t.speaker, round(t.start * after / before), round(t.end * after / before))
        for t in turns
    )


def frame_labels(turns: Sequence[Turn], geometry: FrameGeometry, *, speakers: int) -> Tensor:
    """1.0 where a speaker talks at a frame's centre: float32 [frames, speakers].

    Of more speakers than there is room for, those who talk longest are kept; the order is theirs,
    which a permutation-invariant loss does not mind.
    """
    rate_hz = geometry.sample_rate_hz
    centres = torch.tensor(
        [geometry.frame_center_s(frame) * rate_hz for frame in range(geometry.num_frames)]
    )
    lengths: dict[str, int] = {}
    for turn in turns:
        lengths[turn.speaker] = lengths.get(turn.speaker, 0) + turn.end - turn.start
    longest = sorted(lengths, key=lambda name: (-lengths[name], name))[:speakers]
    labels = torch.zeros(geometry.num_frames, speakers)
    for turn in turns:
        if turn.speaker in longest:
            talking = (centres >= turn.start) & (centres < turn.end)
            labels[talking, longest.index(turn.speaker)] = 1.0
    return labels
