"""Weight matrices on grids of a few bits: 8-bit integers, 4-bit blocks, palettes, fewer of them.

Convolutions are rounded to 8 bits a row whatever the others are: a front-end is a small part of the
weights, and a coarse one loses more decisions than it saves bytes (docs/coreml.md). The one that
reads the waveform is rounded with its error moved to where speech has little energy, after
SincNet's filters have been computed and the waveform norm's scale is in them, since those are the
numbers that a file stores. Matrices below `SMALLEST` values stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..rewrites.base import apply_rewrites
from .base import COMPRESSIONS
from .grids import Floats, blocks, divisor, palette, shaped, symmetric

SMALLEST = 512
"""Values of the smallest matrix that is made smaller."""

BLOCK = 16
"""Values that share a scale and an offset in 4 bits; of other widths the largest divisor below."""

PALETTE_ROWS = 32
"""Rows that share a palette of 4 bits; of others the largest divisor below."""

PRUNED = 0.2
"""Share of a matrix that is left out without training after it: half is too much for any model."""

MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.RNNBase)

# What makes filters of a front-end's settings, so that there is something to round.
STORED_FORM = ("sincnet_filterbank", "wav_norm_affine")

Round = Callable[[Floats], Floats]


@dataclass(frozen=True)
class SmallWeights:
    """Rounds convolutions to 8 bits and all other matrices with `others`, after leaving the
    `sparsity` of each with the least magnitude out."""

    others: Round
    sparsity: float = 0.0

    def apply(self, model: nn.Module, *, skip: Collection[str] = ()) -> nn.Module:
        """A copy in the form that is stored, with rounded weights."""
        made = apply_rewrites(model, STORED_FORM)
        for layer, weight in matrices(made, skip=skip):
            values = weight.detach().double().numpy()
            if isinstance(layer, nn.Conv1d):
                rounded = (shaped if layer.in_channels == 1 else symmetric)(values, bits=8)
            else:
                rounded = self.others(pruned(values, self.sparsity))
            with torch.no_grad():
                weight.copy_(torch.from_numpy(rounded))
        return made.eval()


def matrices(model: nn.Module, *, skip: Collection[str] = ()) -> Iterator[tuple[nn.Module, Tensor]]:
    """Each weight matrix that is made smaller, with its layer; not those of layers in `skip`."""
    for name, layer in model.named_modules():
        if isinstance(layer, MATRIX_LAYERS) and name not in skip:
            for weight in layer.parameters(recurse=False):
                if weight.ndim >= 2 and weight.numel() >= SMALLEST:
                    yield layer, weight


def pruned(weight: Floats, sparsity: float) -> Floats:
    """Zeros for the share of values with the least magnitude."""
    if not sparsity:
        return weight
    return np.where(np.abs(weight) <= np.quantile(np.abs(weight), sparsity), 0.0, weight)


def block_size(width: int) -> int:
    """Values of a 4-bit block in rows of a width."""
    return divisor(width, most=BLOCK)


def palette_rows(rows: int) -> int:
    """Rows that share a palette of 4 bits."""
    return divisor(rows, most=PALETTE_ROWS)


def to_int8(weight: Floats) -> Floats:
    """One scale a row."""
    return symmetric(weight, bits=8)


def to_int4(weight: Floats) -> Floats:
    """One scale and offset a block."""
    return blocks(weight, bits=4, size=block_size(weight.shape[1]))


def to_palette(bits: int) -> Round:
    """One palette a matrix; in 4 bits one for some rows."""
    return lambda weight: palette(
        weight, bits=bits, rows=palette_rows(len(weight)) if bits == 4 else len(weight)
    )


COMPRESSIONS.add("int8", SmallWeights(to_int8))
COMPRESSIONS.add("pruned-int8", SmallWeights(to_int8, sparsity=PRUNED))
COMPRESSIONS.add("int4", SmallWeights(to_int4))
for _bits in (8, 6, 4):
    COMPRESSIONS.add(f"palette-{_bits}", SmallWeights(to_palette(_bits)))
