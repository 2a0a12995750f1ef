"""Run Core ML artifacts on the Core ML of macOS."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import BundleError
from export.types import ModelSpec, NodeTime, RuntimeOption, TensorSpec

from .base import Arrays, Inputs, NotMeasurableError, register_runner


@register_runner("coreml_mlprogram")
class CoreMLRunners:
    """Opens `.mlpackage` directories."""

    def unavailable(self) -> str | None:
        """None on macOS only: nothing else has a Core ML to run."""
        system = platform.system()
        return None if system == "Darwin" else f"Core ML runs on macOS only; this is {system}"

    def open(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        threads: int,
        options: Mapping[str, RuntimeOption] | None = None,
    ) -> CoreMLRunner:
        """Load a package; raises `BundleError` when Core ML refuses it.

        Core ML takes no number of threads; it computes on the CPU here, so that a verdict does
        not depend on the accelerators of the machine.
        """
        return CoreMLRunner(path)

    def profile(
        self, path: Path, windows: Sequence[Inputs], *, options: Mapping[str, RuntimeOption]
    ) -> tuple[NodeTime, ...]:
        """Nothing: the tools that tell are Xcode's."""
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
    """Inputs and outputs as the package declares them, on any system.

    Raises `BundleError` when it is no package or not a Core ML model.
    """
    from coremltools.models.utils import load_spec

    try:
        description = load_spec(str(path)).description
    except Exception as error:
        # The package library raises bare exceptions, protobuf its own; all mean: not readable.
        raise _unreadable(path, error) from error
    return (
        tuple(_tensor(feature) for feature in description.input),
        tuple(_tensor(feature) for feature in description.output),
    )


def _load(path: Path) -> Any:
    import coremltools as ct

    try:
        return ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BundleError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return BundleError(
        path,
        found=f"Core ML cannot load it ({reason})",
        expected="a Core ML package",
        todo="Build the bundle again.",
    )


def _tensor(feature: Any) -> TensorSpec:
    from coremltools.proto import FeatureTypes_pb2

    array = feature.type.multiArrayType
    kind = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name(array.dataType)
    return TensorSpec(name=feature.name, dtype=kind.lower(), shape=tuple(array.shape))
