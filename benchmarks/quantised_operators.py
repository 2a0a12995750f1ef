"""Where time goes when these networks are quantised, operator by operator.

    PYTHONPATH=. python benchmarks/quantised_operators.py sinc-1bi --rounds 60

First PyTorch: the model's LSTM alone, in float32 and dynamically quantised for each engine that
this build of PyTorch has, in turns on the same features; and what a window calls, by PyTorch's own
profiler. Then ONNX Runtime: milliseconds of a window by kind of node, for fp32, for its quantisers'
defaults and for our recipes (first deciles, which other work on the machine touches least).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quantised import onnx_subjects, our_subjects
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from export.audio import load_recording
from export.checkpoint import LoadedModel, load_model, with_window
from export.ort_session import profile_session
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from runtime_checks.timing.contenders import windows_of

SHOWN, PROFILED = 6, 10


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="sinc-1bi")
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = with_window(load_model(options.model), options.window_s)
    with torch.inference_mode():
        pytorch(model, rounds=options.rounds)
    onnx(model, rounds=options.rounds)


def pytorch(model: LoadedModel, *, rounds: int) -> None:
    """The LSTM in float32 and by engine: p10 of a window beside float32, and its operators."""
    lstm: Any = model.module.lstm
    features = torch.randn(1, model.spec.geometry.num_frames, lstm.input_size)
    runs: dict[str, Callable[[], Any]] = {"float32": partial(lstm, features)}
    for engine in torch.backends.quantized.supported_engines:
        runs[engine] = _quantised(lstm, engine, features)
    samples = defaultdict[str, list[float]](list)
    for index in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if index >= 3:
                samples[name].append((time.perf_counter() - start) * 1e3)
    base = float(np.percentile(samples["float32"], 10))
    steps = model.spec.geometry.num_frames
    sys.stdout.write(f"{model.spec.name}: {lstm.num_layers} layers, {steps} steps, PyTorch\n")
    for name, run in runs.items():
        p10 = float(np.percentile(samples[name], 10))
        sys.stdout.write(f"  {name:10} p10 {p10:7.2f} ms, of float32 {p10 / base:5.2f}\n")
        for line in _operators(run):
            sys.stdout.write(f"      {line}\n")


def _quantised(lstm: nn.Module, engine: str, features: Tensor) -> Callable[[], Any]:
    """The LSTM with weights packed for an engine, run by it."""
    torch.backends.quantized.engine = engine
    holder = nn.ModuleDict({"lstm": lstm}).eval()
    made = torch.ao.quantization.quantize_dynamic(holder, {nn.LSTM}, dtype=torch.qint8)["lstm"]

    def run() -> Any:
        torch.backends.quantized.engine = engine
        return made(features)

    return run


def _operators(run: Callable[[], Any]) -> list[str]:
    """How many operators a window calls, and those that take most time themselves."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(PROFILED):
            run()
    rows = sorted(profiled.key_averages(), key=lambda row: -row.self_cpu_time_total)
    whole = sum(row.self_cpu_time_total for row in rows)
    calls = sum(row.count for row in rows) // PROFILED
    return [f"{calls} calls of operators a window"] + [
        f"{row.key:28} {row.count // PROFILED:6} calls, {row.self_cpu_time_total / whole:4.0%}"
        for row in rows[:SHOWN]
    ]


def onnx(model: LoadedModel, *, rounds: int) -> None:
    """Milliseconds of a window by kind of node."""
    rate = model.spec.geometry.sample_rate_hz
    recording = load_recording(sample_recording()[0], sample_rate_hz=rate)
    name = model.spec.inputs[0].name
    windows = [{name: window} for window in windows_of([recording], spec=model.spec)]
    with tempfile.TemporaryDirectory() as folder:
        exporter = Exporter(model)
        subjects = [*onnx_subjects(exporter, Path(folder))]
        subjects += our_subjects(exporter, Path(folder), backends=["onnx_ort"])
        for subject in subjects:
            if subject.path is None:
                continue
            nodes = profile_session(
                str(subject.path), windows * max(1, rounds // len(windows)), options={}, threads=1
            )
            spent: dict[str, float] = defaultdict(float)
            for node in nodes:
                spent[node.operator] += float(np.percentile(node.ms, 10))
            largest = sorted(spent.items(), key=lambda item: -item[1])[:SHOWN]
            parts = ", ".join(f"{operator} {ms:.2f}" for operator, ms in largest)
            sys.stdout.write(f"{subject.name}: {sum(spent.values()):.2f} ms: {parts}\n")


if __name__ == "__main__":
    main()
