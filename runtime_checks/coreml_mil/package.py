"""Read a package from disk with coremltools' own loaders, into a `Program`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import BundleError
from export.quiet import quiet_tools

from ..runners.base import NotRunnableError
from .operators.base import is_known
from .program import Block, Constant, Operation, Program, Value

CONSTANT = "const"


def load_program(path: Path) -> Program:
    """The program of an `.mlpackage` with its weights.

    Raises `BundleError` when it is no readable ML Program, `NotRunnableError` with the names of
    operations that the evaluator does not have, or with what coremltools' loader does not read.
    """
    with quiet_tools():
        try:
            from coremltools.converters.mil.frontend.milproto.load import load
            from coremltools.libmodelpackage import ModelPackage
            from coremltools.models.utils import load_spec
        except ImportError as error:
            raise NotRunnableError(f"coremltools cannot read packages here ({error})") from error
        try:
            proto = load_spec(str(path))
            weights = Path(ModelPackage(str(path)).getRootModel().path()).parent / "weights"
        except Exception as error:
            # The package library raises bare exceptions, protobuf its own; all mean: unreadable.
            raise unreadable(path, error) from error
        if proto.WhichOneof("Type") != "mlProgram":
            raise unreadable(path, ValueError(f"a {proto.WhichOneof('Type')}, no ML Program"))
        _refuse_unknown(proto.mlProgram)
        try:
            loaded = load(proto, proto.specificationVersion, str(weights))
        except NotImplementedError as error:
            raise NotRunnableError(f"coremltools' loader cannot read it: {error}") from error
        except Exception as error:
            raise unreadable(path, error) from error
    return from_mil(loaded, target=proto.specificationVersion)


def from_mil(program: Any, *, target: int) -> Program:
    """A coremltools program (`mil.Program`) as it is evaluated."""
    reader = _Reader()
    functions = {
        name: reader.block(function, tuple(reader.value(v) for v in function.inputs.values()))
        for name, function in program.functions.items()
    }
    return Program(functions, target)


def unreadable(path: Path, error: Exception) -> BundleError:
    """The error of a package that cannot be loaded."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return BundleError(
        path,
        found=f"Core ML cannot load it ({reason})",
        expected="a Core ML package",
        todo="Build the bundle again.",
    )


def _refuse_unknown(program: Any) -> None:
    kinds = {
        operation.type
        for function in program.functions.values()
        for block in function.block_specializations.values()
        for operation in _operations(block)
    }
    unknown = sorted(kind for kind in kinds if kind != CONSTANT and not is_known(kind))
    if unknown:
        raise NotRunnableError(f"the evaluator does not know the operation {', '.join(unknown)}")


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


class _Reader:
    """Turns coremltools' variables into values, each once."""

    def __init__(self) -> None:
        self._known: dict[int, Value] = {}

    def block(self, block: Any, inputs: tuple[Value, ...]) -> Block:
        operations = tuple(
            self._operation(each) for each in block.operations if each.op_type != CONSTANT
        )
        return Block(inputs, operations, tuple(self.value(each) for each in block.outputs))

    def _operation(self, operation: Any) -> Operation:
        inputs: dict[str, Value | tuple[Value, ...]] = {}
        for name, given in operation.inputs.items():
            if isinstance(given, list | tuple):
                inputs[name] = tuple(self.value(each) for each in given)
            elif hasattr(given, "sym_type"):  # control flow also has Python functions here
                inputs[name] = self.value(given)
        blocks = tuple(
            self.block(each, tuple(self.value(var) for var in each.inputs))
            for each in operation.blocks
        )
        outputs = tuple(self.value(each) for each in operation.outputs)
        return Operation(operation.op_type, inputs, outputs, blocks)

    def value(self, var: Any) -> Value:
        if id(var) not in self._known:
            self._known[id(var)] = _value(var)
        return self._known[id(var)]


def _value(var: Any) -> Value:
    from coremltools.converters.mil.mil import types

    kind = var.sym_type
    if types.is_state(kind):
        held = kind.wrapped_type()
        dtype = types.builtin_to_string(held.get_primitive())
        return Value(var.name, dtype, _shape(held.get_shape()), is_state=True)
    if types.is_list(kind):
        return Value(var.name, "list", None)
    constant = var.op is None or var.op.op_type == CONSTANT
    stored = _constant(var.val) if constant and var.val is not None else None
    return Value(var.name, types.builtin_to_string(var.dtype), _shape(var.shape), stored)


def _shape(shape: Any) -> tuple[int | None, ...]:
    """Sizes; None for symbols."""
    return tuple(int(size) if isinstance(size, int | np.integer) else None for size in shape)


def _constant(value: Any) -> Constant:
    return value if isinstance(value, str) else np.asarray(value)
