"""From scores to decisions, and how many frames two sets of scores decide differently."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.types import ModelSpec

THRESHOLD = 0.5
LARGEST_LOG = 20.0  # no log-probability, but what an artifact without its softmax may give
SWAP_EXPLAINS = 0.9  # a permutation that leaves more than a tenth of the flips is no swap

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WindowDecisions:
    """Decisions of an artifact on one window beside the reference's.

    `settled` and `reference` are [frames, speakers]: who speaks. `settled` is the artifact's,
    in the reference's speaker order when `permutation` says that the window is a swap, and with
    the reference's decision where scores within the dead band leave both open. Counts are of
    frames: `flips` compares `settled`, `flips_as_they_stand` knows no permutation, `undecided`
    frames have a score in the dead band.
    """

    flips: int
    flips_as_they_stand: int
    permutation: tuple[int, ...] | None
    undecided: int
    settled: Bools
    reference: Bools


def speaker_sets(spec: ModelSpec) -> Bools:
    """Which speakers each output class stands for: [classes, speakers].

    Powerset classes are sets of up to `powerset_max_classes` speakers, smallest first and then in
    lexicographic order (Plaquet and Bredin 2023); otherwise each class is one speaker.
    """
    speakers = len(spec.classes)
    if spec.powerset_max_classes is None:
        return np.eye(speakers, dtype=np.bool_)
    sets = [
        members
        for size in range(spec.powerset_max_classes + 1)
        for members in combinations(range(speakers), size)
    ]
    table = np.zeros((len(sets), speakers), dtype=np.bool_)
    for row, members in enumerate(sets):
        table[row, list(members)] = True
    return table


def probabilities(scores: NDArray[np.floating], spec: ModelSpec) -> Floats:
    """Scores [frames, classes] as probabilities: log-probabilities are exponentiated.

    Differences are measured on these: far down in the logarithm's tail they mean nothing.
    """
    values = np.asarray(scores, dtype=np.float64)
    if spec.powerset_max_classes is None:
        return values
    linear: Floats = np.exp(np.minimum(values, LARGEST_LOG))
    return linear


def decide(scores: NDArray[np.floating], spec: ModelSpec) -> Bools:
    """Who speaks in each frame, [frames, speakers]: above 0.5, or in the likeliest set."""
    if spec.powerset_max_classes is None:
        return np.asarray(scores > THRESHOLD, dtype=np.bool_)
    chosen: Bools = speaker_sets(spec)[np.argmax(scores, axis=1)]
    return chosen


def compare_decisions(
    artifact: NDArray[np.floating],
    reference: NDArray[np.floating],
    *,
    spec: ModelSpec,
    band: float,
) -> WindowDecisions:
    """Compare the decisions of one window's scores, both [frames, classes].

    For a permutation-invariant model the speakers are also compared in the order that agrees
    best; when that order removes nine tenths of the flips, the window is a swap.
    """
    theirs = decide(reference, spec)
    mine = decide(artifact, spec)
    trusted = probabilities(reference, spec)
    straight = _settle(mine, theirs, trusted, spec=spec, band=band)
    flips = as_they_stand = _count(straight, theirs)
    permutation, settled = None, straight
    if spec.permutation_invariant and as_they_stand:
        order = best_permutation(mine, theirs)
        permuted = _settle(mine[:, order], theirs, trusted, spec=spec, band=band)
        left = _count(permuted, theirs)
        if left <= (1 - SWAP_EXPLAINS) * as_they_stand:
            permutation, settled, flips = order, permuted, left
    return WindowDecisions(
        flips=flips,
        flips_as_they_stand=as_they_stand,
        permutation=permutation,
        undecided=_undecided(trusted, spec=spec, band=band),
        settled=settled,
        reference=theirs,
    )


def best_permutation(artifact: Bools, reference: Bools) -> tuple[int, ...]:
    """Order of the artifact's speakers that agrees with the reference in most decisions."""
    differing = (artifact[:, :, None] != reference[:, None, :]).sum(axis=0)
    rows, columns = linear_sum_assignment(differing)
    order = [0] * len(rows)
    for mine, theirs in zip(rows, columns, strict=True):
        order[int(theirs)] = int(mine)
    return tuple(order)


def _count(artifact: Bools, reference: Bools) -> int:
    return int((artifact != reference).any(axis=1).sum())


def _settle(
    artifact: Bools, reference: Bools, trusted: Floats, *, spec: ModelSpec, band: float
) -> Bools:
    """The artifact's decisions, or the reference's where its scores leave both open."""
    if spec.powerset_max_classes is None:
        return np.where(np.abs(trusted - THRESHOLD) <= band, reference, artifact)
    # Two probabilities that may each be off by the band can swap ranks across twice the band.
    agreeing = (artifact[:, None, :] == speaker_sets(spec)[None]).all(axis=2)
    taken = np.where(agreeing, trusted, -np.inf).max(axis=1)
    close = taken >= trusted.max(axis=1) - 2 * band
    return np.where(close[:, None], reference, artifact)


def _undecided(trusted: Floats, *, spec: ModelSpec, band: float) -> int:
    if spec.powerset_max_classes is None:
        return int((np.abs(trusted - THRESHOLD) <= band).any(axis=1).sum())
    top = np.sort(trusted, axis=1)
    return int((top[:, -1] - top[:, -2] <= 2 * band).sum())
