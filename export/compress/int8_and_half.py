"""int8 for what is multiplied in integers, float16 for the convolutions that are not.

Convolutions that stay in float are computed in float32; stored in float16 they take half of the
bytes, and lose next to nothing. SincNet's parametric filterbank keeps float32, as in float16.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from .base import register_compression
from .half_weights import HalfWeights
from .int8_matrices import Int8Matrices


@register_compression("int8_and_half")
class Int8AndHalf:
    """Linear and recurrent layers rounded to int8 a row, convolutions to float16."""

    def apply(self, model: nn.Module, *, skip: Collection[str] = ()) -> nn.Module:
        """A rounded copy; raises `RecipeError` naming a weight that is not finite or too large."""
        integers = Int8Matrices().apply(model, skip=skip)
        convolutions = {n for n, m in model.named_modules() if isinstance(m, nn.Conv1d)}
        others = {n for n, _ in model.named_modules() if n not in convolutions}
        return HalfWeights().apply(integers, skip={*skip, *others})
