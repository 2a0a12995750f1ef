"""The layers that recipes make smaller, by their names in the canonical model.

They are what `--skip` leaves in float, and what is tried one at a time to find the sensitive ones.
"""

from __future__ import annotations

from torch import nn

from ..calibration.ranges import FLOAT_LAYERS
from ..errors import RecipeError
from ..types import Recipe

KINDS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.RNNBase)
FILTERBANK = ".filterbank"


def compressible_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers with a weight matrix, in the model's order.

    A filterbank that computes its filters from parameters is one layer, its convolution.
    """
    return tuple(
        name.removesuffix(FILTERBANK)
        for name, module in model.named_modules()
        if isinstance(module, KINDS) or name.endswith(FILTERBANK)
    )


def stays_float(layer: str, recipe: Recipe) -> bool:
    """Whether a recipe leaves a layer in float, by its name alone."""
    return any(_below(name, (layer,)) for name in (*recipe.skip, *_own(recipe)))


def layers_in_float(recipe: Recipe, model: nn.Module) -> frozenset[str]:
    """The layers that a recipe leaves in float: those it skips, and its own `float_layers`, which
    may be stored smaller for all that. Raises `RecipeError` as `skipped_layers` does."""
    layers = compressible_layers(model)
    own = {layer for name in _own(recipe) for layer in _below(name, layers)}
    return skipped_layers(recipe, model) | own


def skipped_layers(recipe: Recipe, model: nn.Module) -> frozenset[str]:
    """The layers that a recipe does not touch.

    A name stands for all layers below it (`frontend` for all convolutions). Raises `RecipeError`
    on a skipped name that the model does not have.
    """
    layers = compressible_layers(model)
    chosen: set[str] = set()
    for name in recipe.skip:
        found = _below(name, layers)
        if not found:
            raise RecipeError(
                f"--skip {name}",
                found="the model has no such layer",
                expected=f"one of {', '.join(layers)}",
            )
        chosen |= set(found)
    return frozenset(chosen)


def _own(recipe: Recipe) -> list[str]:
    own = recipe.options.get(FLOAT_LAYERS, [])
    return [str(name) for name in own] if isinstance(own, list) else [str(own)]


def _below(name: str, layers: tuple[str, ...]) -> list[str]:
    return [layer for layer in layers if layer == name or layer.startswith(f"{name}.")]
