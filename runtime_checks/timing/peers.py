"""What else can be made of a model without us, to be timed in the same run.

A peer that does not work on a model is no error: it is left out with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.progress import Progress, silent
from export.types import ModelSpec

from .contenders import OpenArtifact, candidate
from .processes import ChildDiedError, in_child
from .protocol import Candidate, Run

if TYPE_CHECKING:
    from torch import nn

    from export.checkpoint import LoadedModel

COMPILED = "pytorch-compile"
STOCK = "executorch-stock"
PEERS = (COMPILED, STOCK)
EXECUTORCH = "executorch_xnnpack"

Opener = Callable[[int], Run]


@dataclass(frozen=True)
class OpenCompiled:
    """The PyTorch module under torch.compile with its default backend, float32, inference mode."""

    load: Callable[[], nn.Module]

    def __call__(self, threads: int) -> Run:
        """Compile for a number of threads; the first run compiles."""
        import torch

        torch.set_num_threads(threads)
        module = torch.compile(self.load())

        def run(window: NDArray[np.float32]) -> None:
            with torch.inference_mode():
                module(torch.from_numpy(window))

        return run


@dataclass(frozen=True)
class _FirstRun:
    """Load a candidate and run a silent window."""

    candidate: Candidate
    samples: int

    def __call__(self, progress: Progress) -> None:
        self.candidate.open(1)(np.zeros((1, 1, self.samples), np.float32))


@dataclass(frozen=True)
class _StockLowering:
    """Lower a model as ExecuTorch's documentation does."""

    load: Callable[[], LoadedModel]
    out: Path

    def __call__(self, progress: Progress) -> None:
        from export.lowering.stock import lower_as_documented

        lower_as_documented(self.load(), self.out)


def find_peers(
    kinds: Sequence[str],
    *,
    load: Callable[[], LoadedModel],
    spec: ModelSpec,
    folder: Path,
    limit_s: float,
    progress: Progress = silent,
) -> tuple[list[Candidate], dict[str, str]]:
    """Peers of the kinds asked for that work on a model within the limit, and why others do not.

    `load` must be picklable and give the model with the spec's window; `folder` takes files.
    """
    found: list[Candidate] = []
    not_run: dict[str, str] = {}
    for index, kind in enumerate(kinds):
        try:
            if kind == STOCK:
                path = folder / f"{spec.name}-{spec.geometry.window_samples}.pte"
                in_child(_StockLowering(load, path), limit_s=limit_s)
                opener: Opener = OpenArtifact(EXECUTORCH, path, spec, {})
            else:
                opener = OpenCompiled(partial(module_of, load))
            peer = candidate(kind, opener, spec=spec)
            in_child(_FirstRun(peer, spec.geometry.window_samples), limit_s=limit_s)
            found.append(peer)
        except ChildDiedError as error:
            not_run[kind] = str(error)
        progress(f"peers of {spec.name}", index + 1, len(kinds))
    return found, not_run


def module_of(load: Callable[[], LoadedModel]) -> nn.Module:
    """A loaded model's module; a function of its own, so that another process can call it."""
    return load().module
