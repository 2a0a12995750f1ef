"""Agglomerative clustering of the voices of a recording: groups that speakers may begin with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from export.errors import AudioError
from export.types import PipelineParameters

from .decisions import Floats

APART = 3.0
"""Distance of two voices of one window: farther than any two embeddings."""


@dataclass(frozen=True)
class SpeakerCount:
    """How many speakers a recording has: exactly, or at least and at most (None: unknown)."""

    exactly: int | None = None
    at_least: int = 1
    at_most: int | None = None

    def __post_init__(self) -> None:
        low, high = self.at_least, self.at_most
        exactly = 1 if self.exactly is None else self.exactly
        if exactly < 1 or low < 1 or (high is not None and high < low):
            raise AudioError(
                "number of speakers",
                found=str(exactly) if exactly < 1 else f"{low} to {high}",
                expected="one or more, and no more at least than at most",
            )


@dataclass(frozen=True)
class Voices:
    """What is clustered: embeddings [voices, dimension] of length one, and the windows [voices]
    they are from, as indices that never fall."""

    embeddings: Floats
    windows: NDArray[np.int64]


def groupings(voices: Voices, parameters: PipelineParameters) -> dict[int, NDArray[np.int64]]:
    """Groups of voices by their number: labels [voices], 0 and up; -1 for voices in groups that are
    too small to be a speaker's.

    First complete linkage, which keeps voices of one window apart, up to `alike_distance`: each
    cluster is one voice beyond doubt. Then these are merged, the nearest pair first, the distance
    of two being the mean cosine distance of their voices plus `together_cost` times the share of
    the smaller one's voices that are heard in one window with the other. So two voices that answer
    each other remain two where a channel makes all voices of a recording alike.

    A group is a speaker's from `min_share` of the voices on. Of the stages of merging with the same
    number of these, it is the last.
    """
    total = len(voices.embeddings)
    if total < 2:
        return {total: np.zeros(total, np.int64)}
    cosines: Floats = pdist(voices.embeddings, metric="cosine")
    fine = fcluster(
        linkage(_held_apart(cosines, voices), method="complete"),
        parameters.alike_distance,
        "distance",
    )
    stages = _merged(
        fine.astype(np.int64) - 1,
        squareform(cosines),
        together=_together(voices),
        cost=parameters.together_cost,
    )
    smallest = max(1, round(parameters.min_share * total))
    large = [_large_only(labels, smallest=smallest) for labels in stages]
    return {int(labels.max()) + 1: labels for labels in large}


def _held_apart(cosines: Floats, voices: Voices) -> Floats:
    """Condensed distances with voices of one window `APART`."""
    distances = cosines.copy()
    total = len(voices.windows)
    # Voices of one window follow each other: a few steps ahead reach them all.
    for ahead in range(1, int(np.bincount(voices.windows).max())):
        rows = np.flatnonzero(voices.windows[:-ahead] == voices.windows[ahead:])
        distances[total * rows - rows * (rows + 1) // 2 + ahead - 1] = APART
    return distances


def _together(voices: Voices) -> NDArray[np.bool_]:
    """Which voices are of one window, [voices, voices]."""
    same: NDArray[np.bool_] = voices.windows[:, None] == voices.windows[None]
    np.fill_diagonal(same, val=False)
    return same


def _merged(
    labels: NDArray[np.int64], cosines: Floats, *, together: NDArray[np.bool_], cost: float
) -> list[NDArray[np.int64]]:
    """Stages of merging: the labels [voices] of each."""
    member = np.eye(labels.max() + 1)[labels]
    sums, shared = member.T @ cosines @ member, member.T @ together @ member
    sizes = member.sum(axis=0)
    stages = [labels]
    while len(sizes) > 1:
        smaller = np.minimum(sizes[:, None], sizes[None])
        distances = sums / (sizes[:, None] * sizes[None])
        distances += cost * np.minimum(1, shared / smaller)
        np.fill_diagonal(distances, np.inf)
        pair = np.unravel_index(np.argmin(distances), distances.shape)
        first, second = sorted(int(each) for each in pair)
        for table in (sums, shared):
            table[first] += table[second]
            table[:, first] += table[:, second]
        sizes[first] += sizes[second]
        sums, shared = (np.delete(np.delete(each, second, 0), second, 1) for each in (sums, shared))
        sizes = np.delete(sizes, second)
        labels = np.where(labels == second, first, labels)
        labels = labels - (labels > second)
        stages.append(labels)
    return stages


def _large_only(labels: NDArray[np.int64], *, smallest: int) -> NDArray[np.int64]:
    """Labels of large clusters, counted from 0 in the order of their first voices; others -1."""
    found = np.full(len(labels), -1, np.int64)
    large = [label for label in dict.fromkeys(labels) if (labels == label).sum() >= smallest]
    for number, label in enumerate(large):
        found[labels == label] = number
    return found
