"""How close the evaluator of Core ML packages is to PyTorch, and how long a window takes it.

    PYTHONPATH=. python benchmarks/coreml_evaluator.py sinc-1bi --window-s 2

exports a model for Core ML in fp32 and fp16, evaluates both packages on the windows of the
recording inside pyannote.audio and on the ladder's stress windows, on one thread, and prints the
largest distances from two models in float64: the exported one, whose weights are those of the
package, and PyTorch's own; and the median processor time of a window.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.audio import Window, cut_windows, load_recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import load_model, with_window
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.rewrites.base import apply_rewrites
from runtime_checks.coreml_mil.evaluator import Evaluator
from runtime_checks.coreml_mil.numerics import Mode
from runtime_checks.coreml_mil.package import load_program
from runtime_checks.parity.reference import double
from runtime_checks.parity.stress import stress_windows

BACKEND = "coreml_mlprogram"
SEQUENTIAL_WINDOWS = 4  # adding up step by step takes seconds a window


def scores(module: nn.Module, window: Window) -> NDArray[np.float64]:
    """Of a module in float64, [1, frames, classes]."""
    with torch.inference_mode():
        found: NDArray[np.float64] = module(
            torch.from_numpy(window.samples)[None, None].double()
        ).numpy()
    return found


def line(
    path: Path, mode: Mode, windows: Sequence[Window], models: Sequence[nn.Module]
) -> list[str]:
    """Distances from both models, and the time."""
    evaluator = Evaluator(load_program(path), mode=mode)
    distances: list[list[float]] = [[] for _ in models]
    times = []
    for window in windows:
        begin = time.process_time()
        (found,) = evaluator.run({"waveform": window.samples[None, None]}).values()
        times.append(time.process_time() - begin)
        for kept, module in zip(distances, models, strict=True):
            kept.append(float(np.abs(np.asarray(found, np.float64) - scores(module, window)).max()))
    return [*(f"{max(kept):.2g}" for kept in distances), f"{np.median(times):.3f}"]


def main() -> None:
    """Export, evaluate, print a Markdown table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("model", nargs="?", default="sinc-1bi")
    parser.add_argument("--window-s", type=float)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = with_window(load_model(given.model), given.window_s)
    geometry = model.spec.geometry
    recording = load_recording(sample_recording()[0], sample_rate_hz=geometry.sample_rate_hz)
    windows = cut_windows(recording, geometry, hop_s=geometry.window_s)
    windows += stress_windows(windows)
    print_row = "| {} | {} | {} | {} | {} |\n".format
    sys.stdout.write(f"{model.spec.name}, {geometry.window_s:g} s, {len(windows)} windows\n\n")
    names = ("recipe", "mode", "from the exported", "from PyTorch", "processor s")
    sys.stdout.write(print_row(*names))
    sys.stdout.write(print_row("---", "---", "---:", "---:", "---:"))
    len(BACKENDS)
    exporter = Exporter(model)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("fp32", "fp16"):
            recipe = RECIPES[f"{BACKEND}/{name}"]
            path = Path(folder) / exporter.export(recipe, Path(folder)).path
            exported = apply_rewrites(exporter.compressed(recipe), BACKENDS[BACKEND].rewrites)
            models = (double(exported), double(model.module))
            for mode in (Mode.EXACT, Mode.DECLARED, *([Mode.SEQUENTIAL] * (name == "fp16"))):
                some = windows[:SEQUENTIAL_WINDOWS] if mode is Mode.SEQUENTIAL else windows
                sys.stdout.write(print_row(name, mode.value, *line(path, mode, some, models)))


if __name__ == "__main__":
    main()
