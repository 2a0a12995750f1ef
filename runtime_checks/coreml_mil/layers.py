"""Find the layers of a segmentation network in its program.

A program keeps no module names. But operations of one kind come in the order of the layers that
they were made from: where there are as many of them as of such layers, each is its layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .operators.base import Held
from .program import Block, Operation, Value

RECURRENT = "lstm"
FRONTEND = "frontend"
# By the last part of a layer's name that is no number.
KINDS = {
    "conv1d": "conv",
    "pool1d": "max_pool",
    "wav_norm1d": "instance_norm",
    "norm1d": "instance_norm",
    "recurrent": RECURRENT,
    "linear": "linear",
    "classifier": "linear",
}
MOVES = ("transpose", "reshape", "expand_dims", "squeeze", "cast")


class LayerTaps:
    """Collects the outputs of layers while a program is evaluated."""

    def __init__(self, block: Block, layers: Sequence[str]) -> None:
        self.found: dict[str, NDArray[np.float32]] = {}
        self._names = _places(block, layers)

    @property
    def known(self) -> bool:
        """Whether any of the layers was recognised."""
        return bool(self._names)

    def watch(self, operation: Operation, results: tuple[Held, ...]) -> None:
        """See one operation's results."""
        name, first = self._names.get(operation), results[0]
        if name is None or not isinstance(first, Tensor):
            return
        # Core ML's recurrent operations put time before the batch.
        layer = first.transpose(0, 1) if operation.kind == RECURRENT else first
        self.found[name] = layer.float().numpy()


def _places(block: Block, layers: Sequence[str]) -> dict[Operation, str]:
    operations = list(block.operations)
    first = next((i for i, each in enumerate(operations) if each.kind == RECURRENT), None)
    if first is None:
        return {}
    places: dict[Operation, str] = {}
    for kind in set(KINDS.values()):
        named = [layer for layer in layers if KINDS.get(_stem(layer)) == kind]
        # Products before the first recurrent layer belong to the front-end.
        searched = operations[first:] if kind == "linear" else operations
        there = [operation for operation in searched if operation.kind == kind]
        if len(there) == len(named):
            places.update(zip(there, named, strict=True))
    if FRONTEND in layers:
        source = _source(operations, operations[first])
        if source is not None:
            places[source] = FRONTEND
    return places


def _stem(layer: str) -> str:
    return next(part for part in reversed(layer.split(".")) if not part.isdigit())


def _source(operations: Sequence[Operation], operation: Operation) -> Operation | None:
    """The operation whose values the first recurrent one is given, moved or cast."""
    makers: dict[Value, Operation] = {value: each for each in operations for value in each.outputs}
    while True:
        given = operation.inputs["x"]
        maker = None if isinstance(given, tuple) else makers.get(given)
        if maker is None or maker.kind not in MOVES:
            return maker
        operation = maker
