"""Limits of the parity ladder by precision; the user or a recipe may change any of them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, ValidationError

from export.errors import RecipeError
from export.types import Precision, Recipe, Value


class Limits(Value):
    """How far an artifact may be from its reference; None means reported only.

    `max_abs` and `dead_band` are probabilities. Both grow to `noise_factor` times the window's
    noise floor where that is more, since no float32 implementation can be held to less than
    float32's own rounding. Within the dead band around the threshold either decision is right.
    Percentages are of frames (`decision_flips`) and of boundaries (`unmatched_boundaries`);
    `delta_der` is in percentage points; `feature_error` is relative to the largest feature.

    Of embeddings, `max_abs` and noise floors are relative to the embedding's length,
    `cosine_distance` is one minus the cosine, and `delta_eer` is in percentage points.
    """

    max_abs: float | None = Field(ge=0)
    feature_error: float | None = Field(ge=0)
    dead_band: float = Field(ge=0, le=0.5)
    noise_factor: float = Field(default=1.5, ge=0)
    decision_flips: float | None = Field(ge=0)
    speaker_swaps: int | None = Field(ge=0)
    boundary_p95_frames: float | None = Field(ge=0)
    unmatched_boundaries: float | None = Field(ge=0)
    delta_der: float | None
    cosine_distance: float | None = Field(default=None, ge=0)
    delta_eer: float | None = None

    def score_limit(self, noise_floor: float) -> float | None:
        """Largest score difference allowed on a window of this noise floor."""
        return None if self.max_abs is None else max(self.max_abs, self.noise_factor * noise_floor)

    def band(self, noise_floor: float) -> float:
        """Half-width of the dead band on a window of this noise floor."""
        return max(self.dead_band, self.noise_factor * noise_floor)

    def override(self, changes: Mapping[str, object]) -> Limits:
        """These limits with some changed.

        Raises RecipeError on a name that is no limit or a value that cannot be one.
        """
        try:
            return Limits.model_validate(self.model_dump() | dict(changes))
        except ValidationError as error:
            first = error.errors()[0]
            raise RecipeError(
                f"limit {'.'.join(str(part) for part in first['loc'])}",
                found=first["msg"],
                expected=f"one of {', '.join(Limits.model_fields)}, with a number or null",
            ) from error


# A boundary that has no counterpart is one that moved out of sight: where the 95th percentile of
# shifts is limited, five in a hundred may do so. int8 has no limit on scores to take its dead band
# from, so it shares fp16's. What is coarser than int8 is held to the same.
_INT8 = Limits(
    max_abs=None,
    feature_error=None,
    dead_band=2e-2,
    decision_flips=1.0,
    speaker_swaps=None,
    boundary_p95_frames=2.0,
    unmatched_boundaries=5.0,
    delta_der=0.5,
    cosine_distance=2e-2,
    delta_eer=1.0,
)
DEFAULT_LIMITS: Mapping[Precision, Limits] = {
    Precision.FP32: Limits(
        max_abs=1e-4,
        feature_error=1e-4,
        dead_band=1e-4,
        decision_flips=0.0,
        speaker_swaps=0,
        boundary_p95_frames=0.0,
        unmatched_boundaries=0.0,
        delta_der=0.01,
        cosine_distance=1e-6,
        delta_eer=0.05,
    ),
    Precision.FP16: Limits(
        max_abs=2e-2,
        feature_error=2e-2,
        dead_band=2e-2,
        decision_flips=0.1,
        speaker_swaps=None,
        boundary_p95_frames=1.0,
        unmatched_boundaries=5.0,
        delta_der=0.1,
        cosine_distance=1e-3,
        delta_eer=0.2,
    ),
    Precision.INT8: _INT8,
    Precision.PALETTE_8: _INT8,
    Precision.PALETTE_6: _INT8,
    Precision.INT4: _INT8,
    Precision.PALETTE_4: _INT8,
}


def limits_for(
    recipe: Recipe, precision: Precision, *, changes: Mapping[str, object] | None = None
) -> tuple[Limits, str | None]:
    """Limits for an artifact, and what differs from the precision's defaults (None: nothing).

    The recipe's option `limits` changes the defaults, and the user's `changes` change those.
    """
    default = DEFAULT_LIMITS[precision]
    wanted = recipe.options.get("limits", {})
    if not isinstance(wanted, dict):
        raise RecipeError(recipe.name, found="limits that are no table", expected="name: number")
    used = default.override({**wanted, **(changes or {})})
    before, after = default.model_dump(), used.model_dump()
    changed = [
        f"{name} {before[name]} -> {after[name]}" for name in before if before[name] != after[name]
    ]
    return used, f"limits changed from {precision}: {', '.join(changed)}" if changed else None
