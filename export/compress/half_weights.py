"""Weight matrices rounded through float16, as an artifact that stores them in float16 holds them.

Only matrices are rounded: they are nearly all of the bytes. The parametric SincNet filterbank
(cut-off frequencies, from which the filters are computed), norms and biases keep float32.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..rewrites.base import apply_rewrites
from .base import register_compression

# What a batch norm would move off its grid again.
STORED_FORM = ("batch_norm_folded",)
MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.RNNBase)


@register_compression("half_weights")
class HalfWeights:
    """float32 -> float16 -> float32, for weights of linear, convolutional and recurrent layers."""

    def keeps(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the parts that stay in float32: none."""
        return ()

    def apply(self, model: nn.Module, *, skip: Collection[str] = ()) -> nn.Module:
        """A copy with rounded weights; raises `RecipeError` naming a layer beyond float16."""
        rounded = apply_rewrites(model, STORED_FORM)
        kept = self.keeps(model)
        for layer_name, layer in rounded.named_modules():
            if not isinstance(layer, MATRIX_LAYERS) or f"{layer_name}.".startswith(kept):
                continue
            if layer_name in skip:
                continue
            for name, weight in layer.named_parameters(recurse=False):
                if weight.ndim >= 2:
                    weight.data = _round(weight.data, name=f"{layer_name}.{name}")
        return rounded.eval()


@register_compression("half_behind")
class HalfBehind(HalfWeights):
    """The same for what is behind the front-end and the first half of the recurrences.

    What these round is what all later layers see and enlarge (docs/coreml.md has the figures).
    """

    def keeps(self, model: nn.Module) -> tuple[str, ...]:
        """The front-end, and the first of two or three recurrent layers, two of four."""
        return in_float32(first_in_float32(model))


def in_float32(recurrences: int) -> tuple[str, ...]:
    """How names of layers start that are computed in float32."""
    return ("frontend.", *(f"recurrent.{i}." for i in range(recurrences)))


def first_in_float32(model: nn.Module, *, small: bool = False) -> int:
    """How many of a network's recurrent layers are computed in float32 when the rest is not.

    The first half, and with small weights all but the last: what these lose already leaves little
    room for more, and only scales take more bytes.
    """
    layers = sum(isinstance(module, nn.RNNBase) for module in model.modules())
    return max(layers - 1, 0) if small else layers // 2


def _round(weight: Tensor, *, name: str) -> Tensor:
    half = weight.half()
    if not torch.isfinite(half).all():
        raise RecipeError(
            name,
            found=f"a weight of {weight.abs().max().item():.4g}",
            expected=f"at most {torch.finfo(torch.float16).max:g} (float16's range)",
            todo="Use a recipe with fp32 weights for this model.",
        )
    return half.to(weight.dtype)
