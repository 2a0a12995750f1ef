"""What a Core ML program holds, counted in the file's own messages: operations and weights.

coremltools says nothing of weights that it leaves as they are (a width that blocks do not divide,
more values than a palette has), so the program that came out is searched for them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..types import GraphStats
from .coreml_program import MainFunction, Weight, is_constant

ENGINE = "Core ML"
DENSE = ("float32", "float16")
NOT_FOUND = "weights that are in no layer's operation"


def program_stats(proto: Any, *, expected: int = 0, smallest: int = 0) -> GraphStats:
    """Counts for a model's message (coremltools' Model_pb2.Model).

    `expected` values of weights should be stored smaller than floats, in matrices of at least
    `smallest`; which are not is listed (`not_smaller`).
    """
    program = MainFunction(proto)
    counts = Counter(op.type for op in program.operations if not is_constant(op))
    weights = list(program.weights())
    stored: Counter[str] = Counter()
    for weight in weights:
        stored[weight.stored] += weight.values
    operators = dict(sorted(counts.items()))
    return GraphStats(
        operators=operators,
        delegates=0,
        weight_bytes=program.constant_bytes(),
        delegated={ENGINE: operators},
        stored=dict(sorted(stored.items())),
        not_smaller=_not_smaller(weights, expected=expected, smallest=smallest),
    )


def _not_smaller(weights: list[Weight], *, expected: int, smallest: int) -> dict[str, int]:
    """Values left as floats, by the name of the constant, where there are fewer others than
    expected."""
    missing = expected - sum(w.values for w in weights if w.stored not in DENSE)
    if missing <= 0:
        return {}
    left = {w.name: w.values for w in weights if w.stored in DENSE and w.values >= smallest}
    unknown = missing - sum(left.values())
    return left | ({NOT_FOUND: unknown} if unknown > 0 else {})
