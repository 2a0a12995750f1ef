"""Run Core ML packages where there is no Core ML: evaluated operation by operation."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.types import TensorSpec

from ..coreml_mil.evaluator import Evaluator
from ..coreml_mil.flags import NumericFlag
from ..coreml_mil.layers import LayerTaps
from ..coreml_mil.numerics import Mode
from ..coreml_mil.package import load_program
from ..coreml_mil.weights import weight_faults
from .base import Arrays

EVALUATED = "evaluated operation by operation, not run by Core ML"


def why_no_core_ml() -> str | None:
    """None on a Mac, which alone has a Core ML to run."""
    system = platform.system()
    return None if system == "Darwin" else f"Core ML runs on macOS only; this is {system}"


def why_not_evaluated() -> str | None:
    """None wherever coremltools is installed, whose loaders read the packages."""
    found = importlib.util.find_spec("coremltools")
    return None if found else "coremltools, which reads Core ML packages, is not installed"


class EvaluatedRunner:
    """One package, evaluated. `declared` are the inputs and outputs that its description names."""

    def __init__(
        self,
        path: Path,
        *,
        declared: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        threads: int,
        mode: Mode = Mode.DECLARED,
    ) -> None:
        self.inputs, self.outputs = declared
        self._threads = threads
        self._evaluator = Evaluator(load_program(path), mode=mode)

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """Outputs by the names that the package gives them."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        values: dict[str, Any] = {**self._evaluator.run(inputs)}
        return {tensor.name: values[tensor.name] for tensor in self.outputs}

    def taps(
        self, inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[str]
    ) -> Arrays | None:
        """Outputs of the layers that can be told by their place in the program."""
        taps = LayerTaps(self._evaluator.block, layers)
        if not taps.known:
            return None
        self._evaluator.run(inputs, watch=taps.watch)
        return taps.found

    @property
    def flags(self) -> tuple[NumericFlag, ...]:
        """Where float16 overflowed or underflowed in all runs so far."""
        return self._evaluator.flags

    def faults(self) -> tuple[str, ...]:
        """Operations whose results are beyond float16, the first one in the program first."""
        return tuple(str(flag) for flag in self.flags if flag.kind != "underflow")

    def weight_faults(self, module: nn.Module) -> tuple[str, ...]:
        """Layers whose weights are not those of the module that was exported."""
        return weight_faults(self._evaluator, module)

    def notes(self) -> tuple[str, ...]:
        """That no Core ML has run, and where float16 was too small."""
        return (f"{EVALUATED} ({why_no_core_ml() or 'by choice'})", *describe(self.flags))


def describe(flags: Sequence[NumericFlag]) -> list[str]:
    """One sentence for each kind of flag that was raised, with the first operation by name."""
    sentences = []
    for kind in ("overflow", "invalid", "underflow"):
        raised = [flag for flag in flags if flag.kind == kind]
        if raised:
            more = f", and {len(raised) - 1} more operations" if raised[1:] else ""
            sentences.append(f"float16 {kind}: {raised[0]}{more}")
    return sentences
