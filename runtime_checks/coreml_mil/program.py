"""A program as it is evaluated: blocks of operations on named values, free of coremltools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Constant = NDArray[np.generic] | str

FLOATS = ("fp16", "fp32")


@dataclass(frozen=True, eq=False)
class Value:
    """One value of a program, told apart by identity.

    `dtype` is MIL's name (fp16, int32, bool, str, int4, list), of a state that of what it holds;
    `shape` has None where a dimension is free and is itself None for lists. `constant` is what the
    file stores.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    constant: Constant | None = None
    is_state: bool = False


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation: `inputs` by parameter, a tuple where it takes any number of values."""

    kind: str
    inputs: Mapping[str, Value | tuple[Value, ...]]
    outputs: tuple[Value, ...]
    blocks: tuple[Block, ...] = ()

    @property
    def name(self) -> str:
        """That of the first output, as tools for Core ML show it."""
        return self.outputs[0].name


@dataclass(frozen=True, eq=False)
class Block:
    """Operations in order. Values of enclosing blocks are seen inside."""

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Value, ...]

    def walk(self) -> Iterator[Operation]:
        """Every operation, those of nested blocks after the one that holds them."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass(frozen=True)
class Program:
    """All functions of a package. `target` is its specification version (8: iOS 17)."""

    functions: Mapping[str, Block]
    target: int
