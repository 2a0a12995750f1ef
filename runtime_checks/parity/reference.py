"""The PyTorch side of every comparison: scores in float64, in float32, and what rounding costs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.audio import Window
from export.progress import Progress, silent
from export.types import ModelSpec, Role

from ..inputs import window_inputs
from .decisions import Floats, probabilities

TINY = 1e-12
MAX_WORKERS = 4  # more gain little and cost memory


@dataclass(frozen=True)
class ReferenceScores:
    """Scores of one PyTorch module on all windows, each [frames, classes]; of an embedding model
    embeddings, each [speakers, dimension].

    `noise_floors` [windows] is per window the largest distance of float32 from float64, in
    probability, or relative to an embedding's length: what the model makes of float32's rounding.
    """

    float64: tuple[Floats, ...]
    float32: tuple[NDArray[np.float32], ...]
    noise_floors: tuple[float, ...]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run PyTorch on so many threads; one gives the same rounding every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate(
    module: nn.Module,
    windows: Sequence[Window],
    *,
    spec: ModelSpec,
    stage: str = "reference",
    progress: Progress = silent,
) -> ReferenceScores:
    """Scores of a module ([1, 1, samples] -> [1, frames, classes]) on every window; of an
    embedding model its embeddings, for `runtime_checks.inputs.speaker_weights`.

    float32 is computed a window at a time, as it would be in use.
    """
    exact = double(module)

    def both(window: Window) -> tuple[Floats, NDArray[np.float32]]:
        given = torch_inputs(spec, window)
        with torch.inference_mode():
            precise = exact(*(tensor.double() for tensor in given))
            return precise[0].numpy(), module(*given)[0].numpy()

    results = []
    # Whole windows in parallel: within one, a single thread gives the same rounding every time.
    with torch_threads(1), ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        for result in pool.map(both, windows):
            results.append(result)
            progress(stage, len(results), len(windows))
    floors = tuple(_distance(rounded, precise, spec) for precise, rounded in results)
    return ReferenceScores(
        tuple(precise for precise, _ in results), tuple(rounded for _, rounded in results), floors
    )


def _distance(rounded: NDArray[np.float32], precise: Floats, spec: ModelSpec) -> float:
    if spec.role is Role.EMBEDDING:
        return relative_distance(rounded, precise)
    return float(np.abs(probabilities(rounded, spec) - probabilities(precise, spec)).max())


def relative_distance(values: NDArray[np.floating], truth: Floats) -> float:
    """Largest difference of embeddings [speakers, dimension], each relative to its length."""
    lengths = np.maximum(np.linalg.norm(truth, axis=1, keepdims=True), TINY)
    return float((np.abs(values - truth) / lengths).max())


def torch_inputs(spec: ModelSpec, window: Window) -> tuple[Tensor, ...]:
    """A window as the float32 inputs of a model, in the order of its contract."""
    given = window_inputs(spec.inputs, window.samples)
    return tuple(torch.from_numpy(value) for value in given.values())


def double(module: nn.Module) -> nn.Module:
    """A float64 copy of a module in evaluation mode."""
    return copy.deepcopy(module).double().eval()


def layer_outputs(
    module: nn.Module, *inputs: Tensor, names: Sequence[str] | None = None
) -> dict[str, Floats]:
    """Outputs of a module's submodules for one window, in the order in which they finish.

    Only submodules that are called and give a tensor (or a tuple that starts with one, as an LSTM
    does) appear; a submodule that is called twice appears with its last output. `names` selects.
    """
    found: dict[str, Floats] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, Tensor):
                found.pop(name, None)
                found[name] = tensor.double().numpy()

        return hook

    handles = [
        submodule.register_forward_hook(keep(name))
        for name, submodule in module.named_modules()
        if name and (names is None or name in names)
    ]
    try:
        with torch.inference_mode(), torch_threads(1):
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found
