"""Compute what a program says, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .flags import FlagCounter, NumericFlag
from .numerics import Mode, given_out, held_constant, hold, rounded
from .operators.base import Call, Given, Held, Result, all_operators
from .program import Block, Operation, Program, Value

MAIN = "main"
COMPRESSED = "constexpr_"

Array = NDArray[np.generic]
Watch = Callable[[Operation, tuple[Held, ...]], None]


class EvaluationError(RuntimeError):
    """An operation that cannot be computed as the program has it."""


class Evaluator:
    """One function of a program; its states live on from run to run.

    `flags` counts where float16 overflowed or underflowed in all runs so far.
    """

    def __init__(
        self, program: Program, *, mode: Mode = Mode.DECLARED, function: str = MAIN
    ) -> None:
        self.block, self.mode = program.functions[function], mode
        self._operators = all_operators()
        self._constants: dict[Value, Held] = {}
        self._counter = FlagCounter()
        self._watch: Watch | None = None
        self.states: dict[str, Tensor] = {}
        for value in self.block.inputs:
            if value.is_state:
                sizes = [size or 1 for size in value.shape or ()]
                self.states[value.name] = hold(torch.zeros(sizes), value)
        with torch.inference_mode():
            self._keep_constants()

    @property
    def flags(self) -> tuple[NumericFlag, ...]:
        """In the order of the program."""
        return self._counter.flags()

    def held(self, value: Value) -> Tensor | None:
        """What the file has for a value, decompressed; None for what is computed from inputs."""
        found = self._constants.get(value)
        return found if isinstance(found, Tensor) else None

    def run(
        self, inputs: Mapping[str, Array], *, watch: Watch | None = None
    ) -> dict[str, NDArray[np.generic]]:
        """Outputs by name, for inputs by name; `watch` sees every operation's results.

        Raises `EvaluationError` where a value has not the declared shape or an operation fails,
        `NotRunnableError` on a form of an operation that is not there.
        """
        known: dict[Value, Held] = {}
        self._watch = watch
        with torch.inference_mode():
            for value in self.block.inputs:
                known[value] = value.name if value.is_state else self._input(value, inputs)
            self._run(self.block, known)
        self._counter.runs += 1
        return {
            value.name: given_out(self._tensor(value, known), value, self.mode)
            for value in self.block.outputs
        }

    def _input(self, value: Value, inputs: Mapping[str, Array]) -> Tensor:
        if value.name not in inputs:
            raise EvaluationError(f"the input {value.name} is missing")
        given = torch.from_numpy(np.array(inputs[value.name]))
        return self._held(given, value, of=f"input {value.name}")

    def _tensor(self, value: Value, known: Mapping[Value, Held]) -> Tensor:
        found = self._find(value, known)
        if not isinstance(found, Tensor):
            raise EvaluationError(f"the output {value.name} is no tensor")
        return found

    def _keep_constants(self) -> None:
        """Constants as they are held, weights decompressed once."""
        for operation in self.block.walk():
            for given in operation.inputs.values():
                for value in given if isinstance(given, tuple) else (given,):
                    if value.constant is not None and value not in self._constants:
                        self._constants[value] = held_constant(value.constant, value)
        for operation in self.block.walk():
            if operation.kind.startswith(COMPRESSED):
                self._apply(operation, self._constants)
        for value in self.block.outputs:
            if value.constant is not None:
                self._constants[value] = held_constant(value.constant, value)

    def _run(self, block: Block, known: dict[Value, Held]) -> None:
        for operation in block.operations:
            if not operation.kind.startswith(COMPRESSED):
                self._apply(operation, known)

    def _apply(self, operation: Operation, known: dict[Value, Held]) -> None:
        given: dict[str, Given] = {
            name: tuple(self._find(each, known) for each in value)
            if isinstance(value, tuple)
            else self._find(value, known)
            for name, value in operation.inputs.items()
        }

        def run_block(block: Block, inputs: Sequence[Held]) -> list[Held]:
            known.update(zip(block.inputs, inputs, strict=True))
            self._run(block, known)
            return [self._find(each, known) for each in block.outputs]

        call = Call(operation, given, self.mode, self.states, run_block)
        try:
            result = self._operators[operation.kind](call)
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise EvaluationError(f"{operation.kind} {operation.name}: {reason}") from error
        self._store(operation, result, known, finite=_finite(given))

    def _store(
        self, operation: Operation, result: Result, known: dict[Value, Held], *, finite: bool
    ) -> None:
        results = result if isinstance(result, tuple) else (result,)
        for value, each in zip(operation.outputs, results, strict=True):
            if not isinstance(each, Tensor):
                known[value] = each
                continue
            exact = hold(each, value)
            kept = self._held(each, value, of=f"{operation.kind} {operation.name}")
            if operation.kind.startswith(COMPRESSED):  # weights are what is declared in every mode
                kept = rounded(kept, value, Mode.DECLARED)
            if value.dtype == "fp16" and self.mode is not Mode.EXACT:
                self._counter.count(operation, exact, kept, finite=finite)
            known[value] = kept
        if self._watch is not None:
            self._watch(operation, results)

    def _held(self, result: Tensor, value: Value, *, of: str) -> Tensor:
        """A result rounded to its declared precision, after its shape is compared."""
        held = hold(result, value)
        declared = value.shape
        same = declared is None or (
            held.ndim == len(declared)
            and all(size in (None, n) for size, n in zip(declared, held.shape, strict=True))
        )
        if not same and not (declared == () and held.numel() == 1):
            shown = tuple(held.shape)
            raise EvaluationError(f"{of} has shape {shown}, the program says {declared}")
        if not same:
            held = held.reshape(())
        return rounded(held, value, self.mode)

    def _find(self, value: Value, known: Mapping[Value, Held]) -> Held:
        if value in known:
            return known[value]
        if value in self._constants:
            return self._constants[value]
        raise EvaluationError(f"{value.name} is used before it is computed")


def _finite(given: Mapping[str, Given]) -> bool:
    """Whether all that an operation was given is finite."""
    return all(
        bool(torch.isfinite(each).all())
        for value in given.values()
        for each in (value if isinstance(value, tuple) else (value,))
        if isinstance(each, Tensor) and torch.is_floating_point(each)
    )
