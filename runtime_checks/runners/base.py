"""What a runner must answer: named arrays in, named arrays out. One runner is one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.registry import Registry
from export.types import ModelSpec, NodeTime, RuntimeOption, TensorSpec

Arrays = dict[str, NDArray[np.float32]]
Inputs = Mapping[str, NDArray[np.float32]]


class Runner(Protocol):
    """An opened artifact.

    `inputs` and `outputs` are what the file itself declares (None where a format keeps no
    names or shapes), for the contract rung to compare with the model's spec.
    """

    inputs: tuple[TensorSpec, ...] | None
    outputs: tuple[TensorSpec, ...] | None

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """Compute the outputs for one window."""
        ...

    def taps(
        self, inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[str]
    ) -> Arrays | None:
        """Outputs of the named layers inside this very file, or None where it cannot be seen into.

        Layers that the file does not show are left out.
        """
        ...


class RunnerFactory(Protocol):
    """Opens artifacts of one backend."""

    def unavailable(self) -> str | None:
        """Why artifacts of this backend cannot run here, or None."""
        ...

    def open(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        threads: int,
        options: Mapping[str, RuntimeOption] | None = None,
    ) -> Runner:
        """Load an artifact for the given number of threads.

        `spec` names the inputs and outputs of formats that keep no names; `options` are the
        artifact's `runtime_options`, over which `threads` goes. Raises `BundleError` on a file
        that does not load.
        """
        ...

    def profile(
        self, path: Path, windows: Sequence[Inputs], *, options: Mapping[str, RuntimeOption]
    ) -> tuple[NodeTime, ...]:
        """Where the time of one thread goes, over the windows (the median of each part).

        Raises `NotMeasurableError` with the reason where that cannot be told.
        """
        ...


class NotMeasurableError(Exception):
    """Why a runtime does not show where its time goes."""


class NotRunnableError(Exception):
    """Why this machine cannot run an artifact that may be right: its verdict is NOT_RUN."""


@runtime_checkable
class Untimed(Protocol):
    """A factory whose runners give an artifact's results, but not in its runtime's time."""

    def untimed(self) -> str | None:
        """Why a time of this runner says nothing, or None."""
        ...


@runtime_checkable
class Substitute(Protocol):
    """A second factory for the artifacts of a backend, asked for by a name of its own."""

    backend: str


@runtime_checkable
class Noting(Protocol):
    """A runner that has something to tell a reader of its results."""

    def notes(self) -> tuple[str, ...]:
        """Sentences, after all windows have been run."""
        ...


@runtime_checkable
class Judging(Protocol):
    """A runner that sees inside the file while it runs."""

    def faults(self) -> tuple[str, ...]:
        """What no right artifact does, in all runs so far, with the name of the operation."""
        ...


@runtime_checkable
class Weighing(Protocol):
    """A runner that can tell whether the file's weights are those of a module."""

    def weight_faults(self, module: nn.Module) -> tuple[str, ...]:
        """Where they are not those of the module that was exported, with the layer's name."""
        ...


RUNNERS: Registry[RunnerFactory] = Registry("runner", "runtime_checks.runners")
register_runner = RUNNERS.register


def backend_of(runner: str) -> str:
    """The backend whose artifacts a runner opens: its own name, for all but substitutes."""
    factory = RUNNERS[runner]
    return factory.backend if isinstance(factory, Substitute) else runner


def why_untimed(backend: str) -> str | None:
    """Why artifacts of a backend are not timed on this machine, or None."""
    factory = RUNNERS[backend]
    reason = factory.unavailable()
    if reason is None and isinstance(factory, Untimed):
        reason = factory.untimed()
    return reason
