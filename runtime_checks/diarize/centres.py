"""Centres of speakers that explain the voices of many windows: means, with two voices of a window
never the same speaker's.

Embeddings of one voice scatter as much as two alike voices are apart, so a voice that is compared
with what came before it decides little. Over many windows the means of two speakers stand out, and
the voices that are heard together in a window must be two. This is k-means with cannot-links
(Wagstaff et al., "Constrained k-means clustering with background knowledge", ICML 2001) on cosine
distances, with a price for every speaker that decides how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.types import PipelineParameters

from .decisions import Floats
from .stages import WindowSpeech, unit_rows

VOICES = 2
"""Of a window: those with the most clean speech. Three that all speak alone in five seconds are
rare, and need ten times as many comparisons."""
NOBODYS = 1.0
"""Distance at which a voice is rather nobody's: that of two embeddings that have nothing in
common."""
FORBIDDEN = 1e6
ROUNDS = 20
POWER_ROUNDS = 10
SAME = 1e-9
NEIGHBOURS = 5

Owners = NDArray[np.int64]


@dataclass(frozen=True)
class Heard:
    """Voices by window: `embeddings` [windows, VOICES, dimension] of length one, and `trust`
    [windows, VOICES] from 0 (there is none) to 1, by how much clean speech they are of."""

    embeddings: Floats
    trust: Floats

    @property
    def weight(self) -> float:
        """Of all voices together."""
        return float(self.trust.sum())


@dataclass(frozen=True)
class Explanation:
    """`centres` [speakers, dimension], whose each voice is, [windows, VOICES] (-1: nobody's), and
    what is left unexplained: the sum of distances by trust."""

    centres: Floats
    owners: Owners
    cost: float


def voices_of(
    speech: WindowSpeech, parameters: PipelineParameters, *, least_s: float
) -> tuple[Floats, Floats]:
    """A window's voices: embeddings [VOICES, dimension] and trust [VOICES]. They are those with so
    much clean speech, and of these the `VOICES` with the most."""
    slots = np.flatnonzero(speech.active & (speech.clean_s >= least_s))
    slots = slots[np.argsort(-speech.clean_s[slots], kind="stable")][:VOICES]
    embeddings = np.zeros((VOICES, speech.embeddings.shape[1]))
    trust = np.zeros(VOICES)
    embeddings[: len(slots)] = speech.embeddings[slots]
    trust[: len(slots)] = np.minimum(1, speech.clean_s[slots] / parameters.trusted_s)
    return embeddings, trust


def heard_in(windows: Sequence[WindowSpeech], parameters: PipelineParameters) -> Heard:
    """The voices of windows; windows without any are left out.

    A voice has `rho_update_s` of clean speech. Where nobody has so much, as in a recording of a
    second, it is half of what the one with the most has.
    """
    most = max((float(each.clean_s.max(initial=0)) for each in windows), default=0.0)
    if most == 0:
        return Heard(np.zeros((0, VOICES, 0)), np.zeros((0, VOICES)))
    least_s = min(parameters.rho_update_s, most / 2)
    spoken = [each for each in windows if each.active.any()]
    pairs = [voices_of(each, parameters, least_s=least_s) for each in spoken]
    kept = [pair for pair in pairs if pair[1].any()]
    return Heard(np.stack([pair[0] for pair in kept]), np.stack([pair[1] for pair in kept]))


def explain(heard: Heard, centres: Floats) -> Explanation:
    """Each window's voices go to the speakers that cost least together, no two to one; a voice for
    which nobody is left is nobody's."""
    windows, speakers = len(heard.trust), len(centres)
    cosines = heard.embeddings.reshape(-1, centres.shape[1]) @ unit_rows(centres).T
    distances = np.full((windows * VOICES, speakers + 1), NOBODYS)
    distances[:, :speakers] = 1 - cosines
    costs = heard.trust[:, :, None] * distances.reshape(windows, VOICES, -1)
    pairs = costs[:, 0, :, None] + costs[:, 1, None, :]
    same = np.arange(speakers)
    pairs[:, same, same] = FORBIDDEN
    chosen = pairs.reshape(windows, -1).argmin(axis=1)
    owners = np.stack(np.divmod(chosen, speakers + 1), axis=1)
    owners[(owners == speakers) | (heard.trust == 0)] = -1
    cost = float(pairs.reshape(windows, -1)[np.arange(windows), chosen].sum())
    return Explanation(centres, owners, cost)


def settle(heard: Heard, centres: Floats, *, rounds: int = ROUNDS) -> Explanation:
    """Centres moved to the mean of their voices by trust, until they stay or for so many rounds."""
    flat = heard.embeddings.reshape(-1, centres.shape[1])
    found = explain(heard, centres)
    for _ in range(rounds):
        member = found.owners.reshape(-1, 1) == np.arange(len(centres))
        sums = (member * heard.trust.reshape(-1, 1)).T @ flat
        moved = np.where(member.any(axis=0)[:, None], sums, found.centres)
        following = explain(heard, moved)
        if np.array_equal(following.owners, found.owners):
            return following
        found = following
    return found


def with_one_more(heard: Heard, found: Explanation) -> Explanation:
    """The best explanation with a speaker more: one begins with the voices that cost most, or with
    half of a speaker's."""
    begins = [np.vstack([found.centres, worst_explained(heard, found)])]
    for speaker in range(len(found.centres)):
        halves = _halves(heard, found, speaker)
        if halves is not None:
            others = np.delete(found.centres, speaker, axis=0)
            begins.append(np.vstack([others, halves]))
    return min((settle(heard, each) for each in begins), key=lambda each: each.cost)


def worst_explained(heard: Heard, found: Explanation) -> Floats:
    """The voice [dimension] that costs most among those in whose neighbourhood voices do."""
    mine = np.maximum(found.owners, 0)
    cosines = np.sum(heard.embeddings * unit_rows(found.centres)[mine], axis=2)
    costs = heard.trust * np.where(found.owners >= 0, 1 - cosines, NOBODYS)
    around = np.convolve(costs.max(axis=1), np.ones(NEIGHBOURS), "same")
    place = int(around.argmax())
    voice: Floats = heard.embeddings[place, costs[place].argmax()]
    return voice


def _halves(heard: Heard, found: Explanation, speaker: int) -> Floats | None:
    """Means [2, dimension] of a speaker's voices on either side of their mean, along the direction
    in which they scatter most (by power iteration); None where all are the same."""
    mine = heard.embeddings[found.owners == speaker]
    around = mine - mine.mean(axis=0) if len(mine) else mine
    if not np.linalg.norm(around) > SAME * len(mine):
        return None
    axis = around[np.square(around).sum(axis=1).argmax()]
    for _ in range(POWER_ROUNDS):
        axis = around.T @ (around @ axis)
        axis /= np.linalg.norm(axis)
    side = around @ axis > 0
    return np.stack([mine[side].mean(axis=0), mine[~side].mean(axis=0)])


def with_one_less(
    heard: Heard, found: Explanation, *, stay: Sequence[int] = ()
) -> Explanation | None:
    """The best explanation with a speaker less: without the smallest, or with the nearest two as
    one. Those that must `stay` stay; None where all must."""
    may_go = [each for each in range(len(found.centres)) if each not in stay]
    if not may_go:
        return None
    member = found.owners[:, :, None] == np.arange(len(found.centres))
    sizes = (heard.trust[:, :, None] * member).sum(axis=(0, 1))
    near = unit_rows(found.centres) @ unit_rows(found.centres).T
    np.fill_diagonal(near, -np.inf)
    alike = near.max(axis=1)
    gone = {min(may_go, key=lambda each: sizes[each]), max(may_go, key=lambda each: alike[each])}
    begins = [np.delete(found.centres, one, axis=0) for one in sorted(gone)]
    return min((settle(heard, each) for each in begins), key=lambda each: each.cost)


def price(heard: Heard, parameters: PipelineParameters, *, few: float = 0.0) -> float:
    """What a speaker must save to be one: `speaker_cost` of all that is heard, and of `few` voices
    more, since among few voices chance alone makes groups."""
    return parameters.speaker_cost * (heard.weight + few)


def total_cost(found: Explanation, *, paid: float, alone: float = 1.0) -> float:
    """What is left unexplained, and `paid` for every speaker.

    Who is never heard in one window with anybody else costs `alone` times as much: people who talk
    to each other are heard together at every change of turns, whereas one person's voice that was
    taken for two never is.
    """
    speakers = len(found.centres)
    both = found.owners[(found.owners >= 0).all(axis=1)]
    lonely = speakers - len(np.unique(both)) if speakers > 1 else 0
    return found.cost + paid * (speakers + (alone - 1) * lonely)
