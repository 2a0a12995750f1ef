"""What is timed of a bundle: every artifact that runs here, and PyTorch eager beside it.

torch is imported by the candidate that needs it alone: in a process of its own, an artifact is not
to be charged for PyTorch's memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.audio import Recording
from export.progress import Progress, silent
from export.types import Artifact, LatencyReport, ModelSpec, RuntimeOption

from ..inputs import window_inputs
from ..runners.base import RUNNERS, why_untimed
from .protocol import EAGER_BASELINE, Candidate, Run, measure, random_windows

if TYPE_CHECKING:
    from torch import nn

    from export.checkpoint import LoadedModel

HOP_S = 0.5
SEED = 0
NUM_WINDOWS = 20


@dataclass(frozen=True)
class OpenArtifact:
    """Opens an artifact with its backend's runner; picklable, so that a process can time it."""

    backend: str
    path: Path
    spec: ModelSpec
    options: Mapping[str, RuntimeOption]

    def __call__(self, threads: int) -> Run:
        """Load for a number of threads."""
        # A runner is the file of its backend's name; the others import what it can do without.
        importlib.import_module(f"runtime_checks.runners.{self.backend}")
        runner = RUNNERS[self.backend].open(
            self.path, self.spec, threads=threads, options=self.options
        )
        declared = self.spec.inputs
        beside = window_inputs(declared, np.zeros(0, np.float32))
        return lambda window: runner.run({**beside, declared[0].name: window})


@dataclass(frozen=True)
class OpenEager:
    """The PyTorch module as it is used without us: float32, inference mode."""

    load: Callable[[], nn.Module]
    spec: ModelSpec | None = None

    def __call__(self, threads: int) -> Run:
        """Load for a number of threads."""
        import torch

        torch.set_num_threads(threads)
        module = self.load()
        declared = self.spec.inputs if self.spec else ()
        given = window_inputs(declared, np.zeros(0, np.float32)) if declared else {}
        beside = [torch.from_numpy(value) for value in list(given.values())[1:]]

        def run(window: NDArray[np.float32]) -> None:
            with torch.inference_mode():
                module(torch.from_numpy(window), *beside)

        return run


def candidates(
    artifacts: Sequence[tuple[Artifact, Path]],
    *,
    spec: ModelSpec,
    load_eager: Callable[[], nn.Module],
) -> list[Candidate]:
    """PyTorch eager first, then every artifact whose backend runs here."""
    found = [candidate(EAGER_BASELINE, OpenEager(load_eager, spec), spec=spec)]
    for artifact, path in artifacts:
        if why_untimed(artifact.recipe.backend) is None:
            found.append(_of_artifact(artifact, path, spec))
    return found


def _of_artifact(artifact: Artifact, path: Path, spec: ModelSpec) -> Candidate:
    """A stateful artifact takes a hop where others take a window."""
    stream, declared = artifact.stream, artifact.contract(spec)
    opener = OpenArtifact(artifact.recipe.backend, path, declared, artifact.runtime_options)
    made = candidate(artifact.path, opener, spec=spec, sha256=artifact.sha256)
    return replace(made, window_samples=stream.hop_samples) if stream else made


def candidate(
    name: str, opener: Callable[[int], Run], *, spec: ModelSpec, sha256: str | None = None
) -> Candidate:
    """Something that runs windows of a model."""
    geometry = spec.geometry
    return Candidate(
        name,
        sha256,
        opener,
        model=spec.name,
        window_s=geometry.window_s,
        window_samples=geometry.window_samples,
    )


def windows_of(
    recordings: Sequence[Recording], *, spec: ModelSpec, seed: int = SEED
) -> list[NDArray[np.float32]]:
    """Random windows of real audio, float32 [1, 1, samples] each."""
    joined = np.concatenate([recording.samples for recording in recordings])
    return random_windows(
        joined, window_samples=spec.geometry.window_samples, count=NUM_WINDOWS, seed=seed
    )


def time_artifacts(
    artifacts: Sequence[tuple[Artifact, Path]],
    *,
    model: LoadedModel,
    recordings: Sequence[Recording],
    runs: int,
    progress: Progress = silent,
) -> tuple[LatencyReport, ...]:
    """Time artifacts in this process on one thread; no runs, no reports."""
    if runs == 0:
        return ()
    import torch

    found = candidates(artifacts, spec=model.spec, load_eager=lambda: model.module)
    windows = windows_of(recordings, spec=model.spec)
    threads_before = torch.get_num_threads()
    try:
        return tuple(
            measure(
                found,
                windows,
                threads=1,
                hop_s=HOP_S,
                seed=SEED,
                warmup_runs=5,
                timed_runs=runs,
                progress=progress,
            )
        )
    finally:
        torch.set_num_threads(threads_before)
