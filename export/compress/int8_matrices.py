"""Weight matrices of linear and recurrent layers rounded to int8, symmetric, per output channel.

An output channel is one row of a matrix (of a recurrence: of one gate's unit), and its scale is its
largest weight / 127: the grid of XNNPACK's qc8w, on which a backend finds the same integers again.
Convolutions of waveforms and their features, biases and norms keep float32: SincNet's filters lose
their stopbands in int8. Those of a spectrogram (Conv2d, in embedding networks) do not: their output
channels are rows like any other.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..rewrites.base import apply_rewrites
from .base import register_compression
from .half_weights import STORED_FORM

LARGEST = 127


@register_compression("int8_matrices")
class Int8Matrices:
    """float32 -> int8 -> float32 for the weights of Linear, Conv2d, LSTM, GRU and RNN layers."""

    def apply(self, model: nn.Module, *, skip: Collection[str] = ()) -> nn.Module:
        """A copy with rounded weights; raises `RecipeError` naming a weight that is not finite."""
        rounded = apply_rewrites(model, STORED_FORM)
        for layer_name, layer in rounded.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d | nn.RNNBase) or layer_name in skip:
                continue
            for name, weight in layer.named_parameters(recurse=False):
                if weight.ndim >= 2:
                    weight.data = _round(weight.data, name=f"{layer_name}.{name}")
        return rounded.eval()


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` [out, in] as int8 [out, in] and scales [out] in its type: their product is closest
    to it. Of a weight that is such a product already, exactly its integers."""
    largest = weight.abs().amax(dim=1)
    # A row of zeros needs a scale that can be divided by.
    scales = torch.where(largest > 0, largest / LARGEST, torch.ones_like(largest))
    scales = scales.clamp_min(torch.finfo(weight.dtype).tiny)
    return (weight / scales[:, None]).round().to(torch.int8), scales


def _round(weight: Tensor, *, name: str) -> Tensor:
    if not torch.isfinite(weight).all():
        raise RecipeError(
            name,
            found="a weight that is not finite",
            expected="finite weights",
            todo="Check the checkpoint: no recipe can help it.",
        )
    integers, scales = int8_rows(weight.flatten(1))
    return (integers.to(weight.dtype) * scales[:, None]).reshape(weight.shape)
