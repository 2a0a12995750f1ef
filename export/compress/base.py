"""What a compression method must answer. One method is one file beside this one.

Compression changes what the network computes, on purpose; everything after it (rewrites, backends)
does not. The compressed PyTorch model is therefore what an artifact is compared with for export
drift, and the float model what it is compared with for the total loss.
"""

from __future__ import annotations

from typing import Protocol, assert_never

from torch import nn

from ..errors import RecipeError
from ..registry import Registry
from ..types import Precision, Recipe


class Compression(Protocol):
    """Makes a smaller model of a canonical one."""

    def apply(self, model: nn.Module) -> nn.Module:
        """A changed copy, in evaluation mode and still float32; the model is left as it was."""
        ...


COMPRESSIONS: Registry[Compression] = Registry("compression", "export.compress")
register_compression = COMPRESSIONS.register


def compress_for(recipe: Recipe, model: nn.Module) -> nn.Module:
    """The canonical model after what the recipe's weight precision asks for.

    fp32 gives the model itself, fp16 a copy with its weight matrices rounded. Raises `RecipeError`
    on a precision that no compression method makes.
    """
    precision = recipe.weight_precision
    match precision:
        case Precision.FP32:
            return model
        case Precision.FP16:
            return COMPRESSIONS["half_weights"].apply(model)
        case Precision.INT8:
            raise RecipeError(
                f"{recipe.backend}/{recipe.name}",
                found="no compression method makes int8 weights",
                expected="weights in fp32 or fp16",
            )
        case _:
            assert_never(precision)
