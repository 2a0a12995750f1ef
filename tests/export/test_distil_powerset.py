"""Losses of powerset students, hints and mixes, against what their papers write down."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from export.distil.losses import hint_loss, mixed_loss, permutation_invariant_kl
from export.distil.objective import Objective
from export.distil.powerset import class_permutations, decided_speakers, speaker_sets
from export.pyannote_import import pyannote_audio


def test_classes_are_those_of_pyannote() -> None:
    pyannote_audio()
    from pyannote.audio.utils.powerset import Powerset

    theirs = Powerset(3, 2)
    sets = speaker_sets(3, 2)
    assert sets == ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2))
    for index, members in enumerate(sets):
        assert torch.nonzero(theirs.mapping[index]).flatten().tolist() == list(members)
    scores = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decided_speakers(scores, speakers=3, largest=2), theirs(scores))


def test_classes_follow_their_speakers() -> None:
    table = class_permutations(3, 2)
    assert table.shape == (6, 7) and table[0].tolist() == list(range(7))
    sets = speaker_sets(3, 2)
    for order, row in zip(permutations(range(3)), table.tolist(), strict=True):
        for members, other in zip(sets, row, strict=True):
            assert sets[other] == tuple(sorted(order[speaker] for speaker in members))


def scores(seed: int) -> Tensor:
    return torch.randn(3, 11, 7, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_is_that_of_the_best_order(temperature: float) -> None:
    table = class_permutations(3, 2)
    student, teacher = scores(0), scores(1)
    loss = permutation_invariant_kl(
        student, log_softmax(teacher, -1), temperature=temperature, permutations=table
    )
    expected = []
    for window in range(3):
        own = log_softmax(student[window] / temperature, -1)
        given = log_softmax(teacher[window] / temperature, -1)
        found = [
            kl_div(own, given[:, order], log_target=True, reduction="sum") / 11 for order in table
        ]
        expected.append(min(float(each) for each in found))
    assert float(loss) == pytest.approx(temperature**2 * sum(expected) / 3, rel=1e-5)


def test_another_order_of_speakers_costs_nothing() -> None:
    table = class_permutations(3, 2)
    teacher = scores(2)
    for order in table:
        loss = permutation_invariant_kl(
            teacher[..., order], teacher, temperature=2.0, permutations=table
        )
        assert float(loss) == pytest.approx(0, abs=1e-5)


def test_the_gradient_is_the_difference_of_probabilities() -> None:
    # Hinton et al., equation 2: T^2 times 1/T (q - p).
    student, teacher = scores(3).requires_grad_(), scores(3) + 0.01
    loss = permutation_invariant_kl(
        student, teacher, temperature=2.0, permutations=class_permutations(3, 2)
    )
    (gradient,) = torch.autograd.grad(loss, student)
    difference = (student / 2).softmax(-1) - (teacher / 2).softmax(-1)
    assert torch.allclose(gradient, 4 * 0.5 * difference / 33, atol=1e-7)


def test_frames_of_sets_of_two_weigh_more() -> None:
    # Certain teachers: frame 0 silent, frame 1 of one speaker, frame 2 of two (classes 0, 1, 4).
    teacher = 100.0 * torch.nn.functional.one_hot(torch.tensor([[0, 1, 4]]), 7).float()
    student = teacher / 100 + scores(4)[:1, :3] / 10
    by_frame = -log_softmax(student, -1)[0, [0, 1, 2], [0, 1, 4]]
    loss = Objective(3, 2, overlap_weight=1.0).loss(student, teacher)
    expected = (by_frame * torch.tensor([1.0, 1.0, 2.0])).sum() / 4
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_hints_and_mixes() -> None:
    student, teacher = torch.zeros(2, 3, 4), torch.full((2, 3, 4), 2.0)
    assert float(hint_loss(student, teacher)) == 2.0
    mixed = mixed_loss(torch.tensor(1.0), torch.tensor(3.0), label_share=0.25)
    assert float(mixed) == 1.5
