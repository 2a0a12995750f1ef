"""What a student of embeddings is taught: the teacher's answer to who is whom, and its embedding.

Wang et al., "Knowledge distillation for small foot-print deep speaker embedding", ICASSP 2019: on
labels, the divergence of the speakers' probabilities (equation 3); on embeddings, the mean squared
error (equation 5) and the cosine (equation 6). Their teacher has a layer that classifies the
speakers of its training set. Ours has none for voices that nobody ever labelled: its classes are
the other voices of the batch, its logits the cosines with them over a temperature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def label_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the voices' probabilities, mean over the batch.

    Both are [voices, dimension]; probabilities are over the teacher's embeddings of the batch.
    """
    anchors = F.normalize(teacher, dim=1)
    given = F.log_softmax(anchors @ anchors.t() / temperature, dim=1)
    own = F.log_softmax(F.normalize(student, dim=1) @ anchors.t() / temperature, dim=1)
    return F.kl_div(own, given, reduction="batchmean", log_target=True)


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance from the teacher's embedding of length one, mean over the batch."""
    unit = F.normalize(teacher, dim=1)
    return (student - unit).square().sum(1).mean()


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine, mean over the batch."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def principal_axes(targets: Tensor, dimension: int) -> Tensor:
    """Orthonormal axes [teacher's dimension, dimension] that keep most of the targets' length.

    Not centred, so that cosines between embeddings are what they were. The sign of an axis is that
    of its largest entry, since the decomposition leaves it open.
    """
    if dimension >= targets.shape[1]:
        return torch.eye(targets.shape[1], dtype=targets.dtype)
    _, axes = torch.linalg.eigh(targets.double().t() @ targets.double())
    chosen = axes.t().flip(0)[:dimension]
    largest = chosen.gather(1, chosen.abs().argmax(1, keepdim=True))
    oriented: Tensor = (chosen * largest.sign()).t().contiguous().to(targets.dtype)
    return oriented
