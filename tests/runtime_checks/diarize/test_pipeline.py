"""Online and whole-file diarization of audio whose truth is known."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.errors import AudioError, RecipeError
from export.types import PipelineParameters
from runtime_checks.diarize.agglomeration import SpeakerCount
from runtime_checks.diarize.online import DecidedFrames, Decision, OnlineDiarizer
from runtime_checks.diarize.stages import Stages, WindowSpeech, listen
from runtime_checks.diarize.whole import WholeFileDiarizer
from runtime_checks.diarize.windows import RollingWindow
from runtime_checks.results import Turn

from .conftest import audio

TRUTH = ((0, 0.5, 4.0), (1, 4.5, 9.0), (0, 8.0, 11.0), (2, 12.0, 15.0), (1, 15.5, 19.2))
LENGTH_S = 20.3
FRAME_S = 0.02


def online(
    samples: NDArray[np.float32],
    stages: Stages,
    parameters: PipelineParameters,
    *,
    sizes: list[int] | None = None,
) -> list[Decision]:
    diarizer = OnlineDiarizer(stages, parameters)
    decisions, taken = [], 0
    for size in [*(sizes or []), len(samples)]:
        decisions += list(diarizer.push(samples[taken : taken + size]))
        taken += size
    return [*decisions, *diarizer.finish()]


def ended(decisions: list[Decision]) -> list[Turn]:
    turns = [turn for decision in decisions for turn in decision.ended]
    return sorted(turns, key=lambda turn: turn.start_s)


def whole(
    samples: NDArray[np.float32],
    stages: Stages,
    parameters: PipelineParameters,
    count: SpeakerCount | None = None,
) -> list[Turn]:
    diarizer = WholeFileDiarizer(stages, parameters)
    diarizer.push(samples)
    return diarizer.finish(count)


def assert_truth(turns: list[Turn], truth: tuple[tuple[int, float, float], ...] = TRUTH) -> None:
    names: dict[int, str] = {}
    assert len(turns) == len(truth)
    for turn, (person, start_s, end_s) in zip(turns, truth, strict=True):
        assert names.setdefault(person, turn.speaker) == turn.speaker
        assert turn.start_s == pytest.approx(start_s, abs=FRAME_S)
        assert turn.end_s == pytest.approx(end_s, abs=FRAME_S)
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("latency_s", [2.0, 3.5, 5.0])
def test_online_finds_every_turn(
    stages: Stages, parameters: PipelineParameters, latency_s: float
) -> None:
    samples = audio(*TRUTH, duration_s=LENGTH_S)
    wanted = parameters.model_copy(update={"latency_s": latency_s})
    assert_truth(ended(online(samples, stages, wanted)))


def test_a_whole_file_is_found_by_number_and_without(
    stages: Stages, parameters: PipelineParameters
) -> None:
    samples = audio(*TRUTH, duration_s=LENGTH_S)
    assert_truth(whole(samples, stages, parameters))
    assert_truth(whole(samples, stages, parameters, SpeakerCount(exactly=3)))
    two = whole(samples, stages, parameters, SpeakerCount(at_most=2))
    assert {turn.speaker for turn in two} == {"speaker1", "speaker2"}


@pytest.mark.parametrize("latency_s", [0.5, 2.0])
def test_what_is_decided_lies_a_latency_back_and_has_no_gaps(
    stages: Stages, parameters: PipelineParameters, latency_s: float
) -> None:
    wanted = parameters.model_copy(update={"latency_s": latency_s})
    decisions = online(audio(*TRUTH, duration_s=LENGTH_S), stages, wanted)
    assert decisions[0].from_s == 0
    for before, after in pairwise(decisions):
        assert after.from_s == before.until_s
    for decision in decisions[:-1]:
        expected = max(0.0, decision.heard_s - latency_s + wanted.hop_s)
        assert decision.until_s == pytest.approx(expected)
    assert decisions[-1].until_s == pytest.approx(LENGTH_S)


def test_parts_of_turns_are_the_turns(stages: Stages, parameters: PipelineParameters) -> None:
    decisions = online(audio(*TRUTH, duration_s=LENGTH_S), stages, parameters)
    parts_s = sum(p.end_s - p.start_s for d in decisions for p in d.speaking)
    turns_s = sum(t.end_s - t.start_s for t in ended(decisions))
    assert parts_s == pytest.approx(turns_s)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(sizes=st.lists(st.integers(1, 4000), max_size=8))
def test_chunks_do_not_matter(
    stages: Stages, parameters: PipelineParameters, sizes: list[int]
) -> None:
    samples = audio(*TRUTH[:3], duration_s=11.7)
    expected = online(samples, stages, parameters)
    found = online(samples, stages, parameters, sizes=sizes)
    assert [d.speaking for d in found] == [d.speaking for d in expected]
    assert [d.assignment for d in found] == [d.assignment for d in expected]


def test_at_the_longest_latency_online_frames_are_those_of_the_whole_file(
    stages: Stages, parameters: PipelineParameters
) -> None:
    samples = audio(*TRUTH, duration_s=LENGTH_S)
    wanted = parameters.model_copy(update={"latency_s": 5.0})
    streamed = ended(online(samples, stages, wanted))
    at_once = whole(samples, stages, wanted)
    assert [(t.start_s, t.end_s) for t in streamed] == [(t.start_s, t.end_s) for t in at_once]


@pytest.mark.parametrize("length_s", [0.001, 0.05, 0.3, 3.0])
def test_silence_and_very_short_recordings_have_no_turns(
    stages: Stages, parameters: PipelineParameters, length_s: float
) -> None:
    samples = audio(duration_s=length_s)
    assert ended(online(samples, stages, parameters)) == []
    assert whole(samples, stages, parameters) == []


def test_nothing_at_all_is_nothing(stages: Stages, parameters: PipelineParameters) -> None:
    nothing = np.zeros(0, np.float32)
    assert online(nothing, stages, parameters) == []
    assert whole(nothing, stages, parameters) == []


def test_speech_of_a_third_of_a_second_is_somebodys(
    stages: Stages, parameters: PipelineParameters
) -> None:
    samples = audio((1, 0.0, 0.3), duration_s=0.3)
    for turns in (ended(online(samples, stages, parameters)), whole(samples, stages, parameters)):
        assert [turn.speaker for turn in turns] == ["speaker1"]
        assert turns[0].end_s == pytest.approx(0.3, abs=0.06)


def test_one_speaker_stays_one(stages: Stages, parameters: PipelineParameters) -> None:
    samples = audio(*((2, float(at), at + 1.2) for at in range(0, 30, 2)), duration_s=31)
    for turns in (ended(online(samples, stages, parameters)), whole(samples, stages, parameters)):
        assert {turn.speaker for turn in turns} == {"speaker1"}
        assert len(turns) == 15


def test_no_more_speakers_than_allowed(stages: Stages, parameters: PipelineParameters) -> None:
    samples = audio(*TRUTH, duration_s=LENGTH_S)
    wanted = parameters.model_copy(update={"max_speakers": 2})
    assert len({turn.speaker for turn in ended(online(samples, stages, wanted))}) == 2


def test_windows_without_speech_cost_no_embedding(
    stages: Stages, parameters: PipelineParameters
) -> None:
    def refuse(samples: object, weights: object) -> NDArray[np.float32]:
        raise AssertionError("asked for an embedding of silence")

    quiet = Stages(stages.segment, refuse, stages.spec)
    assert ended(online(audio(duration_s=6), quiet, parameters)) == []


def test_frames_with_others_are_left_out_of_embeddings(
    stages: Stages, parameters: PipelineParameters
) -> None:
    rolling = RollingWindow(window_samples=5000, hop_samples=5000)
    (hop,) = rolling.push(audio((0, 0.0, 3.0), (1, 2.0, 5.0), duration_s=5.0))
    speech = listen(hop, stages, parameters)
    np.testing.assert_allclose(speech.embeddings, [[0, 1, 0, 0], [1, 0, 0, 0], [0] * 4], atol=1e-6)
    np.testing.assert_allclose(speech.clean_s, [2.0, 2.0, 0.0], atol=0.1)


@pytest.mark.parametrize("changes", [{"latency_s": 0.4}, {"latency_s": 5.5}, {"hop_s": 2.5}])
def test_a_latency_that_cannot_be_is_refused(
    stages: Stages, parameters: PipelineParameters, changes: dict[str, float]
) -> None:
    with pytest.raises(RecipeError, match="latency"):
        OnlineDiarizer(stages, parameters.model_copy(update=changes))


@pytest.mark.parametrize("scored_once", [False, True])
def test_undecided_frames_follow_a_new_label_and_unscored_ones_the_last(
    scored_once: bool, stages: Stages, parameters: PipelineParameters
) -> None:
    speech = WindowSpeech(
        start=0,
        end=5000,
        scores=np.full((246, 1), 0.9),
        active=np.array([True]),
        embeddings=np.ones((1, 1)),
        clean_s=np.array([4.9]),
        segmentation_ms=0.0,
        embedding_ms=0.0,
    )
    frames = DecidedFrames(stages, parameters, speakers=2, scored_once=scored_once)
    frames.add(speech, np.array([0]))
    first = frames.until(2500)
    frames.reassign(lambda _: np.array([1]))
    second, third = frames.until(6000), frames.until(7000)
    assert (first == [True, False]).all()
    assert (second == [False, True]).all()
    assert (third == [False, True]).all()
    assert (len(first), len(second), len(third)) == (123, 175, 50)


@pytest.mark.parametrize("wrong", [(0, 1, None), (None, 0, None), (None, 3, 2)])
def test_numbers_of_speakers_that_cannot_be_are_refused(
    wrong: tuple[int | None, int, int | None],
) -> None:
    with pytest.raises(AudioError, match="number of speakers"):
        SpeakerCount(*wrong)


@pytest.mark.parametrize("mode", ["online", "whole"])
def test_three_hours_take_little_memory(
    mode: str, stages: Stages, parameters: PipelineParameters
) -> None:
    hop = parameters.model_copy(update={"hop_s": 5.0, "latency_s": 5.0})
    piece = audio((0, 1.0, 14.0), (1, 16.0, 29.0), duration_s=30.0)
    online, file = OnlineDiarizer(stages, hop), WholeFileDiarizer(stages, hop)
    held: list[int] = []
    tracemalloc.start()
    for _ in range(360):
        if mode == "online":
            list(online.push(piece))
        else:
            file.push(piece)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    a_hop = (held[-1] - held[89]) / (6 * 270)
    # Of a window a whole file keeps scores and embeddings in float32; online the voices of 300
    # windows are kept, which the first 90 pieces have more than filled.
    assert a_hop < (50 if mode == "online" else 4 * 3 * (246 + 4) + 2000)
    assert online.clustering.num_speakers in (0, 2)
