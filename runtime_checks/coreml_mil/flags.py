"""Where float16 is too small or too coarse for what a program computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .numerics import LARGEST_HALF
from .program import Operation

Kind = Literal["overflow", "invalid", "underflow"]


@dataclass(frozen=True)
class NumericFlag:
    """One operation whose float16 results lose more than digits.

    overflow: finite results beyond 65,504; invalid: NaN or infinity from finite inputs; underflow:
    results other than zero that become zero. `values` counts results of all `runs`; `largest` is
    the largest magnitude before rounding (NaN where all is invalid).
    """

    kind: Kind
    operation: str
    operator: str
    values: int
    runs: int
    largest: float

    def __str__(self) -> str:
        where = f"{self.operator} {self.operation}"
        return f"{where}: {self.values} values {WORDS[self.kind]} (largest {self.largest:.3g})"


WORDS: Mapping[Kind, str] = {
    "overflow": "overflow float16",
    "invalid": "are NaN or infinite",
    "underflow": "underflow float16 to zero",
}


class FlagCounter:
    """Adds up flags over runs, by operation in the order in which they first ran."""

    def __init__(self) -> None:
        self.runs = 0
        self._found: dict[tuple[Operation, Kind], tuple[int, float]] = {}

    def count(self, operation: Operation, exact: Tensor, kept: Tensor, *, finite: bool) -> None:
        """Compare results before and after rounding; `finite` says whether the inputs were."""
        if exact.numel() == 0:
            return
        largest = float(exact.abs().max())
        lost = int(((kept == 0) & (exact != 0)).sum())
        over = int((exact.isfinite() & ~kept.isfinite()).sum()) if largest > LARGEST_HALF else 0
        wrong = int((~exact.isfinite()).sum()) if finite and not np.isfinite(largest) else 0
        if wrong or over:
            sound = exact[exact.isfinite()]
            largest = float(sound.abs().max()) if sound.numel() else float("nan")
        kinds: tuple[tuple[Kind, int], ...] = (
            ("overflow", over),
            ("invalid", wrong),
            ("underflow", lost),
        )
        for kind, number in kinds:
            if number:
                before, most = self._found.get((operation, kind), (0, 0.0))
                self._found[operation, kind] = (before + number, max(most, largest))

    def flags(self) -> tuple[NumericFlag, ...]:
        """All so far."""
        return tuple(
            NumericFlag(kind, operation.name, operation.kind, number, self.runs, largest)
            for (operation, kind), (number, largest) in self._found.items()
        )


def numeric_flags(
    path: Path, windows: Iterable[Mapping[str, NDArray[np.generic]]], *, threads: int = 1
) -> tuple[NumericFlag, ...]:
    """Where a package's float16 operations overflow or underflow on some inputs (by name).

    Raises `BundleError` and `NotRunnableError` as `package.load_program` does, `EvaluationError`
    where the program cannot be computed. Windows that overflow go on with infinities, so that
    every operation that is hit is named, the first one first.
    """
    from .evaluator import Evaluator
    from .package import load_program

    evaluator = Evaluator(load_program(path))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for window in windows:
            evaluator.run(window)
    finally:
        torch.set_num_threads(before)
    return evaluator.flags
