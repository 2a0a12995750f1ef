"""Limits by precision, and who may change them."""

from __future__ import annotations

import pytest

from export.errors import RecipeError
from export.types import Precision, Recipe
from runtime_checks.parity.limits import DEFAULT_LIMITS, limits_for


def recipe(**options: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "fp16",
            "backend": "onnx_ort",
            "weight_precision": "fp16",
            "activation_precision": "fp32",
            "options": options,
        }
    )


def test_every_precision_has_limits_and_coarser_ones_are_looser() -> None:
    assert set(DEFAULT_LIMITS) == set(Precision)
    fp32, fp16, int8 = (DEFAULT_LIMITS[p] for p in (Precision.FP32, Precision.FP16, Precision.INT8))
    assert (fp32.max_abs, fp16.max_abs, int8.max_abs) == (1e-4, 2e-2, None)
    assert (fp32.decision_flips, fp16.decision_flips, int8.decision_flips) == (0, 0.1, 1)
    assert (fp32.boundary_p95_frames, fp16.boundary_p95_frames, int8.boundary_p95_frames) == (
        0,
        1,
        2,
    )
    assert (fp32.delta_der, fp16.delta_der, int8.delta_der) == (0.01, 0.1, 0.5)


def test_the_noise_floor_raises_a_limit_and_never_lowers_it() -> None:
    limits = DEFAULT_LIMITS[Precision.FP32]
    assert limits.score_limit(1e-6) == limits.band(1e-6) == 1e-4
    assert limits.score_limit(2e-3) == limits.band(2e-3) == pytest.approx(3e-3)
    assert DEFAULT_LIMITS[Precision.INT8].score_limit(0.5) is None


def test_a_recipe_changes_limits_the_user_changes_those_and_both_are_told() -> None:
    tightened = recipe(limits={"max_abs": 1e-3, "delta_der": 0.05})
    used, told = limits_for(tightened, Precision.FP16, changes={"delta_der": 0.2})
    assert (used.max_abs, used.delta_der, used.decision_flips) == (1e-3, 0.2, 0.1)
    assert told == "limits changed from fp16: max_abs 0.02 -> 0.001, delta_der 0.1 -> 0.2"
    assert limits_for(recipe(), Precision.FP16) == (DEFAULT_LIMITS[Precision.FP16], None)


@pytest.mark.parametrize(
    "changes", [{"max-abs": 1}, {"max_abs": "much"}, {"max_abs": -1}, {"dead_band": 0.7}]
)
def test_what_is_no_limit_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=f"limit {next(iter(changes))}"):
        limits_for(recipe(), Precision.FP32, changes=changes)
    with pytest.raises(RecipeError):
        limits_for(recipe(limits=changes), Precision.FP32)
    with pytest.raises(RecipeError, match="no table"):
        limits_for(recipe(limits=3), Precision.FP32)
