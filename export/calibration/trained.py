"""Grids that quantisation-aware training gave a model: `quantisation.json` of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..errors import CheckpointError
from ..types import SCHEMA_VERSION, Recipe, Value

GRIDS_FILE = "quantisation.json"
TRAINED = "trained"
"""Option of a recipe: its activations have the ranges that the model was trained with."""


class ConvGrids(Value):
    """What integers one convolution of a front-end computes with.

    `inputs` is the range (low, high) that 8 bits cover of what goes in, all channels alike, after
    each channel was multiplied by its `gains`. With two `halves` the inputs are a sum of two 8-bit
    numbers, of which the second is what the first has rounded away. What comes out is the sum of
    the products: it is not rounded.
    """

    inputs: tuple[float, float]
    gains: tuple[float, ...]
    halves: Literal[1, 2] = 1

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        low, high = self.inputs
        if not low <= 0 <= high or low == high:
            raise ValueError(f"a range of inputs from {low:g} to {high:g}: it must hold zero")
        if min(self.gains, default=0.0) <= 0:
            raise ValueError("a gain that is not positive")
        return self


class TrainedGrids(Value):
    """The grids of a model's convolutions by their names in the canonical model, and the recipe
    that it was trained for."""

    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: str
    layers: dict[str, ConvGrids] = Field(min_length=1)


def is_trained(recipe: Recipe) -> bool:
    """Whether a recipe takes its ranges from training."""
    return bool(recipe.options.get(TRAINED, False))


def read_grids(folder: Path) -> TrainedGrids | None:
    """The grids in a model folder; None where there are none. Raises CheckpointError on others."""
    path = folder / GRIDS_FILE
    if not path.is_file():
        return None
    try:
        return TrainedGrids.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = (
            "; ".join(
                f"{'.'.join(str(p) for p in e['loc']) or 'all of it'}: {e['msg']}"
                for e in error.errors()[:3]
            )
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise CheckpointError(
            path,
            found=f"not readable ({reason})",
            expected="the grids that distill --qat wrote",
            todo="Train the model again, or delete the file to use the model without them.",
        ) from error
