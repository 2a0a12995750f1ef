"""What a student is asked for: the loss on its teacher's scores, and what counts as agreement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..types import ModelSpec
from .losses import permutation_invariant_bce, permutation_invariant_kl
from .powerset import class_permutations, classes_of, decided_speakers

THRESHOLD = 0.5
EPSILON = 1e-6
CERTAIN = 100.0  # a logit whose softmax leaves nothing to the others in float32


@dataclass(frozen=True)
class Objective:
    """Scores of `speakers` speakers, or with `largest` of sets of at most so many of them.

    One score a speaker is imitated by binary cross-entropy, powerset classes by the
    Kullback-Leibler divergence at a temperature (export.distil.losses).
    """

    speakers: int
    largest: int | None = None
    temperature: float = 1.0

    @classmethod
    def of(cls, spec: ModelSpec, *, temperature: float = 1.0) -> Objective:
        """That of a teacher."""
        return cls(len(spec.classes), spec.powerset_max_classes, temperature)

    def loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Of the student's logits and the teacher's scores, both [batch, frames, classes]."""
        if self.largest is None:
            return permutation_invariant_bce(logits, teacher)
        orders = class_permutations(self.speakers, self.largest)
        return permutation_invariant_kl(
            logits, teacher, temperature=self.temperature, permutations=orders
        )

    def label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of the student's logits and who really talks, 0 or 1 in [batch, frames, speakers]."""
        if self.largest is None:
            return permutation_invariant_bce(logits, labels)
        classes = classes_of(labels, largest=self.largest)
        certain = CERTAIN * one_hot(classes, logits.shape[-1]).to(logits.dtype)
        return Objective(self.speakers, self.largest).loss(logits, certain)

    def decided(self, scores: Tensor) -> Tensor:
        """Who speaks by a model's scores, bool [batch, frames, speakers]."""
        if self.largest is None:
            return scores > THRESHOLD
        return decided_speakers(scores, speakers=self.speakers, largest=self.largest) > THRESHOLD

    def distance(self, student: Tensor, teacher: Tensor) -> float:
        """The loss at temperature 1 of two models' scores, [batch, frames, classes]."""
        logits = torch.logit(student, EPSILON) if self.largest is None else student
        return float(Objective(self.speakers, self.largest).loss(logits, teacher))
