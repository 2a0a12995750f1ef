"""Online clustering: the speakers of a window are found among those heard so far, or are new."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.types import PipelineParameters

from .decisions import Floats
from .stages import WindowSpeech

NOBODY = -1
DOUBT = 0.02
"""How much a slot counts whose voice cannot be told: just enough to leave others their speaker."""
UNHEARD = 1.5
"""Distance at which a slot is rather nobody's: farther than a known speaker who is free, so that
little speech goes to the nearest, but not so far that another slot must give up its speaker."""
FORBIDDEN = 1e3


class IncrementalClustering:
    """Centres of speakers, which embeddings move, in the order in which they were first heard.

    Coria et al. 2021, section 2.3, with these changes, each of which lowered the error in
    conversations of other speakers than those of docs/pipeline.md. All slots of a window are
    assigned at once, "known or new" included, instead of thresholding after the assignment.
    A distance counts by how much clean speech it is of, up to `trusted_s`. Speech counts where
    nobody else speaks (`clean_s`), not where a slot is active. And all updates weigh the same,
    however long the speech.
    """

    def __init__(self, parameters: PipelineParameters) -> None:
        self._parameters = parameters
        self._sums: list[Floats] = []

    @property
    def num_speakers(self) -> int:
        """How many were heard so far."""
        return len(self._sums)

    def assign(self, speech: WindowSpeech) -> NDArray[np.int64]:
        """The speaker of each slot, [slots]; `NOBODY` where it is not active, or where nobody is
        left that it may be. Two slots of one window are never one speaker."""
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
                if self.num_speakers == settings.max_speakers:
                    continue
                found[slots[row]] = self.num_speakers
                self._sums.append(embedding if heard else np.zeros_like(embedding))
            else:
                found[slots[row]] = column
                if heard and distances[row, column] < settings.delta_new:
                    self._sums[column] = self._sums[column] + embedding
        return found

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
        if known < settings.max_speakers:
            founds = np.where(clean_s >= settings.new_s, trust * settings.delta_new, FORBIDDEN)
            if known == 0:  # the first voice of all is somebody's, however short it is
                founds[np.argmax(clean_s)] = 0.0
            np.fill_diagonal(new, founds)
        nobody = np.full((count, count), FORBIDDEN)
        np.fill_diagonal(nobody, np.where(told, trust, DOUBT) * UNHEARD)
        costs: Floats = np.concatenate([old, new, nobody], axis=1)
        return costs
