"""Hysteresis, powerset probabilities and the frames that embeddings are made of."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.types import FrameGeometry, ModelSpec
from runtime_checks.diarize.decisions import hysteresis, speaker_probabilities
from runtime_checks.diarize.overlap import clean_frames, overlap_aware_weights


def spec(*, powerset: int | None) -> ModelSpec:
    return ModelSpec(
        name="n",
        architecture="a",
        geometry=FrameGeometry(
            sample_rate_hz=16000,
            window_samples=32000,
            num_frames=2,
            frame_step_samples=270,
            receptive_field_samples=991,
        ),
        classes=("speaker1", "speaker2", "speaker3"),
        powerset_max_classes=powerset,
        permutation_invariant=True,
        inputs=(),
        outputs=(),
        licence="MIT",
        trained_on="nothing",
    )


@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(0, 30),
    cut=st.integers(0, 30),
    low=st.floats(0.1, 0.5),
    more=st.floats(0, 0.4),
)
def test_hysteresis_is_a_state_that_a_stream_carries_on(
    seed: int, frames: int, cut: int, low: float, more: float
) -> None:
    scores = np.random.default_rng(seed).random((frames, 2))
    onset = low + more
    whole = hysteresis(scores, onset=onset, offset=low)

    state, expected = np.zeros(2, np.bool_), []
    for row in scores:
        state = np.where(row >= onset, True, np.where(row < low, False, state))
        expected.append(state)
    np.testing.assert_array_equal(whole, np.array(expected).reshape(frames, 2))

    first = hysteresis(scores[:cut], onset=onset, offset=low)
    last = first[-1] if len(first) else None
    second = hysteresis(scores[cut:], onset=onset, offset=low, before=last)
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)


def test_a_speakers_probability_is_the_sum_over_the_sets_that_hold_it() -> None:
    shares = np.array([[0.1, 0.2, 0.05, 0.05, 0.3, 0.2, 0.1]])  # none, 1, 2, 3, 12, 13, 23
    found = speaker_probabilities(np.log(shares), spec(powerset=2))
    np.testing.assert_allclose(found, [[0.7, 0.45, 0.35]])
    plain = np.array([[0.1, 0.9, 0.4]])
    np.testing.assert_array_equal(speaker_probabilities(plain, spec(powerset=None)), plain)


def test_overlap_aware_weights_are_the_published_ones() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 1.0], [0.5, 0.0]])
    weights = overlap_aware_weights(scores, gamma=3, beta=10)
    alone = 1 / (1 + np.exp(-10))
    expected = [alone**3, 0.5**3, (0.5 / (1 + np.exp(-5))) ** 3]
    np.testing.assert_allclose(weights[0], expected)
    np.testing.assert_allclose(weights[1], [1e-8, 0.5**3, 1e-8])


def test_clean_frames_have_one_speaker() -> None:
    scores = np.array([[0.9, 0.1], [0.9, 0.5], [0.2, 0.4], [0.1, 0.5]])
    expected = [[True, False], [False, False], [False, False], [False, True]]
    np.testing.assert_array_equal(clean_frames(scores, tau=0.5), expected)
