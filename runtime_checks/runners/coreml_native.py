"""Run Core ML artifacts on the Core ML of macOS and evaluate them too: do both say the same?

`diarport check BUNDLE --backend coreml_native` on a Mac climbs the ladder with Core ML's results
and tells how far the evaluator is from them, so that what Linux says can be confirmed by anyone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.types import ModelSpec, NodeTime, RuntimeOption

from .base import Arrays, Inputs, register_runner
from .coreml_mil import EvaluatedRunner, why_no_core_ml
from .coreml_mlprogram import CoreMLRunner, CoreMLRunners, declared_tensors


@register_runner("coreml_native")
class NativeRunners:
    """Opens the packages of the backend `coreml_mlprogram`."""

    backend = "coreml_mlprogram"

    def unavailable(self) -> str | None:
        """None on macOS only."""
        return why_no_core_ml()

    def open(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        threads: int,
        options: Mapping[str, RuntimeOption] | None = None,
    ) -> ConfirmingRunner:
        """Load a package twice; raises as `coreml_mlprogram` does."""
        evaluated = EvaluatedRunner(path, declared=declared_tensors(path), threads=threads)
        return ConfirmingRunner(CoreMLRunner(path), evaluated)

    def profile(
        self, path: Path, windows: Sequence[Inputs], *, options: Mapping[str, RuntimeOption]
    ) -> tuple[NodeTime, ...]:
        """As `coreml_mlprogram`."""
        return CoreMLRunners().profile(path, windows, options=options)


class ConfirmingRunner:
    """A runtime's results, compared with the evaluator's on every window."""

    def __init__(self, runtime: CoreMLRunner | EvaluatedRunner, evaluated: EvaluatedRunner) -> None:
        self.inputs, self.outputs = runtime.inputs, runtime.outputs
        self._runtime, self._evaluated = runtime, evaluated
        self._distances: list[float] = []

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """What the runtime gives."""
        outputs, expected = self._runtime.run(inputs), self._evaluated.run(inputs)
        self._distances.append(
            max(float(np.abs(outputs[name] - expected[name]).max()) for name in outputs)
        )
        return outputs

    def taps(self, inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[str]) -> None:
        """None: Core ML shows nothing but its outputs."""
        return

    def weight_faults(self, module: nn.Module) -> tuple[str, ...]:
        """Layers whose weights are not those of the module that was exported."""
        return self._evaluated.weight_faults(module)

    def notes(self) -> tuple[str, ...]:
        """How far the two are apart."""
        if not self._distances:
            return ()
        worst, number = max(self._distances), len(self._distances)
        return (f"Core ML and the evaluator differ by at most {worst:.2g} on {number} windows",)
