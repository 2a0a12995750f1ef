"""Error rates of speaker verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.audio import Recording
from export.errors import AudioError
from runtime_checks.verification import (
    cut_segments,
    equal_error_rate,
    error_rates,
    min_detection_cost,
    score_embeddings,
    verify,
)


def test_rates_of_trials_counted_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    targets = np.array([True, True, False, True, False, False])
    misses, false_alarms = error_rates(scores, targets)
    assert misses.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3, 0, 0, 0])
    assert false_alarms.tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert equal_error_rate(misses, false_alarms) == pytest.approx(1 / 3)
    # A third of the targets missed without a false alarm is cheapest where targets are rare.
    assert min_detection_cost(misses, false_alarms, prior=0.01) == pytest.approx(1 / 3)
    assert min_detection_cost(misses, false_alarms, prior=0.5) == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60))
def test_rates_are_counts_over_thresholds(trials: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in trials], float)
    targets = np.array([target for _, target in trials])
    if targets.all() or not targets.any():
        with pytest.raises(ValueError, match="target and impostor"):
            error_rates(scores, targets)
        return
    misses, false_alarms = error_rates(scores, targets)
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    expected = [
        (np.mean(scores[targets] < at), np.mean(scores[~targets] >= at)) for at in thresholds
    ]
    np.testing.assert_allclose(np.stack([misses, false_alarms], axis=1), expected, atol=1e-12)
    rate = equal_error_rate(misses, false_alarms)
    assert 0 <= rate <= 1
    # It lies between the rates on both sides of the crossing.
    side = int(np.argmax(misses <= false_alarms))
    assert max(misses[side], false_alarms[side - 1]) - 1e-12 <= rate
    assert rate <= min(misses[side - 1], false_alarms[side]) + 1e-12
    for prior in (0.01, 0.001):
        assert 0 <= min_detection_cost(misses, false_alarms, prior=prior) <= 1 + 1e-12


def test_embeddings_that_tell_voices_apart_make_no_errors() -> None:
    rng = np.random.default_rng(0)
    speakers = ["a"] * 4 + ["b"] * 3 + ["c"] * 2
    centres = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1]}
    embeddings = np.array([centres[name] for name in speakers]) + rng.normal(0, 0.01, (9, 3))
    score = score_embeddings(embeddings * rng.uniform(0.1, 9, (9, 1)), speakers)
    assert score.eer == 0
    assert score.min_dcf == {"0.01": 0, "0.001": 0}
    assert (score.targets, score.impostors) == (6 + 3 + 1, 36 - 10)
    mixed = score_embeddings(rng.normal(0, 1, (9, 3)), speakers)
    assert mixed.eer > 20


def test_segments_are_cut_whole() -> None:
    def utterance(uri: str, seconds: float) -> Recording:
        samples = np.full(round(seconds * 16000), float(uri), np.float32)
        return Recording(uri, Path(uri), samples, 16000, ())

    speakers = {"b": [utterance("3", 3.0)], "a": [utterance("1", 7.0), utterance("2", 2.9)]}
    segments = cut_segments(speakers)
    assert segments.speakers == ("a", "a", "b")
    assert [len(samples) for samples in segments.samples] == [48000] * 3
    score = verify(segments, lambda samples: np.array([samples[0] == 1, samples[0] == 3], float))
    assert (score.eer, score.segments, score.speakers) == (0, 3, 2)
    with pytest.raises(AudioError, match="1 segments of 1 speakers"):
        cut_segments({"b": speakers["b"]})
