"""What a training did, in words for the model card; the equations are in export.distil.losses."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import ModelSpec
from .config import PLATEAU_PATIENCE, DistilConfig
from .record import TrainingRecord


def loss_in_words(config: DistilConfig, spec: ModelSpec) -> str:
    """The loss with its sources."""
    if spec.powerset_max_classes is None:
        text = (
            "permutation-invariant binary cross-entropy on the teacher's probabilities (equation 2 "
            "of Fujita et al., Interspeech 2019, with soft targets)"
        )
    else:
        text = (
            "permutation-invariant Kullback-Leibler divergence from the teacher's powerset classes "
            f"at temperature {config.temperature:g} (Hinton et al., 2015, section 2)"
        )
    if config.hint_weight:
        text += (
            f", plus {config.hint_weight:g} times the hint loss on the last recurrent layer "
            "(equation 3 of Romero et al., ICLR 2015)"
        )
    if config.label_share:
        text += f"; {100 * config.label_share:g} % of it on the labels"
    if config.overlap_weight:
        text += f"; a frame of n speakers weighs 1 + {config.overlap_weight:g} (n - 1)"
    if config.dropout:
        text += f"; dropout of {config.dropout:g} after the recurrent layers"
    return text


def schedule_in_words(config: DistilConfig) -> str:
    """How the learning rate goes, and what ends the training early."""
    text = f"one-cycle learning rate up to {config.learning_rate:g}"
    if config.schedule == "plateau":
        text = (
            f"learning rate from {config.learning_rate:g}, halved after {PLATEAU_PATIENCE} "
            "validations without gain"
        )
    if config.early_stopping:
        text += f", stopped after {config.early_stopping} validations without gain"
    return text if config.precision == "32-true" else f"{text}, precision {config.precision}"


def labels_in_words(lineage: Sequence[TrainingRecord]) -> str:
    """Whether labels were learnt from in any of the trainings that a student comes from."""
    if any(record.config.label_share for record in lineage):
        return "The teacher labels every window; a share of the loss is on who really talks."
    return "No labels were used: the teacher labels every window."
