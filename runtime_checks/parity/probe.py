"""Export a module anew with its layers as outputs, for backends whose files cannot be seen into."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.audio import Window
from export.backends.base import BACKENDS
from export.types import ModelSpec, Recipe, TensorSpec

from ..runners.base import RUNNERS
from .bisect import Probe


class Probed(nn.Module):
    """A module that gives, after its own output, those of some of its submodules."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self._names = list(names)

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        """Scores, then the layers in the order of their names."""
        # Hooks live for this call alone: exporters copy modules, and a copied hook would still
        # write to where the original's outputs are kept.
        found: dict[str, Tensor] = {}
        handles = [
            self.module.get_submodule(name).register_forward_hook(_keep(found, name))
            for name in self._names
        ]
        try:
            scores = self.module(waveform)
        finally:
            for handle in handles:
                handle.remove()
        return (scores, *(found[name] for name in self._names))


def _keep(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, object], None]:
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if isinstance(tensor, Tensor):
            found[name] = tensor

    return hook


def fresh_export(spec: ModelSpec, recipe: Recipe) -> Probe:
    """A probe that exports for the recipe's backend into a temporary folder and runs the file."""

    def probe(
        rewritten: nn.Module, names: Sequence[str], window: Window
    ) -> dict[str, NDArray[np.floating]]:
        *inner, last = names
        waveform = torch.from_numpy(window.samples)[None, None]
        probed = Probed(rewritten, inner).eval()
        with torch.inference_mode():
            shapes = [tuple(output.shape) for output in probed(waveform)[1:]]
        layers = [f"layer{index}" for index in range(len(inner))]
        extra = tuple(
            TensorSpec(name=name, dtype="float32", shape=shape)
            for name, shape in zip(layers, shapes, strict=True)
        )
        wide = spec.model_copy(update={"outputs": (*spec.outputs, *extra)})
        backend, factory = BACKENDS[recipe.backend], RUNNERS[recipe.backend]
        with tempfile.TemporaryDirectory(prefix="diarport-probe-") as folder:
            path = Path(folder) / f"probe{backend.suffix}"
            backend.export(probed, wide, recipe, path)
            runner = factory.open(path, wide, threads=1)
            outputs = runner.run({spec.inputs[0].name: window.samples[None, None]})
        found: dict[str, NDArray[np.floating]] = {
            layer: outputs[name] for layer, name in zip(inner, layers, strict=True)
        }
        return {**found, last: outputs[spec.outputs[0].name]}

    return probe
