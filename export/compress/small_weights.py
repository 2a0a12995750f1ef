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
from .grids import Floats, blocks, divisor, gathered, palette, shaped, symmetric
from .half_weights import first_in_float32, in_float32

SMALLEST = 512
"""Values of the smallest matrix that is made smaller."""

BLOCK = 16
"""Values that share a scale and an offset in 4 bits; of other widths the largest divisor below."""

PALETTE_ROWS = 32
"""Rows that share a palette of 4 bits; of others the largest divisor below."""

MOSTLY_ZERO = 0.75
"""Share of zeros from which on leaving them out is smaller than a palette of 8 bits."""

PRUNED = 0.2
"""Share of a matrix that is left out without training after it: half is too much for any model."""

MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.RNNBase)

# What makes filters of a front-end's settings, so that there is something to round.
STORED_FORM = ("sincnet_filterbank", "wav_norm_affine", "mfcc_dft", "batch_norm_folded")

SENSITIVE = ("frontend.conv1d.0", "frontend.conv1d.1", "linear.", "frontend.conv1d.2")
"""Layers in the order of what a byte more for each value gains, as measured (docs/coreml.md)."""

SIZE = 0.28
"""Of a file with float32 weights, what one with 8-bit weights takes at most."""

PROGRAM_BYTES = (24_000, 32_000)
"""What a program takes beside its weights, with float32 weights and with 8-bit ones."""

Round = Callable[[Floats], Floats]


@dataclass(frozen=True)
class SmallWeights:
    """Rounds convolutions to 8 bits and all other matrices with `others`, after leaving the
    `sparsity` of each with the least magnitude out.

    With `spends`, what `SIZE` leaves goes to the most sensitive layers, which are float16.
    """

    others: Round
    sparsity: float = 0.0
    spends: bool = False

    def halves(self, model: nn.Module, *, skip: Collection[str] = ()) -> frozenset[str]:
        """Names of the layers (of the form that is stored) whose weights are float16."""
        return affordable(model, skip=skip) if self.spends else frozenset()

    def apply(self, model: nn.Module, *, skip: Collection[str] = ()) -> nn.Module:
        """A copy in the form that is stored, with rounded weights."""
        made = apply_rewrites(model, STORED_FORM)
        halves = self.halves(made, skip=skip)
        for name, layer, weight in matrices(made, skip=skip):
            values = weight.detach().double().numpy()
            if name in halves:
                rounded = values.astype(np.float16).astype(np.float64)
            elif isinstance(layer, nn.Conv1d | nn.Conv2d):
                waves = isinstance(layer, nn.Conv1d) and layer.in_channels == 1
                rounded = (shaped if waves else symmetric)(values, bits=8)
            else:
                rounded = self.others(pruned(values, self.sparsity))
            with torch.no_grad():
                weight.copy_(torch.from_numpy(rounded))
        for transform in transforms(made):
            transform.copy_(torch.from_numpy(few(transform.double().numpy())))
        return made.eval()


def matrices(
    model: nn.Module, *, skip: Collection[str] = ()
) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Each weight matrix that is made smaller, with its layer and the layer's name; not those of
    layers in `skip`."""
    for name, layer in model.named_modules():
        if isinstance(layer, MATRIX_LAYERS) and name not in skip:
            for weight in layer.parameters(recurse=False):
                if weight.ndim >= 2 and weight.numel() >= SMALLEST:
                    yield name, layer, weight


def affordable(model: nn.Module, *, skip: Collection[str] = ()) -> frozenset[str]:
    """The layers, most sensitive first, whose weights may take two bytes each and the file `SIZE`
    of what it takes in float32. Of a model in the form that is stored."""
    weights = list(matrices(model, skip=skip))
    tensors = [*model.named_parameters(), *model.named_buffers()]
    # A program has one bias for the two of a recurrence.
    full = 4 * sum(tensor.numel() for name, tensor in tensors if "bias_hh_" not in name)
    wide = in_float32(first_in_float32(model, small=True))
    scales = sum(len(w) * (4 if f"{n}.".startswith(wide) else 2) for n, _, w in weights)
    biases = 2 * sum(t.numel() for n, t in tensors if "bias_ih_" in n and not n.startswith(wide))
    small = [*(weight for _, _, weight in weights), *transforms(model)]
    used = full - 3 * sum(weight.numel() for weight in small) + scales - biases
    spare = SIZE * (full + PROGRAM_BYTES[0]) - (used + PROGRAM_BYTES[1])
    chosen = []
    for kind in SENSITIVE:
        for name, _, weight in weights:
            if name.startswith(kind) and weight.numel() <= spare:
                chosen.append(name)
                spare -= weight.numel()
    return frozenset(chosen)


def transforms(model: nn.Module) -> Iterator[Tensor]:
    """Each matrix that no training changes and that is stored smaller: those of MFCCs."""
    for buffer in model.buffers():
        if buffer.ndim == 2 and buffer.numel() >= SMALLEST:
            yield buffer


def few(transform: Floats) -> Floats:
    """A transform in at most 256 values, which leaves Fourier's as it is; most of a filterbank's
    are zeros, which are left out without that."""
    return transform if np.mean(transform == 0) > MOSTLY_ZERO else gathered(transform, bits=8)


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


COMPRESSIONS.add("int8", SmallWeights(to_int8, spends=True))
COMPRESSIONS.add("pruned-int8", SmallWeights(to_int8, sparsity=PRUNED))
COMPRESSIONS.add("int4", SmallWeights(to_int4))
for _bits in (8, 6, 4):
    COMPRESSIONS.add(f"palette-{_bits}", SmallWeights(to_palette(_bits), spends=_bits == 8))
