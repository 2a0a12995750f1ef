"""Turns as a line of text a speaker, for terminals."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import Turn

LEVELS = " ▁▂▃▄▅▆▇█"


def strips(turns: Sequence[Turn], *, begin_s: float, end_s: float, columns: int) -> dict[str, str]:
    """By speaker, in order of first speech, `columns` characters for the time between two times.

    A character's height is the share of its time in which the speaker speaks; any speech shows.
    """
    step_s = max(end_s - begin_s, 1e-9) / columns
    spoken: dict[str, list[float]] = {}
    for turn in sorted(turns, key=lambda each: each.start_s):
        shares = spoken.setdefault(turn.speaker, [0.0] * columns)
        first = max(0, int((turn.start_s - begin_s) / step_s))
        last = min(columns - 1, int((turn.end_s - begin_s) / step_s))
        for column in range(first, last + 1):
            left = begin_s + column * step_s
            shares[column] += max(0.0, min(turn.end_s, left + step_s) - max(turn.start_s, left))
    top = len(LEVELS) - 1
    return {
        name: "".join(
            LEVELS[0] if share <= 0 else LEVELS[max(1, min(top, round(top * share / step_s)))]
            for share in shares
        )
        for name, shares in spoken.items()
    }


def speaking_s(turns: Sequence[Turn]) -> dict[str, float]:
    """Seconds of speech by speaker."""
    totals: dict[str, float] = {}
    for turn in turns:
        totals[turn.speaker] = totals.get(turn.speaker, 0.0) + turn.end_s - turn.start_s
    return totals
