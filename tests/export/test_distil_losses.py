"""The permutation-invariant loss and the agreement figure against their definitions."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from export.distil.evaluate import compare_scores
from export.distil.losses import best_permutation, pairwise_bce, permutation_invariant_bce
from export.distil.objective import Objective


def scores(seed: int, *, batch: int, frames: int, speakers: int) -> tuple[Tensor, Tensor]:
    """Logits and probabilities."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 3 * torch.randn((2, batch, frames, speakers), generator=generator)
    return drawn[0], torch.sigmoid(drawn[1])


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "batch": st.integers(1, 3),
        "frames": st.integers(1, 7),
        "speakers": st.integers(1, 4),
    }
)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_loss_is_the_smallest_cross_entropy_over_all_permutations(shape: dict[str, int]) -> None:
    student, teacher = scores(**shape)
    cheapest = [
        min(
            torch.nn.functional.binary_cross_entropy_with_logits(s, t[:, list(order)])
            for order in permutations(range(t.shape[1]))
        )
        for s, t in zip(student, teacher, strict=True)
    ]
    expected = float(torch.stack(cheapest).mean())
    assert float(permutation_invariant_bce(student, teacher)) == pytest.approx(expected, rel=1e-4)


@given(shapes)
@settings(max_examples=20, deadline=None)
def test_loss_ignores_the_order_of_speakers(shape: dict[str, int]) -> None:
    student, teacher = scores(**shape)
    turned = teacher.roll(1, dims=2)
    first, second = (permutation_invariant_bce(student, t) for t in (teacher, turned))
    assert float(first) == pytest.approx(float(second), rel=1e-5)


@given(shapes)
@settings(max_examples=20, deadline=None)
def test_assignment_uses_every_speaker_once(shape: dict[str, int]) -> None:
    assigned = best_permutation(pairwise_bce(*scores(**shape)))
    for row in assigned:
        assert sorted(row.tolist()) == list(range(shape["speakers"]))


def test_saturated_scores_have_a_finite_gradient_that_corrects_them() -> None:
    """A loss on probabilities has none: infinite at 0, or zero where they are clamped."""
    logits = torch.tensor([[[-200.0, 200.0], [-200.0, 30.0]]], requires_grad=True)
    teacher = torch.tensor([[[0.9, 1.0], [1.0, 1.0]]])
    (gradient,) = torch.autograd.grad(permutation_invariant_bce(logits, teacher), logits)
    assert gradient[0, :, 0].tolist() == pytest.approx([-0.9 / 4, -1 / 4])
    assert gradient[0, :, 1].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_frames_of_several_speakers_weigh_more() -> None:
    teacher = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    logits = torch.tensor([[[-1.0, -2.0], [0.5, -0.5], [1.5, 0.25]]])
    by_frame = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, teacher, reduction="none"
    ).mean((0, 2))
    weights = torch.tensor([1.0, 1.0, 3.0])  # silence weighs no less than one speaker
    loss = Objective(2, overlap_weight=2.0).loss(logits, teacher)
    assert float(loss) == pytest.approx(float((by_frame * weights).sum() / 5))
    plain = Objective(2).loss(logits, teacher)
    assert float(plain) == pytest.approx(float(by_frame.mean()))


def test_a_loss_that_is_not_finite_is_told_and_not_hidden() -> None:
    student, teacher = scores(0, batch=2, frames=3, speakers=3)
    student[1, 2, 0] = float("nan")
    assert torch.isnan(permutation_invariant_bce(student, teacher))


def test_agreement_counts_decisions_and_whole_frames() -> None:
    teacher = torch.full((1, 10, 3), 0.1)
    teacher[0, :5, 0] = 0.9
    student = teacher[:, :, [2, 0, 1]].clone()
    student[0, 0, 1] = 0.4  # the speaker of frame 0 is missed
    student[0, 9, 0] = 0.6  # somebody is heard in frame 9
    found = compare_scores(student, teacher)
    assert found.decisions_percent == pytest.approx(100 * 28 / 30)
    assert found.frames_percent == pytest.approx(80)
    assert found.windows == 1


def test_agreement_finds_the_permutation_of_each_window() -> None:
    _, teacher = scores(1, batch=2, frames=50, speakers=3)
    student = teacher.clone()
    student[1] = teacher[1][:, [1, 2, 0]]
    assert compare_scores(student, teacher).decisions_percent == 100
