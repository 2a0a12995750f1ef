"""The online pipeline from hop to hop, on audio whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import RecipeError
from export.types import Initial, PipelineParameters, StateSpec, StreamSpec, TensorSpec
from runtime_checks.diarize.online import Decision, OnlineDiarizer
from runtime_checks.diarize.stages import Stages
from runtime_checks.diarize.stateful import StatefulSegmentation, nobody
from runtime_checks.diarize.windows import RollingWindow

from .conftest import GEOMETRY, SPEC, audio

TRUTH = ((0, 0.5, 4.0), (1, 4.5, 9.0), (0, 8.0, 11.0), (2, 12.0, 15.0), (1, 15.5, 19.2))
LENGTH_S, STEP, HOP, LEAD = 20.3, 20, 500, 80


def tensor(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=(1, *shape))


STREAM = StreamSpec(
    hop_samples=HOP,
    hop_frames=HOP // STEP,
    lead_samples=LEAD,
    inputs=(tensor("waveform", 1, HOP), tensor("tail0", 1, LEAD), tensor("heard0", 1, 1)),
    outputs=(tensor("scores", 25, 3), tensor("tail", 1, LEAD), tensor("heard", 1, 1)),
    states=(
        StateSpec(input="tail0", output="tail", initial=Initial.AUDIO),
        StateSpec(input="heard0", output="heard", initial=Initial.ZEROS),
    ),
)
STATEFUL_SPEC = SPEC.model_copy(
    update={"inputs": (tensor("waveform", 1, 5000),), "outputs": (tensor("scores", 246, 3),)}
)


class Levels:
    """Bit k of a sample says that person k speaks, who has slot k for good; counts its runs."""

    inputs: tuple[TensorSpec, ...] | None = STREAM.inputs
    outputs: tuple[TensorSpec, ...] | None = STREAM.outputs

    def __init__(self) -> None:
        self.frames: list[int] = []

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        heard = np.concatenate([inputs["tail0"][0, 0], inputs["waveform"][0, 0]])
        levels = np.rint(heard[np.arange(25) * STEP + 50]).astype(np.int64)
        before = int(inputs["heard0"].item())
        self.frames += range(before, before + 25)
        scores = 0.9 * np.stack([levels >> slot & 1 for slot in range(3)], axis=1)
        return {
            "scores": scores.astype(np.float32)[None],
            "tail": heard[-LEAD:].reshape(1, 1, -1),
            "heard": inputs["heard0"] + 25,
        }

    def taps(self, inputs: object, layers: Sequence[str]) -> None:
        return


@pytest.fixture
def runner() -> Levels:
    return Levels()


@pytest.fixture
def stateful(runner: Levels) -> StatefulSegmentation:
    return StatefulSegmentation(runner, STREAM, STATEFUL_SPEC)


def decide(
    stages: Stages, parameters: PipelineParameters, stateful: StatefulSegmentation, *, chunk: int
) -> list[Decision]:
    def refuse(_: object) -> NDArray[np.float32]:
        raise AssertionError("a whole window was scored")

    samples = audio(*TRUTH, duration_s=LENGTH_S)
    diarizer = OnlineDiarizer(replace(stages, segment=refuse), parameters, stateful=stateful)
    found: list[Decision] = []
    for begin in range(0, len(samples), chunk):
        found += diarizer.push(samples[begin : begin + chunk])
    return [*found, *diarizer.finish()]


@pytest.mark.parametrize("latency_s", [2.0, 3.5, 5.0])
def test_every_turn_is_found_and_every_frame_scored_once(
    stages: Stages,
    parameters: PipelineParameters,
    runner: Levels,
    stateful: StatefulSegmentation,
    latency_s: float,
) -> None:
    wanted = parameters.model_copy(update={"latency_s": latency_s})
    decisions = decide(stages, wanted, stateful, chunk=777)
    assert runner.frames == list(range(41 * 25))
    assert decisions[0].heard_s == pytest.approx((HOP + LEAD) / 1000)
    turns = sorted((t for d in decisions for t in d.ended), key=lambda turn: turn.start_s)
    assert len(turns) == len(TRUTH)
    for turn, (_, start_s, end_s) in zip(turns, TRUTH, strict=True):
        assert turn.start_s == pytest.approx(start_s, abs=0.02)
        assert turn.end_s == pytest.approx(end_s, abs=0.02)
    by_turn = [turn.speaker for turn in turns]
    assert by_turn[0] == by_turn[2]
    assert by_turn[1] == by_turn[4]
    assert len(set(by_turn)) == 3


def test_chunks_do_not_matter(
    stages: Stages, parameters: PipelineParameters, stateful: StatefulSegmentation
) -> None:
    def turns(chunk: int) -> list[object]:
        found = decide(stages, parameters, stateful, chunk=chunk)
        return [turn for decision in found for turn in decision.ended]

    assert turns(20_300) == turns(61)


def test_a_pipeline_of_another_hop_is_refused(
    stages: Stages, parameters: PipelineParameters, stateful: StatefulSegmentation
) -> None:
    other = parameters.model_copy(update={"hop_s": 0.25})
    with pytest.raises(RecipeError, match=r"0\.25 s; expected 0\.5 s.*--windowed"):
        OnlineDiarizer(stages, other, stateful=stateful)


def test_the_first_window_ends_later_by_the_lead() -> None:
    rolling = RollingWindow(window_samples=100, hop_samples=30, lead_samples=7)
    samples = np.arange(1, 90, dtype=np.float32)
    hops = [*rolling.push(samples[:50]), *rolling.push(samples[50:]), *rolling.finish()]
    assert [hop.end for hop in hops] == [37, 67, 89]
    assert [hop.start for hop in hops] == [-63, -33, -3]
    for hop in hops:
        heard = hop.samples[max(0, -hop.start) :]
        np.testing.assert_array_equal(heard[: hop.end], samples[: hop.end][-len(heard) :])


def test_frames_are_on_the_recordings_own_grid(stateful: StatefulSegmentation) -> None:
    (*_, last) = stateful.windows().push(np.zeros(9000, np.float32))
    grid = stateful.on_grid(last)
    assert grid.start == (last.index + 1) * HOP - GEOMETRY.num_frames * STEP
    assert abs(grid.start - last.start) < STEP


def test_before_the_recording_nobody_speaks() -> None:
    assert not nobody(STATEFUL_SPEC).any()
    powerset = STATEFUL_SPEC.model_copy(
        update={"powerset_max_classes": 2, "outputs": (tensor("scores", 246, 7),)}
    )
    probabilities = np.exp(nobody(powerset).astype(np.float64))
    assert (probabilities[:, 0] == 1).all()
    assert probabilities[:, 1:].max() < 1e-30
