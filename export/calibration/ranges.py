"""Ranges of activations by layer: what calibration finds, and what training may give instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from ..types import SCHEMA_VERSION, Recipe, Sha256, Value
from .draw import CalibrationSet
from .observers import DEFAULT_OBSERVER

CALIBRATED = "calibrated"
"""Option of a recipe: its activations have ranges that are found on audio before it is exported."""

FLOAT_LAYERS = "float_layers"
"""Option of a recipe: layers that it does not compute on integers, where a model has them."""


@dataclass(frozen=True)
class Calibration:
    """What calibrated recipes are calibrated on, and how (`observers`)."""

    drawn: CalibrationSet
    observer: str = DEFAULT_OBSERVER


def is_calibrated(recipe: Recipe) -> bool:
    """Whether a recipe needs calibration."""
    return bool(recipe.options.get(CALIBRATED, False))


def calibrated_recipe(recipe: Recipe, calibration: Calibration) -> Recipe:
    """The recipe as an artifact names it: with the hash of its audio, its length, the observer."""
    drawn = calibration.drawn
    made = {"observer": calibration.observer, "seconds": drawn.seconds}
    return recipe.model_copy(
        update={
            "calibration_sha256": drawn.sha256,
            "options": {**recipe.options, "calibration": made},
        }
    )


class LayerRanges(Value):
    """What one layer needs in integers: (low, high) of what goes in and of what comes out, and the
    scales of its weights, one an output channel (None: each channel's largest weight / 127)."""

    inputs: tuple[float, float]
    outputs: tuple[float, float]
    weight_scales: tuple[float, ...] | None = None


class Ranges(Value):
    """Ranges by layer, by the layers' names in the canonical model."""

    layers: dict[str, LayerRanges] = Field(default_factory=dict)


class CalibrationRecord(Value):
    """`calibration.json` of a bundle: on what its recipes were calibrated, and what that gave.

    `sha256` is that of the samples (`CalibrationSet`), which every calibrated recipe names too, and
    `windows` where they are from; `ranges` are by artifact.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    sha256: Sha256
    observer: str
    seconds: float
    windows: tuple[str, ...]
    ranges: dict[str, Ranges]
