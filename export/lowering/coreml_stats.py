"""What a Core ML program holds, counted in the file's own messages: operations and weights.

Operations are counted by the units that can take them, as far as Apple says: the Neural Engine
computes in float16 only, the GPU and the CPU in float32 too (coremltools' guide, "Typed Execution",
https://apple.github.io/coremltools/docs-guides/source/typed-execution.html). Which of them takes an
operation, Core ML decides on the device.

coremltools says nothing of weights that it leaves as they are (a width that blocks do not divide,
more values than a palette has), so the program that came out is searched for them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..types import GraphStats
from .coreml_program import MainFunction, Weight, dtype_of, is_constant

DENSE = ("float32", "float16")

CONTROL_FLOW = frozenset({"cond", "while_loop"})
"""What Core ML goes through one operation at a time, on the CPU."""

HALF = "float16: Neural Engine, GPU or CPU"
WIDE = "float32: GPU or CPU"
LOOPS = "control flow: CPU"
OTHER = "integers and truth values: GPU or CPU"


def program_stats(proto: Any, *, expected: int = 0, smallest: int = 0) -> GraphStats:
    """Counts for a model's message (coremltools' Model_pb2.Model).

    `expected` values of weights should be stored smaller than floats, in matrices of at least
    `smallest`; which are not is listed (`not_smaller`).
    """
    program = MainFunction(proto)
    computing = [op for op in program.operations if not is_constant(op)]
    places: dict[str, Counter[str]] = {}
    for op in computing:
        places.setdefault(_place(op), Counter())[op.type] += 1
    weights = list(program.weights())
    stored: Counter[str] = Counter()
    for weight in weights:
        stored[weight.stored] += weight.values
    return GraphStats(
        operators=_sorted(Counter(op.type for op in computing)),
        delegates=0,
        weight_bytes=program.constant_bytes(),
        delegated={place: _sorted(found) for place, found in places.items()},
        stored=dict(sorted(stored.items())),
        not_smaller=_not_smaller(weights, expected=expected, smallest=smallest),
    )


def _place(op: Any) -> str:
    """The units that can take an operation, with the precision of what it gives (of a conversion to
    float16, of what it is given: only who computes in float32 can read it)."""
    if op.type in CONTROL_FLOW:
        return LOOPS
    kinds = {dtype_of(out.type.tensorType) for out in op.outputs}
    if op.type == "cast" or "float32" in kinds:
        return WIDE
    return HALF if "float16" in kinds else OTHER


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _not_smaller(weights: list[Weight], *, expected: int, smallest: int) -> dict[str, int]:
    """Values left as floats, by the name of the constant, where there are fewer others than
    expected."""
    if sum(w.values for w in weights if w.stored not in DENSE) >= expected:
        return {}
    return {w.name: w.values for w in weights if w.stored in DENSE and w.values >= smallest}
