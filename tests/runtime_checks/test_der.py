"""DER against an independent count on a fine grid, and its corner cases."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.audio import Window
from export.types import DerInterval, FrameGeometry
from runtime_checks.der import DerScorer, DerSettings, how_sure, paired_interval, turns_of
from runtime_checks.parity.decisions import Bools
from runtime_checks.results import Turn
from runtime_checks.rttm import SpeechReference

# Frames of 10 ms that tile the window, so that the grid below is exact.
GEOMETRY = FrameGeometry(
    sample_rate_hz=1000,
    window_samples=1000,
    num_frames=100,
    frame_step_samples=10,
    receptive_field_samples=10,
)


def window(start_s: float = 0.0, valid: int = 1000, uri: str = "meeting") -> Window:
    return Window(uri, start_s, np.zeros(1000, np.float32), valid)


def scorer(turns: list[Turn], windows: list[Window], der: DerSettings | None = None) -> DerScorer:
    return DerScorer(
        SpeechReference({"meeting": tuple(turns)}, {}), windows, geometry=GEOMETRY, settings=der
    )


def as_turns(active: Bools) -> list[Turn]:
    return turns_of(active, GEOMETRY, start_s=0.0, names=["a", "b", "c"])


def blocks(seed: int) -> Bools:
    rng = np.random.default_rng(seed)
    return np.repeat(rng.random((20, 3)) > 0.5, 5, axis=0)


def counted(reference: Bools, hypothesis: Bools) -> dict[str, float]:
    """DER frame by frame, trying every mapping of speakers."""

    def parts(mapped: Bools) -> NDArray[np.int64]:
        spoken, said = reference.sum(axis=1), mapped.sum(axis=1)
        correct = (reference & mapped).sum(axis=1)
        return np.array(
            [
                np.maximum(said - spoken, 0).sum(),
                np.maximum(spoken - said, 0).sum(),
                (np.minimum(spoken, said) - correct).sum(),
            ]
        )

    best = min((parts(hypothesis[:, list(p)]) for p in permutations(range(3))), key=np.sum)
    names = ("false_alarm", "missed_detection", "confusion")
    return dict(zip(names, 100 * best / reference.sum(), strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_it_is_what_counting_frames_gives(seed: int, other: int) -> None:
    reference, hypothesis = blocks(seed), blocks(other)
    score = scorer(as_turns(reference), [window()]).score([hypothesis])
    expected = counted(reference, hypothesis)
    assert score is not None
    for name, value in expected.items():
        assert getattr(score, name) == pytest.approx(value, abs=1e-6)
    assert score.pooled == pytest.approx(sum(expected.values()), abs=1e-6)
    assert score.window_mean == pytest.approx(score.pooled, abs=1e-6)
    assert score.reference_speech_s == pytest.approx(reference.sum() / 100)


def test_the_truth_has_no_error_however_its_speakers_are_ordered() -> None:
    active = blocks(5)
    score = scorer(as_turns(active), [window()]).score([active[:, [2, 0, 1]]])
    assert score is not None
    assert (score.pooled, score.window_mean) == (0, 0)


def test_each_window_has_its_own_mapping_and_pooling_weighs_by_speech() -> None:
    turns = [Turn(0.0, 0.5, "alice"), Turn(1.0, 2.0, "alice")]
    first, second = np.zeros((100, 3), np.bool_), np.zeros((100, 3), np.bool_)
    first[:50, 0] = True  # right, as speaker 0
    second[:50, 1] = True  # right as speaker 1, for half of the time
    score = scorer(turns, [window(), window(1.0)]).score([first, second])
    assert score is not None
    assert score.missed_detection == score.pooled == pytest.approx(100 * 0.5 / 1.5)
    assert score.window_mean == pytest.approx((0 + 50) / 2)
    assert score.num_windows == 2


def test_false_alarms_where_nobody_speaks_are_in_the_pooled_rate() -> None:
    noisy = np.ones((100, 3), np.bool_)
    noisy[:, 1:] = False
    score = scorer([Turn(0.0, 1.0, "alice")], [window(), window(1.0)]).score([noisy, noisy])
    assert score is not None
    assert score.window_mean == pytest.approx(0)
    assert score.false_alarm == score.pooled == pytest.approx(100)
    assert score.num_windows == 1


def test_padding_is_not_scored() -> None:
    everyone = np.ones((100, 3), np.bool_)
    everyone[:, 1:] = False
    score = scorer([Turn(0.0, 1.0, "alice")], [window(valid=400)]).score([everyone])
    assert score is not None
    assert score.reference_speech_s == pytest.approx(0.4)
    assert score.pooled == pytest.approx(0)


def test_only_covered_windows_and_scored_intervals_count() -> None:
    reference = SpeechReference(
        {"meeting": (Turn(0.0, 1.0, "alice"),)}, {"meeting": ((0.5, 0.75),)}
    )
    windows = [window(uri="other"), window()]
    found = DerScorer(reference, windows, geometry=GEOMETRY)
    nothing = np.zeros((100, 3), np.bool_)
    score = found.score([nothing, nothing])
    assert found.covered == [1]
    assert score is not None
    assert score.reference_speech_s == pytest.approx(0.25)
    assert score.missed_detection == pytest.approx(100)


@pytest.mark.parametrize("settings_", [DerSettings(), DerSettings(0.1, skip_overlap=True)])
def test_a_window_outside_the_scored_intervals_counts_for_nothing(settings_: DerSettings) -> None:
    reference = SpeechReference({"meeting": (Turn(0.0, 2.0, "alice"),)}, {"meeting": ((0.2, 0.8),)})
    everyone = np.ones((100, 3), np.bool_)
    alice = everyone & np.array([True, False, False])
    score = DerScorer(
        reference, [window(), window(1.0)], geometry=GEOMETRY, settings=settings_
    ).score([alice, everyone])
    assert score is not None
    assert (score.pooled, score.num_windows) == (0, 1)
    assert score.reference_speech_s == pytest.approx(0.6)


def test_without_speech_there_is_no_score() -> None:
    assert scorer([], [window()]).score([np.ones((100, 3), np.bool_)]) is None


def test_collar_and_overlap_rule_are_applied_and_told() -> None:
    turns = [Turn(0.2, 0.8, "alice"), Turn(0.4, 0.6, "bob")]
    late = np.zeros((100, 3), np.bool_)
    late[25:85, 0] = True
    plain = scorer(turns, [window()]).score([late])
    told = DerSettings(collar_s=0.1, skip_overlap=True)
    lenient = scorer(turns, [window()], told).score([late])
    assert plain is not None and lenient is not None
    assert plain.pooled > 0
    assert lenient.pooled == pytest.approx(0)
    assert (lenient.collar_s, lenient.skip_overlap) == (0.1, True)
    assert str(told) == "collar 0.1 s, overlapped speech not scored"
    assert str(DerSettings()) == "collar 0 s, overlapped speech scored"


def test_a_frame_lasts_half_a_step_around_its_centre() -> None:
    geometry = FrameGeometry(
        sample_rate_hz=16000,
        window_samples=80000,
        num_frames=293,
        frame_step_samples=270,
        receptive_field_samples=991,
    )
    active = np.zeros((293, 1), np.bool_)
    active[10:12] = True
    (turn,) = turns_of(active, geometry, start_s=2.0, names=["a"])
    assert turn.start_s == pytest.approx(2.0 + (10 * 270 + 495.5 - 135) / 16000)
    assert turn.end_s - turn.start_s == pytest.approx(2 * 270 / 16000)


def test_the_interval_is_what_drawing_all_resamples_gives() -> None:
    """With three pieces there are 27 draws, whose quantiles are exact."""
    differences, speech = np.array([0.3, -0.1, 0.05]), np.array([1.0, 2.0, 0.5])
    draws = np.array(list(product(range(3), repeat=3)))
    rates = 100 * differences[draws].sum(1) / speech[draws].sum(1)
    found = paired_interval(differences, speech, stretches=[0, 1, 2])
    assert found is not None
    assert found.low == pytest.approx(np.quantile(rates, 0.025, method="inverted_cdf"))
    assert found.high == pytest.approx(np.quantile(rates, 0.975, method="inverted_cdf"))
    assert (found.stretches, found.confidence) == (3, 0.95)
    assert found == paired_interval(differences, speech, stretches=[0, 1, 2])


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        differences, speech = rng.normal(0.02, 0.1, 60), rng.uniform(0.5, 1.5, 60)
        found = paired_interval(differences, speech, stretches=range(60))
        assert found is not None
        held += found.low <= 100 * 0.02 <= found.high
    assert 88 <= held <= 99


def test_windows_that_overlap_are_drawn_together_so_they_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    differences, speech = rng.normal(0, 0.1, 40), np.ones(40)
    alone = paired_interval(differences, speech, stretches=range(40))
    twice = [np.repeat(each, 2) for each in (differences, speech, np.arange(40))]
    again = paired_interval(twice[0], twice[1], stretches=twice[2])
    assert alone is not None and again is not None
    assert (again.low, again.high) == pytest.approx((alone.low, alone.high))
    assert again.stretches == 40


def test_what_overlaps_in_one_recording_is_one_stretch() -> None:
    turns = [Turn(0.0, 4.0, "alice")]
    windows = [window(start) for start in (0.0, 0.5, 1.0, 1.5, 2.0)]
    alice = np.ones((100, 3), np.bool_) & np.array([True, False, False])
    late = alice & (np.arange(100) >= 50)[:, None]
    compared = scorer(turns, windows).compare([late, *[alice] * 4], [alice] * 5)
    assert compared is not None and compared.interval is not None
    assert compared.interval.stretches == 3
    assert compared.delta == pytest.approx(100 * 0.5 / 5)
    assert compared.interval.low == pytest.approx(0)
    # All three drawn are the first stretch: half a second of two is missed.
    assert compared.interval.high == pytest.approx(100 * 0.5 / 2, abs=10)


@pytest.mark.parametrize("speech", [[1.0, 0.0], [0.0, 0.0], [1.0]])
def test_one_piece_with_speech_has_no_interval(speech: list[float]) -> None:
    numbers = range(len(speech))
    assert paired_interval([0.1] * len(speech), speech, stretches=numbers) is None
    assert "no interval" in how_sure(None)


def test_the_same_decisions_differ_by_nothing_for_certain() -> None:
    found = paired_interval([0.0, 0.0, 0.0], [1.0, 1.0, 0.0], stretches=[0, 1, 2])
    assert found is not None and (found.low, found.high) == (0, 0)


def test_few_stretches_and_a_limit_within_reach_are_said() -> None:
    few = DerInterval(low=-0.2, high=0.7, confidence=0.95, stretches=12)
    told = how_sure(few, limit=0.5)
    assert "95 % interval of the difference -0.20 to +0.70 points, from 12 stretches" in told
    assert "few, so the interval is wide" in told
    assert "it holds the limit of 0.5" in told
    many = few.model_copy(update={"stretches": 200, "high": 0.3})
    assert "few" not in how_sure(many, limit=0.5) and "limit" not in how_sure(many, limit=0.5)
