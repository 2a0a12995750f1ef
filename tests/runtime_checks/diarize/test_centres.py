"""Centres that explain voices: cheaper by every round, two voices of a window never one speaker."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.types import PipelineParameters
from runtime_checks.diarize.centres import (
    NOBODYS,
    Heard,
    explain,
    heard_in,
    price,
    settle,
    total_cost,
    with_one_less,
    with_one_more,
)
from runtime_checks.diarize.memory import Memory
from runtime_checks.diarize.stages import WindowSpeech, unit_rows

PARAMETERS = PipelineParameters()


def random_voices(seed: int, windows: int = 30) -> Heard:
    rng = np.random.default_rng(seed)
    trust = rng.random((windows, 2))
    trust[rng.random(windows) < 0.5, 1] = 0
    embeddings = unit_rows(rng.standard_normal((windows, 2, 5)))
    return Heard(embeddings * (trust > 0)[:, :, None], trust)


def people(counts: list[int], *, spread: float, alone: bool = True) -> Heard:
    """Voices around the axes, one a window."""
    rng = np.random.default_rng(0)
    means = np.repeat(np.eye(8)[: len(counts)], counts, axis=0)
    first = unit_rows(means + spread * rng.standard_normal(means.shape))
    embeddings = np.stack([first, np.zeros_like(first)], axis=1)
    return Heard(embeddings, np.tile([1.0, 0.0], (len(first), 1)))


@given(seed=st.integers(0, 500), speakers=st.integers(1, 3))
def test_owners_are_the_cheapest_and_two_voices_are_two_people(seed: int, speakers: int) -> None:
    heard = random_voices(seed, windows=4)
    centres = np.random.default_rng(seed).standard_normal((speakers, 5))
    found = explain(heard, centres)
    far = 1 - heard.embeddings @ unit_rows(centres).T
    costs = heard.trust[:, :, None] * np.concatenate([far, np.full((4, 2, 1), NOBODYS)], axis=2)
    total = 0.0
    for window, owners in zip(costs, found.owners, strict=True):
        total += min(
            window[0, one] + window[1, other]
            for one, other in product(range(speakers + 1), repeat=2)
            if one != other or one == speakers
        )
        assert owners[0] != owners[1] or owners[0] == -1
    assert found.cost == pytest.approx(total)


@given(seed=st.integers(0, 500))
def test_settling_never_costs_more(seed: int) -> None:
    heard = random_voices(seed)
    begin = np.random.default_rng(seed).standard_normal((3, 5))
    costs = [settle(heard, begin, rounds=rounds).cost for rounds in (0, 1, 2, 20)]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(costs))


def test_a_further_speaker_is_found_and_a_superfluous_one_given_up() -> None:
    heard = people([40, 30, 20], spread=0.1)
    one = settle(heard, heard.embeddings[:1, 0])
    two = with_one_more(heard, one)
    three = with_one_more(heard, two)
    paid = price(heard, PARAMETERS, few=20.0)
    assert one.cost - two.cost > paid
    assert two.cost - three.cost > paid
    assert three.cost - with_one_more(heard, three).cost < paid
    assert sorted(np.bincount(three.owners[:, 0]).tolist()) == [20, 30, 40]
    four = with_one_more(heard, three)
    again = with_one_less(heard, four)
    assert again is not None
    assert again.cost == pytest.approx(three.cost)
    assert with_one_less(heard, four, stay=range(4)) is None


def test_who_is_never_heard_with_anybody_costs_more() -> None:
    alone = people([40, 30], spread=0.1)
    found = settle(alone, np.eye(8)[:2])
    assert total_cost(found, paid=1.0) == pytest.approx(found.cost + 2)
    assert total_cost(found, paid=1.0, alone=1.5) == pytest.approx(found.cost + 3)
    one = settle(alone, np.eye(8)[:1])
    assert total_cost(one, paid=1.0, alone=1.5) == pytest.approx(one.cost + 1)
    embeddings, trust = alone.embeddings.copy(), alone.trust.copy()
    embeddings[0, 1], trust[0, 1] = np.eye(8)[1], 1.0
    together = settle(Heard(embeddings, trust), np.eye(8)[:2])
    assert total_cost(together, paid=1.0, alone=1.5) == pytest.approx(together.cost + 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_voice_that_is_always_the_same_has_no_halves(count: int) -> None:
    same = np.tile(unit_rows(np.array([0.1, 0.2, 0.3])), (count, 1))
    heard = Heard(np.stack([same, np.zeros_like(same)], axis=1), np.tile([1.0, 0.0], (count, 1)))
    more = with_one_more(heard, settle(heard, same[:1]))
    assert np.isfinite(more.centres).all()
    assert more.cost == pytest.approx(0, abs=1e-12)


def window(start: int, embedding: list[float], clean_s: float) -> WindowSpeech:
    return WindowSpeech(
        start=start,
        end=start + 10,
        scores=np.zeros((1, 1)),
        active=np.array([True]),
        embeddings=np.array([embedding]),
        clean_s=np.array([clean_s]),
        segmentation_ms=0.0,
        embedding_ms=0.0,
    )


def test_trust_grows_with_clean_speech_and_little_is_left_out() -> None:
    settings = PipelineParameters(rho_update_s=1.0, trusted_s=2.0)
    heard = heard_in([window(0, [1, 0], s) for s in (0.5, 1.0, 4.0)], settings)
    np.testing.assert_allclose(heard.trust, [[0.5, 0.0], [1.0, 0.0]])
    short = heard_in([window(0, [1, 0], s) for s in (0.05, 0.2)], settings)
    np.testing.assert_allclose(short.trust, [[0.1, 0.0]])


def test_who_spoke_seldom_is_not_forgotten() -> None:
    memory = Memory(PARAMETERS, capacity=10)
    owners = []
    for place in range(40):
        seldom = place in (0, 20)
        memory.add(window(place, [0, 1] if seldom else [1, 0], 3.0))
        owners.append([1 if seldom else 0, -1])
    memory.forget(np.array(owners))
    assert len(memory) == 10
    assert memory.heard().embeddings[:, 0, 1].sum() == 2
