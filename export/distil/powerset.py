"""Powerset classes: which speakers each stands for, and what becomes of it when they change places.

Plaquet and Bredin, "Powerset multi-class cross entropy loss for neural speaker diarization",
Interspeech 2023: classes are sets of at most so many speakers, smallest first and then in
lexicographic order.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, permutations

import torch
from torch import Tensor


@cache
def speaker_sets(speakers: int, largest: int) -> tuple[tuple[int, ...], ...]:
    """The set of speakers of each class."""
    sizes = range(largest + 1)
    return tuple(members for size in sizes for members in combinations(range(speakers), size))


@cache
def class_permutations(speakers: int, largest: int) -> Tensor:
    """[permutations, classes]: for every order of the speakers, the class that each class becomes.

    Row p, entry c is the class of the speakers of c after speaker i was renamed to p's i-th.
    """
    sets = speaker_sets(speakers, largest)
    place = {members: index for index, members in enumerate(sets)}
    return torch.tensor(
        [
            [place[tuple(sorted(order[speaker] for speaker in members))] for members in sets]
            for order in permutations(range(speakers))
        ]
    )


def classes_of(labels: Tensor, *, largest: int) -> Tensor:
    """The class of the speakers who talk: [batch, frames] of labels [batch, frames, speakers].

    Where more talk than a set may hold, those are dropped that are last in order.
    """
    speakers = labels.shape[-1]
    kept = (labels > 0.5) & (labels.cumsum(-1) <= largest)
    powers = 2 ** torch.arange(speakers, device=labels.device)
    place = torch.zeros(2**speakers, dtype=torch.long)
    for index, members in enumerate(speaker_sets(speakers, largest)):
        place[sum(2**member for member in members)] = index
    return place.to(labels.device)[(kept * powers).sum(-1)]


def decided_speakers(scores: Tensor, *, speakers: int, largest: int) -> Tensor:
    """1.0 for every speaker in the likeliest set, 0.0 for the others.

    `scores` are of classes, [batch, frames, classes]; the result is [batch, frames, speakers].
    """
    table = torch.zeros(len(speaker_sets(speakers, largest)), speakers)
    for index, members in enumerate(speaker_sets(speakers, largest)):
        table[index, list(members)] = 1.0
    return table.to(scores.device)[scores.argmax(-1)]
