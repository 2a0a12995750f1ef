"""How many steps of a recurrence one call of a delegate should compute, on one thread.

    python benchmarks/recurrent_scan.py --models sinc-1bi --runs 200
    python benchmarks/recurrent_scan.py --models sinc-1bi --int8 --runs 200
    python benchmarks/recurrent_scan.py --layers --runs 200

The first times whole models on windows of speech: PyTorch eager, the plain scan on portable
kernels, and delegates of 1, 2, 3 and 5 steps. The second compares those of the recipe int8-dynamic
with one step in float32. The third times single layers of every kind, 60 features to 128, over 115
steps. Prints medians, ratios to eager of medians and of first deciles
(less disturbed by other work on the machine), what lowering took, and the largest distance from
float64.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, load_model, with_window
from export.compress.base import compress_for
from export.lowering.scan_delegate import delegate_recurrence
from export.models.base import MODELS
from export.pyannote_import import sample_recording
from export.quiet import quiet_tools
from export.rewrites.base import apply_rewrites
from export.rewrites.recurrent_scan import RecurrentScan
from runtime_checks.timing.contenders import OpenArtifact, OpenEager, windows_of
from runtime_checks.timing.protocol import EAGER_BASELINE, Candidate, Run, measure

BACKEND = "executorch_xnnpack"
STEPS = (1, 2, 3, 5)
TIME, FEATURES, HIDDEN = 115, 60, 128
Floats = NDArray[np.float32]


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=[], help="zoo names or checkpoints")
    parser.add_argument("--int8", action="store_true", help="the models in int8-dynamic")
    parser.add_argument("--layers", action="store_true", help="single layers of every kind")
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    len(BACKENDS)
    with tempfile.TemporaryDirectory() as folder:
        for source in arguments.models:
            model = with_window(load_model(source), arguments.window_s)
            time_model(model, Path(folder), int8=arguments.int8, runs=arguments.runs)
    for kind in (nn.LSTM, nn.GRU, nn.RNN) if arguments.layers else ():
        for bidirectional in (False, True):
            time_layer(kind, bidirectional=bidirectional, runs=arguments.runs)


def time_model(model: LoadedModel, folder: Path, *, int8: bool, runs: int) -> None:
    """Eager, the plain scan or one step in float32, and delegates of several steps."""
    canonical = MODELS[model.spec.architecture].canonical(model.module)
    recording = load_recording(
        sample_recording()[0], sample_rate_hz=model.spec.geometry.sample_rate_hz
    )
    windows = windows_of([recording], spec=model.spec)
    with torch.inference_mode():
        exact = copy.deepcopy(canonical).double()
        expected = [exact(torch.from_numpy(window).double()).numpy() for window in windows]
    candidates = [Candidate(EAGER_BASELINE, None, OpenEager(lambda: model.module))]
    backend = BACKENDS[BACKEND]
    fp32, chosen = (RECIPES[f"{BACKEND}/{n}"] for n in ("fp32", "int8-dynamic" if int8 else "fp32"))
    plain = fp32.model_copy(update={"options": {"recurrence": "scan"}})
    for label, steps, recipe in (
        ("float32, 1 a call", 1, fp32) if int8 else ("plain scan", 1, plain),
        *((f"{'int8' if int8 else 'delegated'}, {k} a call", k, chosen) for k in STEPS),
    ):
        compressed = compress_for(recipe, canonical)
        module = with_steps(apply_rewrites(compressed, backend.rewrites), steps)
        path = folder / f"{model.spec.name}-{label}.pte"
        start = time.process_time()
        stats = backend.export(module, model.spec, recipe, path)
        sys.stdout.write(
            f"  {label}: lowered in {time.process_time() - start:.1f} s of processor time, "
            f"{path.stat().st_size} bytes, {path.stat().st_size / stats.weight_bytes:.4f} of its "
            "weights\n"
        )
        opened = OpenArtifact(BACKEND, path, model.spec, backend.runtime_options())
        candidates.append(Candidate(label, None, partial(only_output, opened)))
    report(
        f"{model.spec.name}, {model.spec.geometry.window_s} s", candidates, windows, expected, runs
    )


def time_layer(kind: type[nn.RNNBase], *, bidirectional: bool, runs: int) -> None:
    """One layer: torch's own and delegates of several steps."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"batch_first": True, "bidirectional": bidirectional}
    layer: nn.RNNBase = kind(FEATURES, HIDDEN, **options)  # type: ignore[arg-type]
    layer = layer.eval().requires_grad_(False)
    inputs = [torch.randn(1, TIME, FEATURES) for _ in range(8)]
    expected = [copy.deepcopy(layer).double()(x.double())[0].numpy() for x in inputs]
    candidates = [Candidate(EAGER_BASELINE, None, lambda _: lambda x: _first(layer, x))]
    for steps in STEPS:
        module = with_steps(apply_rewrites(nn.Sequential(layer), ["recurrent_scan"]), steps)
        opened = OpenLayer(FirstOutput(module[0]), inputs[0])
        candidates.append(Candidate(f"delegated, {steps} a call", None, opened))
    name = f"{kind.__name__}, {'both directions' if bidirectional else 'one direction'}"
    report(name, candidates, [x.numpy() for x in inputs], expected, runs)


