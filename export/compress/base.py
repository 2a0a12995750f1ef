"""What a compression method must answer. One method is one file beside this one.

Compression changes what the network computes, on purpose; everything after it (rewrites, backends)
does not. The compressed PyTorch model is therefore what an artifact is compared with for export
drift, and the float model what it is compared with for the total loss.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from torch import nn

from ..errors import RecipeError
from ..registry import Registry
from ..types import Precision, Recipe
from .layers import skipped_layers

METHODS: Mapping[Precision, str | None] = {
    Precision.FP32: None,
    Precision.FP16: "half_weights",
    Precision.INT8: "int8",
    Precision.PALETTE_8: "palette-8",
    Precision.PALETTE_6: "palette-6",
    Precision.INT4: "int4",
    Precision.PALETTE_4: "palette-4",
}
"""The method that makes weights of a precision; a recipe's option `compression` names another."""


class Compression(Protocol):
    """Makes a smaller model of a canonical one."""

    def apply(self, model: nn.Module, *, skip: Collection[str] = ()) -> nn.Module:
        """A changed copy, in evaluation mode and still float32; the model is left as it was.

        Layers named in `skip` (`export.compress.layers`) keep their weights.
        """
        ...


COMPRESSIONS: Registry[Compression] = Registry("compression", "export.compress")
register_compression = COMPRESSIONS.register


def compress_for(recipe: Recipe, model: nn.Module) -> nn.Module:
    """The canonical model after the recipe's compression; fp32 gives the model itself.

    Raises `RecipeError` when the recipe names a method, or a layer to skip, that does not exist.
    """
    name, skip = method_of(recipe), skipped_layers(recipe, model)
    if name is None:
        return model
    if name not in COMPRESSIONS:
        raise RecipeError(
            f"{recipe.backend}/{recipe.name}",
            found=f"no compression method {name!r}",
            expected=f"one of {', '.join(COMPRESSIONS)}",
        )
    return COMPRESSIONS[name].apply(model, skip=skip)


def method_of(recipe: Recipe) -> str | None:
    """The name of the method that makes a recipe's weights; None leaves them as they are."""
    named = recipe.options.get("compression")
    return METHODS[recipe.weight_precision] if named is None else str(named)
