"""What benchmarks/quantisation.py compares: networks quantised by others' defaults and by us."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.backends.base import BACKENDS, RECIPES, why_refused
from export.calibration.draw import CalibrationSet
from export.calibration.trained import is_trained
from export.checkpoint import LoadedModel
from export.errors import ExportError
from export.ort_session import open_session
from export.pipeline import Exporter, not_trained_for
from export.types import ModelSpec, Recipe
from runtime_checks.runners.base import RUNNERS, why_untimed
from runtime_checks.timing.contenders import OpenArtifact
from runtime_checks.timing.protocol import Run

len(BACKENDS)  # recipes are registered by their backends
PYTORCH = {"linear": {nn.Linear}, "LSTM": {nn.LSTM}, "linear and LSTM": {nn.Linear, nn.LSTM}}
OURS = (
    "onnx_ort/fp32",
    "onnx_ort/int8-dynamic",
    "onnx_ort/int8-static",
    "onnx_ort/int8-qat",
    "onnx_ort/w8a16",
    "executorch_xnnpack/fp32",
    "executorch_xnnpack/int8-dynamic",
    "executorch_xnnpack/int8-static",
    "executorch_xnnpack/int8-qat",
    "coreml_mlprogram/fp32",
    "coreml_mlprogram/int8-weights",
)
NAMES = {"onnx_ort": "ONNX", "executorch_xnnpack": "ExecuTorch", "coreml_mlprogram": "Core ML"}
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """One line: its file beside fp32 of the same format, and what runs it (`timed` as it would be
    used, `run` to score it)."""

    name: str
    size_bytes: int
    float_bytes: int
    run: Callable[[Scores], Scores]
    timed: Callable[[int], Run] | None
    path: Path | None = None


@dataclass(frozen=True)
class OpenModule:
    """A PyTorch module in eager mode."""

    module: nn.Module

    def __call__(self, threads: int) -> Run:
        """For a number of threads."""
        torch.set_num_threads(threads)
        return self.run

    def run(self, window: Scores) -> Scores:
        """Scores [frames, classes] of a window [1, 1, samples]."""
        with torch.inference_mode():
            scores: Scores = self.module(torch.from_numpy(window))[0].numpy()
        return scores


@dataclass(frozen=True)
class OpenOnnx:
    """An ONNX file in ONNX Runtime."""

    path: Path

    def __call__(self, threads: int) -> Run:
        """For a number of threads."""
        session = open_session(str(self.path), {}, threads=threads)
        name = session.get_inputs()[0].name
        return lambda window: session.run(None, {name: window})[0][0]


class Windows:
    """Calibration windows as onnxruntime.quantization reads them."""

    def __init__(self, drawn: CalibrationSet, name: str) -> None:
        self.left: Iterator[Scores] = iter(drawn.windows)
        self.name = name

    def get_next(self) -> dict[str, Scores] | None:
        """The next window as inputs of the network, None after the last."""
        window = next(self.left, None)
        return None if window is None else {self.name: window[None, None]}


def pytorch_subjects(model: LoadedModel) -> Iterator[Subject]:
    """Eager fp32, and PyTorch's own dynamic quantisation of linear layers, LSTMs and both."""
    module = model.module
    with tempfile.TemporaryDirectory() as folder:

        def size(of: nn.Module) -> int:
            path = Path(folder) / "state.pt"
            torch.save(of.state_dict(), path)
            return path.stat().st_size

        whole = size(module)
        opener = OpenModule(module)
        yield Subject("PyTorch, fp32", whole, whole, opener.run, opener)
        for name, kinds in PYTORCH.items():
            made = torch.ao.quantization.quantize_dynamic(module, kinds, dtype=torch.qint8)
            opener = OpenModule(made.eval())
            yield Subject(f"PyTorch, dynamic int8: {name}", size(made), whole, opener.run, opener)


def onnx_subjects(exporter: Exporter, folder: Path) -> Iterator[Subject]:
    """What ONNX Runtime's quantisation makes of an fp32 file with its defaults."""
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    artifact = exporter.export(RECIPES["onnx_ort/fp32"], folder)
    whole = folder / artifact.path
    everything, static, mixed = (folder / f"{name}.onnx" for name in ("dynamic", "static", "mixed"))
    quantize_dynamic(whole, everything)
    reader: Any = Windows(exporter.calibration.drawn, exporter.model.spec.inputs[0].name)
    quantize_static(whole, static, reader)
    quantize_dynamic(static, mixed, op_types_to_quantize=["LSTM"])
    for name, path in (
        ("quantize_dynamic of everything", everything),
        ("quantize_static of everything, LSTM dynamic", mixed),
    ):
        opener, size = OpenOnnx(path), path.stat().st_size
        yield Subject(f"ONNX, {name}", size, artifact.size_bytes, opener(1), opener, path)


def our_subjects(
    exporter: Exporter, folder: Path, *, backends: Collection[str] = tuple(NAMES)
) -> Iterator[Subject]:
    """Every recipe of ours that there is for the model, by backend, fp32 first."""
    spec, whole = exporter.model.spec, dict[str, int]()
    for recipe in _recipes(exporter, backends):
        try:
            artifact = exporter.export(recipe, folder)
        except ExportError as error:  # such as a model that was not trained for the recipe
            sys.stderr.write(f"left out: {error}\n")
            continue
        size = whole.setdefault(recipe.backend, artifact.size_bytes)
        path, backend = folder / artifact.path, recipe.backend
        runner = RUNNERS[backend].open(path, spec, threads=1, options=artifact.runtime_options)
        timed = (
            None
            if why_untimed(backend)
            else OpenArtifact(backend, path, spec, artifact.runtime_options)
        )
        name = f"{NAMES[backend]}, {recipe.name}"
        yield Subject(
            f"{name} (ours)", artifact.size_bytes, size, _scoring(runner, spec), timed, path
        )


def trained_subjects(trained: LoadedModel, whole: Mapping[str, int], folder: Path) -> list[Subject]:
    """What a model trained for a recipe gives in place of the float model, whose fp32 files have so
    many bytes by backend: PyTorch that rounds as its integers do, and its artifacts."""
    exporter = Exporter(trained)
    recipes = [r for r in RECIPES.values() if is_trained(r) and not not_trained_for(trained, r)]
    rounded = OpenModule(exporter.compressed(recipes[0]))
    made = [Subject(f"{recipes[0].name}, rounded", 0, 1, rounded.run, None)]
    for recipe in recipes:
        (place := folder / recipe.backend).mkdir()
        ours = our_subjects(exporter, place, backends=[recipe.backend])
        mine = next(each for each in ours if recipe.name in each.name)
        made.append(replace(mine, float_bytes=whole[recipe.backend]))
    return made


def _scoring(runner: Any, spec: ModelSpec) -> Callable[[Scores], Scores]:
    given, told = spec.inputs[0].name, spec.outputs[0].name

    def run(window: Scores) -> Scores:
        outputs = runner.run({given: window})
        scores: Scores = outputs.get(told, next(iter(outputs.values())))[0]
        return scores

    return run


def _recipes(exporter: Exporter, backends: Collection[str]) -> Iterator[Recipe]:
    for key in OURS:
        recipe = RECIPES.get(key)
        if recipe is None or recipe.backend not in backends:
            continue
        backend = BACKENDS[recipe.backend]
        reason = backend.unavailable() or why_refused(backend, exporter.model.spec, recipe)
        reason = reason or RUNNERS[recipe.backend].unavailable()
        if reason:
            sys.stderr.write(f"{key} was left out: {reason}\n")
        else:
            yield recipe
