"""Online clustering: the speakers of a window are found among those heard so far, or are new."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.types import PipelineParameters

from .centres import Explanation, Heard, price, settle, total_cost, with_one_less, with_one_more
from .decisions import Floats
from .memory import Memory
from .stages import WindowSpeech

NOBODY = -1
DOUBT = 0.02
"""How much a slot counts whose voice cannot be told: just enough to leave others their speaker."""
UNHEARD = 1.5
"""Distance at which a slot is rather nobody's: farther than a known speaker who is free, so that
little speech goes to the nearest, but not so far that another slot must give up its speaker."""
FORBIDDEN = 1e3
EARLIEST, SOONEST, SELDOM = 10, 2, 40
"""All is explained anew from so many windows with voices on, after so many more, or a part of those
that are remembered: the more there are, the less one more changes."""
STAYS = 0.7
"""Of a speaker's price: what one who is known must still save. It is less than what is asked of a
new one, so that nobody comes and goes."""
FEW_VOICES = 60.0
"""Voices' worth of doubt when a recording has just begun (`centres.price`)."""
YOUNG = 6
"""Windows with voices for which nobody who is new is given up."""


class IncrementalClustering:
    """Centres of speakers, which embeddings move, in the order in which they were first heard.

    Coria et al. 2021, section 2.3, with these changes, each of which lowered the error in
    conversations of other speakers than those of docs/pipeline.md. All slots of a window are
    assigned at once, "known or new" included, instead of thresholding after the assignment.
    A distance counts by how much clean speech it is of, up to `trusted_s`. Speech counts where
    nobody else speaks (`clean_s`), not where a slot is active. All updates weigh the same, however
    long the speech. And what was heard so far is explained anew all the time (`centres`): a speaker
    whom no single window tells from another is found after some of them, and one who turns out to
    be another is given up.
    """

    def __init__(self, parameters: PipelineParameters) -> None:
        self._parameters = parameters
        self._sums: list[Floats] = []
        self._columns: list[int] = []
        self._free = list(range(parameters.max_speakers))
        self._memory = Memory(parameters)
        self._new_windows = self._windows = 0
        self._since: dict[int, int] = {}

    @property
    def num_speakers(self) -> int:
        """How many are known now."""
        return len(self._sums)

    def assign(self, speech: WindowSpeech) -> NDArray[np.int64]:
        """The speaker of each slot, [slots]; `NOBODY` where it is not active, or where nobody is
        left that it may be. Two slots of one window are never one speaker."""
        found = self._assign(speech)
        kept = self._memory.add(speech)
        self._new_windows += kept
        self._windows += kept
        due = self._new_windows >= max(SOONEST, len(self._memory) // SELDOM)
        if due and len(self._memory) >= EARLIEST:
            self._new_windows = 0
            self._revise()
            found = self.label(speech)
        return found

    def label(self, speech: WindowSpeech) -> NDArray[np.int64]:
        """The speakers of a window's slots, [slots], as of now: nobody is new, nothing is
        learnt."""
        found = np.full(len(speech.active), NOBODY, np.int64)
        slots = np.flatnonzero(speech.active)
        if not len(slots) or not self._sums:
            return found
        costs = self._costs(self.distances(speech.embeddings[slots]), speech.clean_s[slots])
        known = self.num_speakers
        costs[:, known : known + len(slots)] = FORBIDDEN
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            if column < known:
                found[slots[row]] = self._columns[column]
        return found

    def _assign(self, speech: WindowSpeech) -> NDArray[np.int64]:
        settings = self._parameters
        found = np.full(len(speech.active), NOBODY, np.int64)
        slots = np.flatnonzero(speech.active)
        if not len(slots):
            return found
        distances = self.distances(speech.embeddings[slots])
        clean_s = speech.clean_s[slots]
        costs = self._costs(distances, clean_s)
        known = self.num_speakers
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            if column >= known + len(slots):
                continue
            embedding = speech.embeddings[slots[row]]
            heard = clean_s[row] >= settings.rho_update_s
            if column >= known:
                if not self._free:
                    continue
                self._sums.append(embedding if heard else np.zeros_like(embedding))
                self._columns.append(self._next_column())
                found[slots[row]] = self._columns[-1]
            else:
                found[slots[row]] = self._columns[column]
                if heard and distances[row, column] < settings.delta_new:
                    self._sums[column] = self._sums[column] + embedding
        return found

    def _revise(self) -> None:
        """Explain the voices that are remembered anew, with a speaker more or less if that pays."""
        heard = self._memory.heard()
        before = settle(heard, np.stack(self._sums))
        paid = price(heard, self._parameters, few=FEW_VOICES)
        best, least = before, total_cost(before, paid=paid)
        if self._free:
            more = with_one_more(heard, before)
            if total_cost(more, paid=paid) < least:
                best, least = more, total_cost(more, paid=paid)
        if self.num_speakers > 1:
            young = [k for k, column in enumerate(self._columns) if self._is_young(column)]
            less = with_one_less(heard, before, stay=young)
            if less is not None and total_cost(less, paid=paid) + (1 - STAYS) * paid < least:
                best = less
        self._name(before, best, heard)
        self._memory.forget(best.owners)

    def _next_column(self) -> int:
        column = self._free.pop(0)
        self._since[column] = self._windows
        return column

    def _is_young(self, column: int) -> bool:
        return self._windows - self._since.get(column, 0) < YOUNG

    def _name(self, before: Explanation, after: Explanation, heard: Heard) -> None:
        """Speakers keep the columns of those whose voices they have most of. A column that is free
        again waits until all others were used."""
        shared = np.zeros((len(before.centres), len(after.centres)))
        both = (before.owners >= 0) & (after.owners >= 0)
        np.add.at(shared, (before.owners[both], after.owners[both]), heard.trust[both])
        columns = [-1] * len(after.centres)
        for mine, now in zip(*linear_sum_assignment(-shared), strict=True):
            columns[now] = self._columns[mine]
        self._free += [column for column in self._columns if column not in columns]
        self._columns = [self._next_column() if column < 0 else column for column in columns]
        self._sums = list(after.centres)

    def distances(self, embeddings: Floats | NDArray[np.float32]) -> Floats:
        """Cosine distances [slots, speakers] of embeddings of length one from the centres.

        A centre that no embedding has moved yet is at no distance: it takes whom it can get.
        """
        if not self._sums:
            return np.zeros((len(embeddings), 0))
        centres = np.stack(self._sums)
        lengths = np.linalg.norm(centres, axis=1)
        cosines = embeddings @ (centres / np.maximum(lengths, 1e-12)[:, None]).T
        distances: Floats = np.where(lengths > 0, 1 - cosines, 0.0)
        return distances

    def _costs(self, distances: Floats, clean_s: Floats) -> Floats:
        """Of every slot for every speaker, for a new one of its own, and for nobody:
        [slots, known + slots + slots]."""
        settings = self._parameters
        count, known = distances.shape
        trust = np.minimum(1, clean_s / settings.trusted_s)
        told = clean_s >= settings.min_clean_s
        old = np.where(told[:, None], trust[:, None] * distances, DOUBT * settings.delta_new)
        new = np.full((count, count), FORBIDDEN)
        if self._free:
            founds = np.where(clean_s >= settings.new_s, trust * settings.delta_new, FORBIDDEN)
            if known == 0:  # the first voice of all is somebody's, however short it is
                founds[np.argmax(clean_s)] = 0.0
            np.fill_diagonal(new, founds)
        nobody = np.full((count, count), FORBIDDEN)
        np.fill_diagonal(nobody, np.where(told, trust, DOUBT) * UNHEARD)
        costs: Floats = np.concatenate([old, new, nobody], axis=1)
        return costs
