"""Run Core ML artifacts: by the Core ML of macOS, elsewhere by evaluating what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.types import ModelSpec, NodeTime, RuntimeOption, TensorSpec

from ..coreml_mil.package import unreadable
from .base import Arrays, Inputs, NotMeasurableError, register_runner
from .coreml_mil import EVALUATED, EvaluatedRunner, why_no_core_ml, why_not_evaluated

Shape = tuple[int | None, ...]


@register_runner("coreml_mlprogram")
class CoreMLRunners:
    """Opens `.mlpackage` directories."""

    def unavailable(self) -> str | None:
        """None on macOS, and wherever packages can be read and evaluated."""
        return why_no_core_ml() and why_not_evaluated()

    def untimed(self) -> str | None:
        """None on macOS only: the evaluator's time is no phone's."""
        reason = why_no_core_ml()
        return reason and f"{EVALUATED}, so not timed: {reason}"

    def open(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        threads: int,
        options: Mapping[str, RuntimeOption] | None = None,
    ) -> CoreMLRunner | EvaluatedRunner:
        """Load a package; raises `BundleError` when it cannot be read or Core ML refuses it,
        `NotRunnableError` where the evaluator does not know one of its operations.

        Core ML takes no number of threads; it computes on the CPU here, so that a verdict does
        not depend on the accelerators of the machine.
        """
        if why_no_core_ml():
            return EvaluatedRunner(path, declared=declared_tensors(path), threads=threads)
        return CoreMLRunner(path)

    def profile(
        self, path: Path, windows: Sequence[Inputs], *, options: Mapping[str, RuntimeOption]
    ) -> tuple[NodeTime, ...]:
        """Nothing: the tools that tell are Xcode's."""
        if reason := self.untimed():
            raise NotMeasurableError(reason)
        raise NotMeasurableError(
            "Core ML's times by operation are shown by Xcode's performance report only"
        )


class CoreMLRunner:
    """One loaded package."""

    def __init__(self, path: Path) -> None:
        self.inputs, self.outputs = declared_tensors(path)
        self._model = _load(path)

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """Outputs by the names that the package gives them."""
        values = self._model.predict(dict(inputs))
        return {tensor.name: np.asarray(values[tensor.name]) for tensor in self.outputs}

    def taps(self, inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[str]) -> None:
        """None: Core ML shows nothing but its outputs."""
        return


def declared_tensors(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as the package declares them, on any system; free sizes are None.

    Raises `BundleError` when it is no package or not a Core ML model.
    """
    from coremltools.models.utils import load_spec

    try:
        model = load_spec(str(path))
    except Exception as error:
        # The package library raises bare exceptions, protobuf its own; all mean: not readable.
        raise unreadable(path, error) from error
    computed = _computed_shapes(model.mlProgram)
    return (
        tuple(_tensor(feature, computed) for feature in model.description.input),
        tuple(_tensor(feature, computed) for feature in model.description.output),
    )


def _load(path: Path) -> Any:
    import coremltools as ct

    try:
        return ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)
    except Exception as error:
        raise unreadable(path, error) from error


def _computed_shapes(program: Any) -> dict[str, Shape]:
    """Shapes of what the program computes: a description leaves those out that are not fixed."""
    return {
        output.name: tuple(
            int(dimension.constant.size) if dimension.HasField("constant") else None
            for dimension in output.type.tensorType.dimensions
        )
        for function in program.functions.values()
        for block in function.block_specializations.values()
        for operation in block.operations
        for output in operation.outputs
    }


def _tensor(feature: Any, computed: Mapping[str, Shape]) -> TensorSpec:
    from coremltools.proto import FeatureTypes_pb2

    array = feature.type.multiArrayType
    kind = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name(array.dataType)
    shape = _declared_shape(array) or computed.get(feature.name, ())
    return TensorSpec(name=feature.name, dtype=kind.lower(), shape=shape)


def _declared_shape(array: Any) -> Shape:
    """None where a range of sizes, or several, are allowed."""
    allowed: list[set[int]] = [
        {each.lowerBound, each.upperBound} for each in array.shapeRange.sizeRanges
    ]
    shapes = [tuple(each.shape) for each in array.enumeratedShapes.shapes] or [tuple(array.shape)]
    allowed = allowed or [set(sizes) for sizes in zip(*shapes, strict=True)]
    return tuple(sizes.pop() if len(sizes) == 1 else None for sizes in allowed)
