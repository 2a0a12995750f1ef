"""What a student is asked for: the loss on its teacher's scores, and what counts as agreement."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..types import ModelSpec
from .losses import frame_shares, permutation_invariant_bce, permutation_invariant_kl
from .powerset import class_permutations, classes_of, decided_speakers, speaker_sets

THRESHOLD = 0.5
EPSILON = 1e-6
CERTAIN = 100.0  # a logit whose softmax leaves nothing to the others in float32


@dataclass(frozen=True)
class Objective:
    """Scores of `speakers` speakers, or with `largest` of sets of at most so many of them.

    One score a speaker is imitated by binary cross-entropy, powerset classes by the
    Kullback-Leibler divergence at a temperature (export.distil.losses). Frames in which several
    speak weigh more by `overlap_weight`.
    """

    speakers: int
    largest: int | None = None
    temperature: float = 1.0
    overlap_weight: float = 0.0

    @classmethod
    def of(
        cls, spec: ModelSpec, *, temperature: float = 1.0, overlap_weight: float = 0.0
    ) -> Objective:
        """That of a teacher."""
        return cls(len(spec.classes), spec.powerset_max_classes, temperature, overlap_weight)

    def loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Of the student's logits and the teacher's scores, both [batch, frames, classes]."""
        shares = frame_shares(self._counts(teacher), overlap_weight=self.overlap_weight)
        if self.largest is None:
            return permutation_invariant_bce(logits, teacher, shares)
        orders = class_permutations(self.speakers, self.largest)
        return permutation_invariant_kl(
            logits, teacher, temperature=self.temperature, permutations=orders, frames=shares
        )

    def _counts(self, teacher: Tensor) -> Tensor:
        """How many speakers are expected in each frame, [batch, frames]."""
        if self.largest is None:
            return teacher.sum(2)
        sizes = [len(members) for members in speaker_sets(self.speakers, self.largest)]
        return teacher.softmax(2) @ torch.tensor(sizes, dtype=teacher.dtype, device=teacher.device)

    def label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of the student's logits and who really talks, 0 or 1 in [batch, frames, speakers]."""
        if self.largest is None:
            return self.loss(logits, labels)
        classes = classes_of(labels, largest=self.largest)
        certain = CERTAIN * one_hot(classes, logits.shape[-1]).to(logits.dtype)
        return replace(self, temperature=1.0).loss(logits, certain)

    def decided(self, scores: Tensor) -> Tensor:
        """Who speaks by a model's scores, bool [batch, frames, speakers]."""
        if self.largest is None:
            return scores > THRESHOLD
        return decided_speakers(scores, speakers=self.speakers, largest=self.largest) > THRESHOLD

    def distance(self, student: Tensor, teacher: Tensor) -> float:
        """The loss at temperature 1 of two models' scores, [batch, frames, classes]."""
        logits = torch.logit(student, EPSILON) if self.largest is None else student
        return float(Objective(self.speakers, self.largest).loss(logits, teacher))
