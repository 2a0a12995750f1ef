"""Who is known, who is new, and how many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.types import PipelineParameters
from runtime_checks.diarize.agglomeration import SpeakerCount, Voices, cluster
from runtime_checks.diarize.incremental import NOBODY, IncrementalClustering
from runtime_checks.diarize.stages import WindowSpeech, unit

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


def around(
    directions: NDArray[np.float64], counts: list[int], *, spread: float
) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    means = np.repeat(directions, counts, axis=0)
    return unit(means + spread * rng.standard_normal(means.shape), mean=())


def people(labels: NDArray[np.int64]) -> int:
    return len(set(labels[labels >= 0].tolist()))


def test_the_number_of_speakers_is_found_and_obeyed() -> None:
    voices = Voices(around(np.eye(8)[:3], [40, 30, 20], spread=0.1), np.arange(90))
    found = cluster(voices, PARAMETERS, count=SpeakerCount())
    np.testing.assert_array_equal(found, np.repeat([0, 1, 2], [40, 30, 20]))
    for wanted in (1, 2, 3):
        assert people(cluster(voices, PARAMETERS, count=SpeakerCount(exactly=wanted))) == wanted
    assert people(cluster(voices, PARAMETERS, count=SpeakerCount(at_most=2))) == 2


def test_odd_voices_are_no_speaker_and_use_up_no_number() -> None:
    voices = Voices(around(np.eye(8)[:3], [60, 60, 2], spread=0.1), np.arange(122))
    assert people(cluster(voices, PARAMETERS, count=SpeakerCount())) == 2
    two = cluster(voices, PARAMETERS, count=SpeakerCount(exactly=2))
    np.testing.assert_array_equal(two[:120], np.repeat([0, 1], 60))


def test_voices_that_answer_each_other_are_two_however_alike() -> None:
    alike = np.array([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    embeddings = np.stack(
        [around(alike[:1], [40], spread=0.05), around(alike[1:], [40], spread=0.05)], axis=1
    ).reshape(80, 3)
    apart = Voices(embeddings, np.arange(80))
    together = Voices(embeddings, np.repeat(np.arange(40), 2))
    assert people(cluster(apart, PARAMETERS, count=SpeakerCount())) == 1
    found = cluster(together, PARAMETERS, count=SpeakerCount())
    np.testing.assert_array_equal(found, np.tile([0, 1], 40))
