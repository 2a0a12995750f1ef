"""Weights of a float32 Core ML program stored in less, wherever the numbers stay what they are.

Embedding networks compute in float32: their pooling takes the square of a mean from a mean of
squares, which float16 cannot hold. What a recipe makes smaller is therefore the file alone. The
weights that come here are rounded already (`export.compress`), and are found by their values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compress.grids import symmetric
from ..compress.small_weights import SMALLEST
from .coreml_program import MainFunction
from .coreml_small import quantize_rows, store_half

ROUNDING = 3e-7  # of a float32 that was an integer times a scale


def store_rounded(model: Any) -> Any:
    """A converted model (coremltools' MLModel) whose weights are int8 with a scale a row where they
    lie on such a grid, else float16 where float16 holds them."""
    found = [w for w in MainFunction(model.get_spec()).weights() if w.values >= SMALLEST]
    values = _values(model, {weight.name for weight in found})
    integers = [w for w in found if w.name in values and _on_rows(values[w.name])]
    halves = [
        w.name for w in found if w.name in values and w not in integers and _half(values[w.name])
    ]
    model = quantize_rows(model, integers) if integers else model
    return store_half(model, halves) if halves else model


def _on_rows(values: NDArray[np.float32]) -> bool:
    exact = values.astype(np.float64)
    off = np.abs(symmetric(exact, bits=8) - exact).max()
    return bool(off <= ROUNDING * np.abs(exact).max())


def _half(values: NDArray[np.float32]) -> bool:
    return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def _values(model: Any, names: set[str]) -> dict[str, NDArray[np.float32]]:
    """Float32 constants by name."""
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.models.utils import _apply_graph_pass

    found: dict[str, NDArray[np.float32]] = {}

    class Collect(AbstractGraphPass):  # type: ignore[misc]
        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                for op in function.operations:
                    if op.op_type == "const" and op.name in names:
                        values = np.asarray(op.val.val)
                        if values.dtype == np.float32:
                            found[op.name] = values

    _apply_graph_pass(model, Collect(), return_pymil_prog=True)  # read only: no way back
    return found
