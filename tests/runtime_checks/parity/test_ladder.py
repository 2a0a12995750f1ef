"""The rungs, on arrays made to show one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from export.audio import Window
from export.types import (
    RUNGS,
    FrameGeometry,
    ModelSpec,
    Precision,
    Role,
    Rung,
    RungName,
    TensorSpec,
    Verdict,
)
from runtime_checks.parity.contract import (
    declaration_problems,
    expected_frames,
    features,
    value_problems,
)
from runtime_checks.parity.ladder import ILL_CONDITIONED, Climbed, climb, execute
from runtime_checks.parity.limits import DEFAULT_LIMITS, Limits
from runtime_checks.parity.reference import ReferenceScores
from runtime_checks.parity.rungs import cosine, not_run, snr_db
from runtime_checks.runners.base import Arrays

FP32, FP16 = DEFAULT_LIMITS[Precision.FP32], DEFAULT_LIMITS[Precision.FP16]
FRAMES = 60
GEOMETRY = FrameGeometry(
    sample_rate_hz=16000,
    window_samples=270 * (FRAMES - 1) + 991,
    num_frames=FRAMES,
    frame_step_samples=270,
    receptive_field_samples=991,
)
Scores = NDArray[np.float32]


def make_spec(*, powerset: int | None = None, classes: int = 3) -> ModelSpec:
    return ModelSpec(
        name="made-up",
        architecture="PyanNet",
        geometry=GEOMETRY,
        classes=("a", "b", "c"),
        powerset_max_classes=powerset,
        permutation_invariant=True,
        inputs=(TensorSpec(name="waveform", dtype="float32", shape=(1, 1, 16921)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, FRAMES, classes)),),
        licence="MIT",
        trained_on="nothing",
    )


SPEC = make_spec()


class Made:
    """A runner that gives what it is told to."""

    def __init__(self, give: Callable[[Scores], Scores], name: str = "scores") -> None:
        self.inputs: tuple[TensorSpec, ...] | None = SPEC.inputs
        self.outputs: tuple[TensorSpec, ...] | None = SPEC.outputs
        self._give, self._name = give, name

    def run(self, inputs: Mapping[str, Scores]) -> Arrays:
        return {self._name: self._give(inputs["waveform"])}

    def taps(self, inputs: Mapping[str, Scores], layers: Sequence[str]) -> Arrays | None:
        return None


@dataclass(frozen=True)
class Found:
    """Rungs by name."""

    climbed: Climbed

    def __getitem__(self, name: RungName) -> Rung:
        return next(rung for rung in self.climbed.rungs if rung.name is name)


def windows(count: int) -> list[Window]:
    return [
        Window("made", float(i), np.full(GEOMETRY.window_samples, i, np.float32), 1)
        for i in range(count)
    ]


def truth(count: int, seed: int = 0) -> list[Scores]:
    """Three speakers that start and stop every ten frames, with scores far from the threshold."""
    rng = np.random.default_rng(seed)
    active = rng.random((count, FRAMES // 10, 3)) > 0.5
    return list(np.repeat(np.where(active, 0.9, 0.1), 10, axis=1).astype(np.float32))


def against(
    artifact: list[Scores],
    reference: list[Scores],
    *,
    limits: Limits = FP32,
    floors: list[float] | None = None,
) -> Found:
    given = iter(artifact)
    used = windows(len(reference))
    runner = Made(lambda _: next(given)[None])
    exact = tuple(each.astype(np.float64) for each in reference)
    scores = ReferenceScores(exact, tuple(reference), tuple(floors or [0.0] * len(reference)))
    climbed = climb(
        execute(runner, used, spec=SPEC),
        scores,
        windows=used,
        spec=SPEC,
        limits=limits,
        features=lambda: not_run(RungName.FEATURES, "not here"),
        der=None,
    )
    return Found(climbed)


def value(rung: Rung, name: str) -> float:
    return next(metric.value for metric in rung.metrics if metric.name == name)


def test_the_reference_itself_passes_without_features_and_der() -> None:
    found = against(truth(3), truth(3))
    assert {rung.name: rung.verdict for rung in found.climbed.rungs} == dict.fromkeys(
        RUNGS[Role.SEGMENTATION], Verdict.PASS
    ) | {
        RungName.FEATURES: Verdict.NOT_RUN,
        RungName.DER: Verdict.NOT_RUN,
    }
    assert "no reference" in str(found[RungName.DER].reason)


def test_scores_name_the_window_that_uses_most_of_its_own_limit() -> None:
    reference = truth(3)
    artifact = [each.copy() for each in reference]
    artifact[1][5, 0] += 1.2e-3  # more, on a window that allows 1.5e-3
    artifact[2][7, 1] += 0.9e-4  # less, on a window that allows 1e-4
    found = against(artifact, reference, floors=[0.0, 1e-3, 0.0])[RungName.SCORES]
    assert found.verdict is Verdict.PASS
    assert found.worst_window == "made@2.00s"
    assert value(found, "max_abs") == pytest.approx(0.9e-4, rel=1e-2)
    assert value(found, "largest_max_abs") == pytest.approx(1.2e-3, rel=1e-2)
    artifact[2][7, 1] += 0.2e-4
    found = against(artifact, reference, floors=[0.0, 1e-3, 0.0])[RungName.SCORES]
    assert found.verdict is Verdict.FAIL


def test_fp16_allows_what_fp32_does_not() -> None:
    reference = truth(2)
    artifact = [each + np.float32(0.015) for each in reference]
    assert against(artifact, reference)[RungName.SCORES].verdict is Verdict.FAIL
    assert against(artifact, reference, limits=FP16)[RungName.SCORES].verdict is Verdict.PASS


def test_flips_are_a_share_of_all_frames() -> None:
    reference = truth(2)
    artifact = [each.copy() for each in reference]
    artifact[1][3] = 1 - artifact[1][3]  # one of 120 frames, all speakers
    found = against(artifact, reference, limits=FP16)[RungName.DECISIONS]
    assert value(found, "decision_flips") == pytest.approx(100 / 120)
    assert found.verdict is Verdict.FAIL
    assert found.worst_window == "made@1.00s"


def test_swaps_are_counted_named_and_fail_in_fp32_alone() -> None:
    reference = truth(3)
    artifact = [reference[0], reference[1][:, [1, 2, 0]], reference[2]]
    found = against(artifact, reference)[RungName.DECISIONS]
    assert value(found, "speaker_swaps") == 1
    assert value(found, "decision_flips") == 0
    assert found.verdict is Verdict.FAIL
    assert found.reason == "speakers swapped in made@1.00s"
    assert against(artifact, reference, limits=FP16)[RungName.DECISIONS].verdict is Verdict.PASS


def test_boundaries_are_told_in_milliseconds() -> None:
    reference = truth(2)
    shifted = [np.roll(each, 1, axis=0) for each in reference]
    step_ms = 270 / 16
    found = against(shifted, reference, limits=FP16)[RungName.BOUNDARIES]
    assert value(found, "shift_median") == pytest.approx(step_ms)
    assert found.metrics[0].name == "shift_p95" and found.metrics[0].passed  # one frame is allowed
    assert against(shifted, reference)[RungName.BOUNDARIES].verdict is Verdict.FAIL


def test_windows_where_float32_fails_are_left_out_and_named() -> None:
    reference = truth(3)
    artifact = [each.copy() for each in reference]
    artifact[1][:] = 0.5
    floors = [0.0, ILL_CONDITIONED * 1.01, 0.0]
    found = against(artifact, reference, floors=floors)
    assert found[RungName.SCORES].verdict is Verdict.PASS
    assert value(found[RungName.SCORES], "windows_not_judged") == 1
    assert "made@1.00s" in str(found[RungName.SCORES].reason)
    found = against(artifact, reference, floors=[0.1, 0.1, 0.0])
    for name in (RungName.SCORES, RungName.DECISIONS, RungName.BOUNDARIES):
        assert found[name].verdict is Verdict.NOT_RUN
    assert found.climbed.verdict is Verdict.NOT_RUN


def test_an_exception_is_a_broken_contract_on_its_window() -> None:
    def fail(samples: Scores) -> Scores:
        if samples.flat[0] == 1:
            raise RuntimeError("kernel not found\nsecond line")
        return truth(1)[0][None]

    execution = execute(Made(fail), windows(3), spec=SPEC)
    assert execution.scores is None
    assert execution.problems == (("made@1.00s", "RuntimeError: kernel not found"),)


def test_other_names_are_a_broken_contract_and_are_still_compared() -> None:
    runner = Made(lambda _: truth(1)[0][None], name="output_0")
    runner.outputs = (SPEC.outputs[0].model_copy(update={"name": "output_0"}),)
    execution = execute(runner, windows(1), spec=SPEC)
    assert execution.scores is not None
    assert execution.problems == ((None, "outputs are named output_0, expected scores"),)


def test_a_dynamic_artifact_must_give_the_right_frames_for_half_a_window() -> None:
    def give(samples: Scores) -> Scores:
        frames = (samples.shape[2] - 991) // 270 + 1
        return np.zeros((1, frames, 3), np.float32)

    assert execute(Made(give), windows(1), spec=SPEC, dynamic_length=True).problems == ()
    stubborn = Made(lambda _: np.zeros((1, FRAMES, 3), np.float32))
    problems = execute(stubborn, windows(1), spec=SPEC, dynamic_length=True).problems
    assert problems[0][0] == "half of made@0.00s"
    assert "expected (1, 28, 3)" in problems[0][1]
    assert execute(stubborn, windows(1), spec=SPEC).problems == ()


def test_frames_follow_from_samples() -> None:
    geometry = GEOMETRY.model_copy(update={"window_samples": 80000})
    assert [expected_frames(geometry, n) for n in (32000, 80000, 160000)] == [115, 293, 589]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dtype": "float16"}, "is float16, expected float32"),
        ({"shape": (1, 1, 16000)}, "has shape (1, 1, 16000), expected (1, 1, 16921)"),
        ({"shape": (1, 16921)}, "has shape (1, 16921)"),
        ({"name": "audio"}, "are named audio, expected waveform"),
    ],
)
def test_a_wrong_declaration_is_told(change: dict[str, object], problem: str) -> None:
    declared = (SPEC.inputs[0].model_copy(update=change),)
    (found,) = declaration_problems("input", declared, SPEC.inputs)
    assert problem in found


def test_free_dimensions_and_silent_formats_declare_nothing_wrong() -> None:
    free = (SPEC.inputs[0].model_copy(update={"shape": (1, 1, None)}),)
    assert declaration_problems("input", free, SPEC.inputs) == []
    assert declaration_problems("input", None, SPEC.inputs) == []


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        (np.full((1, FRAMES, 3), 1.5, np.float32), "lie in [1.5, 1.5], expected [0, 1]"),
        (np.full((1, FRAMES, 3), np.nan, np.float32), "180 of 180 output values are NaN"),
        (np.zeros((1, FRAMES, 3), np.float64), "is float64, expected float32"),
        (np.zeros((1, 3, FRAMES), np.float32), "has shape (1, 3, 60)"),
    ],
)
def test_a_wrong_output_is_told(scores: NDArray[np.floating], problem: str) -> None:
    (found,) = value_problems(scores, SPEC)
    assert problem in found


def test_a_powerset_output_must_be_log_probabilities() -> None:
    spec = make_spec(powerset=2, classes=7)
    logits = np.random.default_rng(0).standard_normal((1, FRAMES, 7)).astype(np.float32)
    proper = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    assert value_problems(proper.astype(np.float32), spec) == []
    (found,) = value_problems(logits, spec)
    assert "log-softmax" in found


def test_features_are_measured_relative_to_their_range() -> None:
    exact = np.linspace(-4, 4, 60).reshape(1, 6, 10)

    def rung(error: float, *, noise: float = 0.0, limits: Limits = FP32) -> Rung:
        return features(
            windows(2),
            artifact=lambda w: exact + error * (w.start_s == 1.0),
            exact=lambda w: exact,
            rounded=lambda w: exact + noise,
            limits=limits,
        )

    found = rung(6e-4)
    assert found.verdict is Verdict.FAIL
    assert found.worst_window == "made@1.00s"
    assert value(found, "feature_error") == pytest.approx(6e-4 / 4)
    assert rung(3e-4).verdict is Verdict.PASS
    assert rung(6e-4, noise=6e-4).verdict is Verdict.PASS
    assert rung(6e-2, limits=FP16).verdict is Verdict.PASS


def test_features_that_cannot_be_seen_are_not_run() -> None:
    found = features(
        windows(1),
        artifact=lambda w: None,
        exact=lambda w: np.zeros((1, 1, 1)),
        rounded=lambda w: np.zeros((1, 1, 1)),
        limits=FP32,
    )
    assert found.verdict is Verdict.NOT_RUN


def test_snr_and_cosine() -> None:
    truth_ = np.array([3.0, 4.0])
    assert snr_db(truth_ * 1.01, truth_) == pytest.approx(40)
    assert snr_db(truth_, truth_) == 200
    assert cosine(2 * truth_, truth_) == pytest.approx(1)
    assert cosine(np.array([4.0, -3.0]), truth_) == pytest.approx(0)
    assert cosine(np.zeros(2), np.zeros(2)) == 1


def test_a_failure_outweighs_what_did_not_run_and_says_why() -> None:
    reference = truth(1)
    climbed = against([reference[0] + np.float32(0.01)], reference).climbed
    assert climbed.verdict is Verdict.FAIL
    assert climbed.reason == "scores: max_abs 0.01 (limit 0.0001) on made@0.00s"
