"""Losses of a student that imitates a teacher's frame scores."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import log_softmax, softplus


def frame_shares(counts: Tensor, *, overlap_weight: float) -> Tensor:
    """What each frame of a window counts, [batch, frames], adding up to 1 over the frames.

    `counts` [batch, frames] are speakers who talk, or how many are expected to. A frame of n weighs
    1 + w max(0, n - 1): of what meetings hold little of, a student that hears frames alike learns
    little.
    """
    weights = 1 + overlap_weight * (counts - 1).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def pairwise_bce(logits: Tensor, teacher: Tensor, shares: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of every student speaker against every teacher speaker.

    `logits` are the student's scores before their sigmoid, `teacher` the teacher's probabilities,
    both [batch, frames, speakers]. The result is [batch, student speaker, teacher speaker], the
    mean over frames (weighed by `shares`, where given) of
    -(t log s + (1 - t) log(1 - s)) = softplus(z) - t z with s = sigmoid(z): finite for every logit,
    with a gradient (s - t) that never vanishes on a wrong score.
    """
    if shares is None:
        shares = torch.full_like(logits[..., 0], 1 / logits.shape[1])
    constant = torch.einsum("bfi,bf->bi", softplus(logits), shares)
    crossed = torch.einsum("bfi,bfj->bij", logits * shares.unsqueeze(2), teacher)
    return constant.unsqueeze(2) - crossed


def best_permutation(cost: Tensor) -> Tensor:
    """Cheapest one-to-one assignment of each item of a batch.

    `cost` is [batch, student speaker, teacher speaker]; the result [batch, speaker] holds for
    every student speaker the teacher speaker it is compared with. Costs that are not finite are
    no reason to fail here: whoever gathers them sees them.
    """
    costs = np.nan_to_num(cost.detach().cpu().numpy())
    columns = np.stack([linear_sum_assignment(item)[1] for item in costs])
    return torch.as_tensor(columns, device=cost.device)


def permutation_invariant_bce(
    logits: Tensor, teacher: Tensor, shares: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy on the teacher's probabilities under each window's best permutation.

    `logits` are the student's, `teacher` probabilities, both [batch, frames, speakers]; `shares`
    are `frame_shares`. A scalar comes back. This is equation 2 of Fujita et al., "End-to-end
    neural speaker diarization with permutation-free objectives" (Interspeech 2019), with the
    teacher's probabilities in the place of labels (soft targets: Hinton et al., "Distilling the
    knowledge in a neural network", 2015, temperature 1).
    """
    cost = pairwise_bce(logits, teacher, shares)
    permutation = best_permutation(cost)
    return cost.gather(2, permutation.unsqueeze(2)).mean()


def permutation_invariant_kl(
    logits: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    permutations: Tensor,
    frames: Tensor | None = None,
) -> Tensor:
    """Kullback-Leibler divergence of a powerset student from its teacher, at a temperature T.

    `logits` are the student's and `teacher` the teacher's (or its log-probabilities, which differ
    by a constant that the softmax takes away), both [batch, frames, classes]; `permutations` are
    `powerset.class_permutations`. A scalar comes back: T^2 times the mean over frames (weighed by
    `frames`, the `frame_shares`, where given) of sum_c p_c (log p_c - log q_c), p and q the
    softmax of teacher / T and logits / T, under each window's best order of speakers. Hinton,
    Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2: equation 1
    at both ends, and T^2 so that gradients keep their size.
    """
    given = log_softmax(teacher / temperature, -1)
    own = log_softmax(logits / temperature, -1)
    if frames is None:
        frames = torch.full_like(logits[..., 0], 1 / logits.shape[1])
    shares = given.exp() * frames.unsqueeze(2)
    entropy = (shares * given).sum((1, 2))
    crossed = torch.einsum("bfi,bfj->bij", own, shares)
    order = permutations.to(logits.device)
    # For every order the sum over the student's classes i of what the teacher says of order(i).
    agreement = crossed[:, torch.arange(order.shape[1], device=order.device), order].sum(2)
    return temperature**2 * (entropy - agreement.max(1).values).mean()


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the squared distance of hidden features, the mean over all of them.

    Both are [batch, frames, width]; `student` has gone through the regressor that takes it to the
    teacher's width. Equation 3 of Romero et al., "FitNets: hints for thin deep nets", ICLR 2015,
    divided by the number of features, so that its size does not depend on theirs.
    """
    return 0.5 * (student - teacher).square().mean()


def mixed_loss(imitation: Tensor, labelled: Tensor, *, label_share: float) -> Tensor:
    """(1 - w) times the loss on the teacher's scores plus w times that on the labels.

    Hinton et al., 2015, section 2: "a weighted average of two different objective functions".
    """
    return (1 - label_share) * imitation + label_share * labelled
