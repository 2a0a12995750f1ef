"""Who is known, who is new, and how many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.types import PipelineParameters
from runtime_checks.diarize.agglomeration import SpeakerCount, Voices, groupings
from runtime_checks.diarize.incremental import NOBODY, IncrementalClustering
from runtime_checks.diarize.stages import WindowSpeech, unit
from runtime_checks.diarize.whole import assign_all

PARAMETERS = PipelineParameters(delta_new=0.5)


def speech(*slots: tuple[list[float], float]) -> WindowSpeech:
    """A window of (embedding, clean seconds) by slot; without seconds a slot is not active."""
    clean_s = np.array([seconds for _, seconds in slots])
    return WindowSpeech(
        start=0,
        end=1,
        scores=np.zeros((1, len(slots))),
        active=clean_s >= 0,
        embeddings=unit(np.array([vector for vector, _ in slots], float), mean=()),
        clean_s=np.maximum(clean_s, 0),
        segmentation_ms=0.0,
        embedding_ms=0.0,
    )


def assigned(clustering: IncrementalClustering, *slots: tuple[list[float], float]) -> list[int]:
    return [int(each) for each in clustering.assign(speech(*slots))]


def test_slots_of_one_window_are_never_one_speaker() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assert assigned(clustering, ([1, 0], 2.0), ([1, 0.1], 2.0)) == [0, 1]
    assert assigned(clustering, ([1, 0.1], 2.0), ([1, 0], 2.0)) == [1, 0]


def test_who_is_far_from_all_is_new_once_there_is_enough_speech() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assert assigned(clustering, ([1, 0], 2.0)) == [0]
    assert assigned(clustering, ([0, 1], PARAMETERS.new_s - 0.1)) == [0]
    assert assigned(clustering, ([0, 1], PARAMETERS.new_s)) == [1]
    assert clustering.num_speakers == 2


def test_a_voice_that_cannot_be_told_takes_who_is_left() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assigned(clustering, ([1, 0], 3.0), ([0, 1], 3.0))
    assert assigned(clustering, ([1, 0.05], 0.1), ([1, 0], 3.0)) == [1, 0]


def test_little_speech_counts_less_than_much() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assigned(clustering, ([1, 0], 3.0), ([0.5, 0.6], 3.0))
    assert assigned(clustering, ([1, 0.3], 0.4), ([1, 0.4], 3.0)) == [1, 0]


def test_centres_follow_speech_that_is_long_enough() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assigned(clustering, ([1, 0], 2.0))
    before = clustering.distances(np.array([[0.8, 0.6]]))
    assigned(clustering, ([0.8, 0.6], PARAMETERS.rho_update_s - 0.1))
    np.testing.assert_array_equal(clustering.distances(np.array([[0.8, 0.6]])), before)
    assigned(clustering, ([0.8, 0.6], PARAMETERS.rho_update_s))
    assert clustering.distances(np.array([[0.8, 0.6]]))[0, 0] < before[0, 0]


def test_a_new_voice_does_not_take_a_known_speaker_from_another() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assigned(clustering, ([1, 0], 3.0))
    assert assigned(clustering, ([0, 1], PARAMETERS.new_s - 0.1), ([1, 0.1], 3.0)) == [NOBODY, 0]


def test_the_first_voice_is_somebodys_and_its_centre_waits_for_more_speech() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assert assigned(clustering, ([1, 0], 0.2)) == [0]
    assert assigned(clustering, ([0, 1], 3.0)) == [0]
    assert clustering.num_speakers == 1
    np.testing.assert_allclose(clustering.distances(np.array([[0.0, 1.0]])), [[0.0]])


def test_inactive_slots_are_nobodys() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assert assigned(clustering, ([1, 0], 2.0), ([0, 1], -1.0)) == [0, NOBODY]


def test_what_no_single_voice_tells_is_found_over_many() -> None:
    """Two people nearer to each other than a new voice must be, in turns of ten windows."""
    rng = np.random.default_rng(0)
    people = unit(np.eye(16)[:2] + 1.2 * np.eye(16)[2], mean=())
    assert 0.3 < 1 - people[0] @ people[1] < PARAMETERS.delta_new
    clustering = IncrementalClustering(PARAMETERS)
    who = np.repeat(np.tile([0, 1], 6), 10)
    found = [
        assigned(clustering, ((people[each] + 0.1 * rng.standard_normal(16)).tolist(), 3.0))[0]
        for each in who
    ]
    assert clustering.num_speakers == 2
    assert found[:10] == [0] * 10
    # Whoever was wrongly thought to be somebody in between has used up a name.
    names = {0: found[40], 1: found[50]}
    assert names[0] != names[1]
    assert found[40:] == [names[int(each)] for each in who[40:]]


def test_who_turns_out_to_be_another_is_given_up_and_the_name_stays() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assert assigned(clustering, ([1, 0, 0], 3.0)) == [0]
    assert assigned(clustering, ([1, 0.05, 0], 3.0), ([1, 0.1, 0], 1.5)) == [0, 1]
    for _ in range(30):
        assert assigned(clustering, ([1, 0.05, 0], 3.0)) == [0]
    assert clustering.num_speakers == 1
    assert assigned(clustering, ([0, 0, 1], 3.0)) == [2]


def test_labels_learn_nothing_and_know_nobody_new() -> None:
    clustering = IncrementalClustering(PARAMETERS)
    assert clustering.label(speech(([1, 0], 3.0))).tolist() == [NOBODY]
    assigned(clustering, ([1, 0], 3.0))
    assert clustering.label(speech(([0, 1], 3.0))).tolist() == [0]
    assert clustering.num_speakers == 1


def test_no_more_speakers_than_allowed() -> None:
    clustering = IncrementalClustering(PARAMETERS.model_copy(update={"max_speakers": 2}))
    for _ in range(5):
        for axis in np.eye(4):
            for _ in range(10):
                assert assigned(clustering, (axis.tolist(), 3.0))[0] in (0, 1)
    assert clustering.num_speakers == 2


def around(
    directions: NDArray[np.float64], counts: list[int], *, spread: float
) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    means = np.repeat(directions, counts, axis=0)
    return unit(means + spread * rng.standard_normal(means.shape), mean=())


def of_windows(embeddings: NDArray[np.float64]) -> list[WindowSpeech]:
    """Windows of voices [windows, voices, dimension], each with three clean seconds."""
    return [speech(*((voice.tolist(), 3.0) for voice in window)) for window in embeddings]


def who(windows: list[WindowSpeech], count: SpeakerCount | None = None) -> list[list[int]]:
    found = assign_all(windows, PARAMETERS, count=count or SpeakerCount())
    return [each.tolist() for each in found]


def test_the_number_of_speakers_is_found_and_obeyed() -> None:
    windows = of_windows(around(np.eye(8)[:3], [40, 30, 20], spread=0.1)[:, None])
    assert who(windows) == [[0]] * 40 + [[1]] * 30 + [[2]] * 20
    for wanted in (1, 2, 3):
        found = who(windows, SpeakerCount(exactly=wanted))
        assert {each for (each,) in found} == set(range(wanted))
    assert {each for (each,) in who(windows, SpeakerCount(at_most=2))} == {0, 1}
    assert len({each for (each,) in who(windows, SpeakerCount(at_least=4))}) == 4


def test_odd_voices_are_no_speaker_and_use_up_no_number() -> None:
    windows = of_windows(around(np.eye(8)[:3], [60, 60, 2], spread=0.1)[:, None])
    assert {each for (each,) in who(windows)} == {0, 1}
    assert who(windows, SpeakerCount(exactly=2))[:120] == [[0]] * 60 + [[1]] * 60


def test_voices_that_answer_each_other_are_two_however_alike() -> None:
    alike = np.array([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    pairs = np.stack(
        [around(alike[:1], [40], spread=0.05), around(alike[1:], [40], spread=0.05)], axis=1
    )
    assert who(of_windows(pairs)) == [[0, 1]] * 40
    assert {each for (each,) in who(of_windows(pairs.reshape(80, 1, 3)))} == {0}


def test_groups_of_every_number_are_known() -> None:
    voices = Voices(around(np.eye(8)[:3], [40, 30, 20], spread=0.1), np.arange(90))
    groups = groupings(voices, PARAMETERS)
    np.testing.assert_array_equal(groups[3], np.repeat([0, 1, 2], [40, 30, 20]))
    assert {1, 2, 3} <= set(groups)


def test_groups_tell_apart_who_is_heard_in_the_same_windows() -> None:
    alike = np.array([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    embeddings = around(np.tile(alike, (40, 1)), [1] * 80, spread=0.05)
    found = groupings(Voices(embeddings, np.repeat(np.arange(40), 2)), PARAMETERS)[2]
    np.testing.assert_array_equal(found, np.tile([0, 1], 40))
