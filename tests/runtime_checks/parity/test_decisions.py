"""Decisions, dead bands and speaker permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.pyannote_import import pyannote_audio
from export.types import FrameGeometry, ModelSpec
from runtime_checks.parity.decisions import (
    best_permutation,
    compare_decisions,
    decide,
    probabilities,
    speaker_sets,
)


def make_spec(
    speakers: int = 3, powerset: int | None = None, *, invariant: bool = True
) -> ModelSpec:
    geometry = FrameGeometry(
        sample_rate_hz=16000,
        window_samples=80000,
        num_frames=293,
        frame_step_samples=270,
        receptive_field_samples=991,
    )
    return ModelSpec(
        name="made-up",
        architecture="PyanNet",
        geometry=geometry,
        classes=tuple(f"speaker#{i}" for i in range(speakers)),
        powerset_max_classes=powerset,
        permutation_invariant=invariant,
        inputs=(),
        outputs=(),
        licence="MIT",
        trained_on="nothing",
    )


def clear_scores(seed: int, *, frames: int = 60, speakers: int = 3) -> NDArray[np.float64]:
    """Scores far from the threshold, with a different activity for every speaker."""
    rng = np.random.default_rng(seed)
    active = np.repeat(rng.random((frames // 10, speakers)) > 0.5, 10, axis=0)
    active[0], active[1] = True, [True] + [False] * (speakers - 1)
    return np.where(active, 0.9, 0.1)


@pytest.mark.parametrize(("speakers", "size"), [(3, 2), (4, 2), (3, 3), (2, 1)])
def test_powerset_classes_are_in_pyannotes_order(speakers: int, size: int) -> None:
    pyannote_audio()
    from pyannote.audio.utils.powerset import Powerset

    expected = Powerset(speakers, size).mapping.numpy().astype(bool)
    assert np.array_equal(speaker_sets(make_spec(speakers, size)), expected)


def test_a_powerset_frame_is_its_likeliest_set() -> None:
    spec = make_spec(3, 2)
    scores = np.log(np.array([[0.1, 0.2, 0.1, 0.1, 0.4, 0.05, 0.05]]))
    assert decide(scores, spec).tolist() == [[True, True, False]]
    assert probabilities(scores, spec).sum() == pytest.approx(1)


@given(st.integers(0, 10_000))
def test_equal_scores_never_differ(seed: int) -> None:
    scores = np.random.default_rng(seed).random((50, 3))
    found = compare_decisions(scores, scores, spec=make_spec(), band=0.0)
    assert (found.flips, found.flips_as_they_stand, found.permutation) == (0, 0, None)
    assert np.array_equal(found.settled, scores > 0.5)


@given(st.integers(0, 10_000), st.sampled_from(list(permutations(range(3)))))
def test_a_permutation_is_found_and_undone(seed: int, order: tuple[int, ...]) -> None:
    reference = clear_scores(seed)
    artifact = reference[:, list(order)]
    found = compare_decisions(artifact, reference, spec=make_spec(), band=0.0)
    assert found.flips == 0
    assert np.array_equal(found.settled, found.reference)
    swapped = not np.array_equal(artifact, reference)
    assert (found.permutation is not None) is swapped
    assert (found.flips_as_they_stand > 0) is swapped


@given(st.integers(0, 10_000))
def test_the_best_permutation_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mine, theirs = rng.random((40, 4)) > 0.5, rng.random((40, 4)) > 0.5
    order = best_permutation(mine, theirs)
    least = min((mine[:, list(p)] != theirs).sum() for p in permutations(range(4)))
    assert (mine[:, list(order)] != theirs).sum() == least


def test_a_model_with_fixed_speakers_knows_no_permutation() -> None:
    reference = clear_scores(1)
    spec = make_spec(invariant=False)
    found = compare_decisions(reference[:, [1, 0, 2]], reference, spec=spec, band=0.0)
    assert found.permutation is None
    assert found.flips == found.flips_as_they_stand > 0


def test_speakers_permuted_in_half_of_the_frames_are_a_loss_and_no_swap() -> None:
    reference = clear_scores(3)
    artifact = reference.copy()
    artifact[30:] = artifact[30:, [1, 2, 0]]
    found = compare_decisions(artifact, reference, spec=make_spec(), band=0.0)
    assert found.permutation is None
    assert found.flips == found.flips_as_they_stand > 5


@pytest.mark.parametrize(("distance", "flips"), [(0.009, 0), (0.011, 1)])
def test_the_dead_band_forgives_what_is_within_it(distance: float, flips: int) -> None:
    reference, artifact = clear_scores(0), clear_scores(0)
    reference[20, 2], artifact[20, 2] = 0.5 + distance, 0.5 - distance
    reference[20, :2] = artifact[20, :2] = 0.1
    found = compare_decisions(artifact, reference, spec=make_spec(), band=0.01)
    assert found.flips == flips
    assert found.undecided == 1 - flips
    assert bool(found.settled[20, 2]) is (flips == 0)


def test_the_powerset_band_forgives_the_runner_up_and_no_other_set() -> None:
    spec = make_spec(3, 2)
    reference = np.log(np.array([[0.405, 0.395, 0.1, 0.05, 0.02, 0.02, 0.01]]))
    second = np.log(np.array([[0.395, 0.405, 0.1, 0.05, 0.02, 0.02, 0.01]]))
    other = np.log(np.array([[0.3, 0.3, 0.3, 0.31, 0.02, 0.02, 0.01]]))
    assert compare_decisions(second, reference, spec=spec, band=0.01).flips == 0
    assert compare_decisions(second, reference, spec=spec, band=0.001).flips == 1
    assert compare_decisions(other, reference, spec=spec, band=0.01).flips == 1
    assert compare_decisions(second, reference, spec=spec, band=0.01).undecided == 1