def with_steps(module: nn.Module, steps: int) -> Any:
    """The module, its scans computing so many steps in a turn."""
    for child in module.modules():
        if isinstance(child, RecurrentScan):
            child.steps = steps
    return module.requires_grad_(False)


class FirstOutput(nn.Module):
    """A recurrent layer without its final state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's outputs."""
        outputs: Tensor = self.layer(x)[0]
        return outputs


@dataclass(frozen=True)
class OpenLayer:
    """A layer as an ExecuTorch program."""

    module: nn.Module
    example: Tensor

    def __call__(self, threads: int) -> Run:
        """Lower and load."""
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        module = copy.deepcopy(self.module)
        with quiet_tools(), torch.no_grad():
            delegate_recurrence(module, batch=1)
            exported = torch.export.export(module, (self.example,))
            edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            if portable_lib._threadpool_get_thread_count() != threads:
                portable_lib._unsafe_reset_threadpool(threads)
            program = Runtime.get().load_program(edge.to_executorch().buffer)
            method = program.load_method("forward")

        def run(x: Floats, _kept: Any = program) -> Floats:
            return np.array(method.execute([torch.from_numpy(x)])[0].numpy())

        return run


def _first(layer: nn.RNNBase, x: Floats) -> Floats:
    with torch.inference_mode():
        outputs: Floats = layer(torch.from_numpy(x))[0].numpy()
    return outputs


def only_output(opened: OpenArtifact, threads: int) -> Run:
    """The one output of an artifact."""
    run = opened(threads)
    return lambda window: next(iter(run(window).values()))


def report(
    title: str,
    candidates: Sequence[Candidate],
    windows: Sequence[Floats],
    expected: Sequence[NDArray[np.float64]],
    runs: int,
) -> None:
    """Measure and print one line a candidate."""
    measured = measure(candidates, windows, threads=1, hop_s=0.5, seed=0, timed_runs=runs)
    baseline = np.percentile(measured[0].samples_ms, [50, 10])
    sys.stdout.write(f"{title}\n")
    for candidate, latency in zip(candidates, measured, strict=True):
        if not latency.samples_ms:
            sys.stdout.write(f"  {candidate.name:24} {latency.failures}\n")
            continue
        middle, low = np.percentile(latency.samples_ms, [50, 10])
        run = candidate.open(1)
        outputs = [run(window) for window in windows]
        distance = [
            float(np.abs(output - exact).max())
            for output, exact in zip(outputs, expected, strict=True)
            if output is not None
        ]
        sys.stdout.write(
            f"  {candidate.name:24} {middle:7.3f} ms  p50 {middle / baseline[0]:.3f}"
            f"  p10 {low / baseline[1]:.3f}"
            + (f"  off by {max(distance):.1e}\n" if distance else "\n")
        )


if __name__ == "__main__":
    main()
