"""Folds that share no speaker, and one figure of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..audio import Recording
from ..errors import TrainingError

# An error of nothing would make the whole mean nothing; less than this is not measured anyway.
SMALLEST_PERCENT = 0.01


@dataclass(frozen=True)
class Fold:
    """Recordings to train on, and those held out: no speaker is in both."""

    training: tuple[Recording, ...]
    held_out: tuple[Recording, ...]
    speakers: frozenset[str]


def speaker_folds(
    recordings: Sequence[Recording], speakers: Mapping[str, frozenset[str]], *, folds: int
) -> tuple[Fold, ...]:
    """Share recordings out among folds so that each speaker is in one.

    `speakers` are those of each recording. Recordings that share a speaker, if only by way of
    others, stay together; the groups go to the folds by falling length, each to the shortest.
    Raises TrainingError on fewer groups than folds, or a recording whose speakers nobody knows.
    """
    unknown = sorted(r.uri for r in recordings if not speakers.get(r.uri))
    if unknown:
        raise TrainingError(
            unknown[0],
            found="no speaker in the reference",
            expected="who speaks in every recording, so that folds share no speaker",
            todo="Leave it out of --audio, or add its turns to --rttm.",
        )
    groups = _groups(recordings, speakers)
    if folds < 2 or len(groups) < folds:
        raise TrainingError(
            f"{folds} folds",
            found=f"{len(recordings)} recordings that fall into {len(groups)} groups which share "
            "no speaker",
            expected="at least two folds, and a group for each",
            todo=f"Give recordings of more speakers, or at most --folds {len(groups)}."
            if len(groups) >= 2
            else "Give recordings of more speakers.",
        )
    held: list[list[Recording]] = [[] for _ in range(folds)]
    for group in sorted(groups, key=lambda each: (-_length_s(each), each[0].uri)):
        min(held, key=_length_s).extend(group)
    return tuple(_fold(recordings, speakers, {r.uri for r in part}) for part in held)


def geometric_mean(percents: Sequence[float]) -> float:
    """The geometric mean of error rates in percent, none taken as less than SMALLEST_PERCENT."""
    logs = [math.log(max(percent, SMALLEST_PERCENT)) for percent in percents]
    return math.exp(math.fsum(logs) / len(logs))


def _fold(
    recordings: Sequence[Recording], speakers: Mapping[str, frozenset[str]], held_out: set[str]
) -> Fold:
    return Fold(
        training=tuple(r for r in recordings if r.uri not in held_out),
        held_out=tuple(r for r in recordings if r.uri in held_out),
        speakers=frozenset().union(*(speakers[uri] for uri in held_out)),
    )


def _groups(
    recordings: Sequence[Recording], speakers: Mapping[str, frozenset[str]]
) -> list[list[Recording]]:
    """Recordings joined by shared speakers."""
    groups: list[tuple[set[str], list[Recording]]] = []
    for recording in recordings:
        names, members = set(speakers[recording.uri]), [recording]
        apart = []
        for other in groups:
            if other[0] & names:
                names |= other[0]
                members = [*other[1], *members]
            else:
                apart.append(other)
        groups = [*apart, (names, members)]
    return [members for _, members in groups]


def _length_s(recordings: Sequence[Recording]) -> float:
    return sum(recording.duration_s for recording in recordings)
