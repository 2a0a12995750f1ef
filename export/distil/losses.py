"""Losses of a student that imitates a teacher's frame scores."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import softplus


def pairwise_bce(logits: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy of every student speaker against every teacher speaker.

    `logits` are the student's scores before their sigmoid, `teacher` the teacher's probabilities,
    both [batch, frames, speakers]. The result is [batch, student speaker, teacher speaker], the
    mean over frames of -(t log s + (1 - t) log(1 - s)) = softplus(z) - t z with s = sigmoid(z):
    finite for every logit, with a gradient (s - t) that never vanishes on a wrong score.
    """
    frames = logits.shape[1]
    constant = softplus(logits).mean(1)
    return constant.unsqueeze(2) - torch.einsum("bfi,bfj->bij", logits, teacher) / frames


def best_permutation(cost: Tensor) -> Tensor:
    """Cheapest one-to-one assignment of each item of a batch.

    `cost` is [batch, student speaker, teacher speaker]; the result [batch, speaker] holds for
    every student speaker the teacher speaker it is compared with. Costs that are not finite are
    no reason to fail here: whoever gathers them sees them.
    """
    costs = np.nan_to_num(cost.detach().cpu().numpy())
    columns = np.stack([linear_sum_assignment(item)[1] for item in costs])
    return torch.as_tensor(columns, device=cost.device)


def permutation_invariant_bce(logits: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy on the teacher's probabilities under each window's best permutation.

    `logits` are the student's, `teacher` probabilities, both [batch, frames, speakers]; a scalar
    comes back. This is equation 2 of Fujita et al., "End-to-end neural speaker diarization with
    permutation-free objectives" (Interspeech 2019), with the teacher's probabilities in the place
    of labels (soft targets: Hinton et al., "Distilling the knowledge in a neural network", 2015,
    temperature 1).
    """
    cost = pairwise_bce(logits, teacher)
    permutation = best_permutation(cost)
    return cost.gather(2, permutation.unsqueeze(2)).mean()
