"""How numbers are held while a program is evaluated: three modes, and rounding."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from .program import FLOATS, Constant, Value

LARGEST_HALF = 65504.0


class Mode(StrEnum):
    """What an evaluation answers.

    DECLARED: every operation is computed in float64 from its inputs, and its result rounded to the
    precision that the program declares for it: the same figures on every machine.
    SEQUENTIAL: as DECLARED, with products and sums of float16 added up one by one and rounded to
    float16 after each step: no engine that computes in float16 is further off by adding up.
    EXACT: float64 throughout, with the weights as they are stored (or decompressed, in the
    precision declared for that): the program's meaning, apart from rounding.
    """

    DECLARED = "declared"
    SEQUENTIAL = "sequential"
    EXACT = "exact"


# Floating-point values of any precision are held in this type.
WORKING = torch.float64


def half(values: Tensor) -> Tensor:
    """Values rounded to float16."""
    return values.half().to(WORKING)


def rounded(values: Tensor, value: Value, mode: Mode) -> Tensor:
    """Held values in the precision that is declared for them; EXACT leaves them as they are."""
    if mode is Mode.EXACT or value.dtype not in FLOATS:
        return values
    return half(values) if value.dtype == "fp16" else values.float().to(WORKING)


def hold(values: Tensor, value: Value) -> Tensor:
    """A result in the type it is held in, before it is rounded; floats that are declared integers
    are cut off towards zero."""
    if value.dtype in FLOATS:
        return values.to(WORKING)
    return values.to(torch.bool if value.dtype == "bool" else torch.int64)


def held_constant(constant: Constant, value: Value) -> Tensor | str:
    """A constant of the file as it is held."""
    if isinstance(constant, str) or constant.dtype.kind in "US":
        return str(constant)
    if constant.dtype.kind == "f":
        return hold(torch.from_numpy(np.array(constant)), value)
    # Numpy has no types below a byte and torch has few unsigned ones: 64 bits hold them all.
    return hold(torch.from_numpy(np.array(constant).astype(np.int64)), value)


NUMPY = {"fp16": np.float16, "fp32": np.float32, "bool": np.bool_}


def given_out(values: Tensor, value: Value, mode: Mode) -> np.ndarray[tuple[int, ...], np.dtype]:
    """A result as the program declares it, in float64 where it was computed so.

    Core ML gives a scalar as an array of one value.
    """
    array = values.numpy()
    if value.dtype not in FLOATS or mode is not Mode.EXACT:
        array = array.astype(NUMPY.get(value.dtype) or np.dtype(value.dtype))
    return array.reshape(1) if array.ndim == 0 else array
