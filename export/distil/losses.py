"""Losses of a student that imitates a teacher's frame scores."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MARGIN = 1e-7


def pairwise_bce(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy of every student speaker against every teacher speaker.

    Both are probabilities [batch, frames, speakers]; the result is [batch, student speaker,
    teacher speaker], the mean over frames of -(t log s + (1 - t) log(1 - s)). The student's
    probabilities are kept `MARGIN` away from 0 and 1, where the gradient of a logarithm, unlike
    that of a whole sigmoid cross-entropy, is not finite.
    """
    bounded = student.clamp(MARGIN, 1 - MARGIN)
    log_on, log_off = torch.log(bounded), torch.log1p(-bounded)
    on = torch.einsum("bfi,bfj->bij", log_on, teacher)
    off = torch.einsum("bfi,bfj->bij", log_off, 1 - teacher)
    return -(on + off) / student.shape[1]


def best_permutation(cost: Tensor) -> Tensor:
    """Cheapest one-to-one assignment of each item of a batch.

    `cost` is [batch, student speaker, teacher speaker]; the result [batch, speaker] holds for
    every student speaker the teacher speaker it is compared with. Costs that are not finite are
    no reason to fail here: whoever gathers them sees them.
    """
    costs = np.nan_to_num(cost.detach().cpu().numpy())
    columns = np.stack([linear_sum_assignment(item)[1] for item in costs])
    return torch.as_tensor(columns, device=cost.device)


def permutation_invariant_bce(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy on the teacher's probabilities under each window's best permutation.

    Both are probabilities [batch, frames, speakers]; a scalar comes back. This is equation 2 of
    Fujita et al., "End-to-end neural speaker diarization with permutation-free objectives"
    (Interspeech 2019), with the teacher's probabilities in the place of labels (soft targets:
    Hinton et al., "Distilling the knowledge in a neural network", 2015, temperature 1).
    """
    cost = pairwise_bce(student, teacher)
    permutation = best_permutation(cost)
    return cost.gather(2, permutation.unsqueeze(2)).mean()
