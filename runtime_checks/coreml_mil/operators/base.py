"""What an operation is given and gives, and the registry of all of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...runners.base import NotRunnableError
from ..numerics import WORKING, Mode, half
from ..program import Block, Operation

List = list[Tensor]
Held = Tensor | str | List
Given = Held | tuple[Held, ...]
Result = Held | tuple[Held, ...]


@dataclass
class Call:
    """One operation at work: its inputs by parameter, as they are held.

    Parameters that are not given and have no default are absent: ask with `maybe`.
    """

    operation: Operation
    given: Mapping[str, Given]
    mode: Mode
    states: dict[str, Tensor]
    run_block: Callable[[Block, Sequence[Held]], list[Held]]

    @property
    def stepwise(self) -> bool:
        """Whether this operation adds up in float16, step by step."""
        return self.mode is Mode.SEQUENTIAL and self.operation.outputs[0].dtype == "fp16"

    def tensor(self, name: str = "x") -> Tensor:
        """A parameter that is a tensor."""
        value = self.given[name]
        if not isinstance(value, Tensor):
            raise self.unsupported(f"{name} is no tensor")
        return value

    def maybe(self, name: str) -> Tensor | None:
        """A parameter that may be left out."""
        return self.tensor(name) if name in self.given else None

    def values(self, name: str = "values") -> tuple[Held, ...]:
        """A parameter that takes any number of values."""
        value = self.given[name]
        return value if isinstance(value, tuple) else (value,)

    def tensors(self, name: str = "values") -> list[Tensor]:
        """As `values`, of tensors."""
        return [value for value in self.values(name) if isinstance(value, Tensor)]

    def listed(self, name: str = "ls") -> List:
        """A parameter that is a list of tensors."""
        value = self.given[name]
        if not isinstance(value, list):
            raise self.unsupported(f"{name} is no list")
        return value

    def text(self, name: str, default: str = "") -> str:
        """A parameter that is a string."""
        return str(self.given[name]) if name in self.given else default

    def number(self, name: str, default: float = 0.0) -> float:
        """A scalar, as it is stored in the file."""
        return float(self.tensor(name).item()) if name in self.given else default

    def whole(self, name: str, default: int = 0) -> int:
        """A scalar integer."""
        return int(self.tensor(name).item()) if name in self.given else default

    def flag(self, name: str, default: bool = False) -> bool:
        """A scalar truth value."""
        return bool(self.tensor(name).item()) if name in self.given else default

    def wholes(self, name: str) -> list[int]:
        """A vector of integers."""
        return [int(each) for each in self.tensor(name).reshape(-1).tolist()]

    def axes(self, name: str = "axes") -> list[int]:
        """A vector of axes of x, counted from the front; all of them when it is left out."""
        rank = self.tensor("x").ndim
        if name not in self.given:
            return list(range(rank))
        return [axis % rank for axis in self.wholes(name)]

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a [..., n, k] times b [..., k, m]; of integers and floats, as floats."""
        if floating(a) != floating(b):
            a, b = a.to(WORKING), b.to(WORKING)
        if not self.stepwise:
            return a @ b
        total = half(a[..., :, :1] * b[..., :1, :])
        for k in range(1, a.shape[-1]):
            total = half(total + half(a[..., :, k : k + 1] * b[..., k : k + 1, :]))
        return total

    def total(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """Sum over axes, which stay as ones."""
        if not self.stepwise:
            return values.sum(tuple(axes), keepdim=True) if axes else values
        for axis in axes:
            total = values.narrow(axis, 0, 1)
            for index in range(1, values.shape[axis]):
                total = half(total + values.narrow(axis, index, 1))
            values = total
        return values

    def unsupported(self, what: str) -> NotRunnableError:
        """The error for a form of an operation that is not there."""
        kind, name = self.operation.kind, self.operation.name
        return NotRunnableError(f"the evaluator has no {kind} with {what} ({name})")


Operator = Callable[[Call], Result]

_OPERATORS: dict[str, Operator] = {}


def operator(*kinds: str) -> Callable[[Operator], Operator]:
    """Register a function for operations; a duplicate raises ValueError."""

    def register(function: Operator) -> Operator:
        for kind in kinds:
            if kind in _OPERATORS:
                raise ValueError(f"operation {kind!r} is registered twice")
            _OPERATORS[kind] = function
        return function

    return register


def all_operators() -> dict[str, Operator]:
    """Every operation by name."""
    package = importlib.import_module(__package__ or "")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _OPERATORS


def is_known(kind: str) -> bool:
    """Whether there is such an operation."""
    return kind in all_operators()


def along(vector: Tensor, *, axis: int, rank: int) -> Tensor:
    """A vector (or scalar) shaped so that it lies along one axis of a tensor of that rank."""
    if vector.ndim == 0 or vector.numel() == 1:
        return vector.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)


def floating(values: Tensor) -> bool:
    """Whether a tensor holds floating-point numbers."""
    return torch.is_floating_point(values)
