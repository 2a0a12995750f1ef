"""What forms of SincNet's first block give, interleaved in one run on one thread.

    python benchmarks/sincnet_convolution.py --window-s 2 --runs 300
    python benchmarks/sincnet_convolution.py --backend executorch_xnnpack
    python benchmarks/sincnet_convolution.py --models sinc-1bi --runs 100

The first two time the block alone (filterbank, |x|, max-pooling) with a model's trained filters.
`--models` times whole models instead: each backend's rewrites without those of the convolution,
with them, and PyTorch eager. Prints medians, ratios of medians to the first line with their 95 %
interval, ratios of the fastest runs (less disturbed by other work on the machine), and the
largest distance from float64.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sincnet_forms import (
    Direct1d,
    FastFir,
    Folded,
    Form,
    Image,
    Phases,
    Product,
    ThreeConvolutions,
    ThreeFrames,
    leaky,
)
from torch import nn

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, load_model, with_window
from export.models.base import MODELS
from export.pyannote_import import sample_recording
from export.quiet import quiet_tools
from export.rewrites.base import apply_rewrites
from runtime_checks.timing.contenders import OpenArtifact, OpenEager, windows_of
from runtime_checks.timing.protocol import EAGER_BASELINE, Candidate, Run, measure
from runtime_checks.timing.statistics import ratio, statistics

ADOPTED = ("sincnet_conv2d", "polyphase_convolution")
BEFORE = ("sincnet_filterbank", "wav_norm_affine")
Floats = NDArray[np.float32]
MakeForm = Callable[[nn.Conv1d, int], Form]

FORMS: dict[str, dict[str, MakeForm]] = {
    "onnx_ort": {
        "1-D": Direct1d,
        "1-D, LeakyReLU(-1)": partial(Direct1d, rectify=leaky),
        "2-D": partial(Image, rectify=torch.abs),
        "2-D, LeakyReLU(-1) (ours)": partial(Image, rectify=leaky),
        "2-D by phases, LeakyReLU(-1)": partial(Image, rectify=leaky, by_phases=True),
        "three frames as channels": ThreeFrames,
        "three convolutions": ThreeConvolutions,
        "product, a frame a row": partial(Product, together=1),
        "product, three frames a row": partial(Product, together=3),
        "folded by symmetry": Folded,
        "fast FIR": FastFir,
    },
    "executorch_xnnpack": {
        "2-D": partial(Image, rectify=torch.abs),
        "by 10 phases, bias added after (ours)": partial(Image, rectify=torch.abs, by_phases=True),
        "ours, LeakyReLU(-1)": partial(Image, rectify=leaky, by_phases=True),
        "by 10 phases": partial(Phases, width=10),
        "by 5 phases": partial(Phases, width=5),
        "by 2 phases": partial(Phases, width=2),
        "three frames as channels": ThreeFrames,
        "three convolutions": ThreeConvolutions,
        "product, a frame a row": partial(Product, together=1),
        "product, three frames a row": partial(Product, together=3),
        "folded by symmetry": Folded,
        "fast FIR": FastFir,
    },
}


@dataclass(frozen=True)
class OpenOnnx:
    """A block as an ONNX Runtime session."""

    module: nn.Module
    window: Floats
    path: Path

    def __call__(self, threads: int) -> Run:
        """Export and load."""
        import onnx
        import onnxruntime
        import onnxslim

        if not self.path.exists():
            inputs = (torch.from_numpy(self.window),)
            with quiet_tools():
                torch.onnx.export(
                    self.module, inputs, str(self.path), dynamo=False, input_names=["waveform"]
                )
            onnx.save(onnxslim.slim(onnx.load(str(self.path))), str(self.path))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"]
        )
        return lambda window: session.run(None, {"waveform": window})[0]


@dataclass(frozen=True)
class OpenExecuTorch:
    """A block as an ExecuTorch program."""

    module: nn.Module
    window: Floats
    path: Path

    def __call__(self, threads: int) -> Run:
        """Lower and load."""
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        with quiet_tools():
            if not self.path.exists():
                exported = torch.export.export(self.module, (torch.from_numpy(self.window),))
                edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
                self.path.write_bytes(edge.to_executorch().buffer)
            if portable_lib._threadpool_get_thread_count() != threads:
                portable_lib._unsafe_reset_threadpool(threads)
            program = Runtime.get().load_program(self.path.read_bytes())
            method = program.load_method("forward")

        def run(window: Floats, _kept: Any = program) -> Floats:
            return np.array(method.execute([torch.from_numpy(window)])[0].numpy())

        return run


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=list(FORMS), default="onnx_ort")
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--models", nargs="*", help="whole models instead of the block")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    len(BACKENDS)
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.models:
            model = with_window(load_model("sinc-1bi"), arguments.window_s)
            time_forms(model, arguments.backend, Path(folder), runs=arguments.runs)
        for source in arguments.models or []:
            model = with_window(load_model(source), arguments.window_s)
            time_models(model, Path(folder), runs=arguments.runs)


def time_forms(model: LoadedModel, backend: str, folder: Path, *, runs: int) -> None:
    """The block in every form on one runtime."""
    canonical = MODELS[model.spec.architecture].canonical(model.module).double()
    frontend: Any = apply_rewrites(canonical, BEFORE).get_submodule("frontend")
    conv: nn.Conv1d = frontend.conv1d[0]
    samples = model.spec.geometry.window_samples
    # What the waveform norm gives: the block's input has mean 0 and variance 1.
    windows = [np.asarray((w - w.mean()) / w.std(), np.float32) for w in speech(model)]
    with torch.inference_mode():
        inputs = [torch.from_numpy(window).double() for window in windows]
        expected = [Direct1d(conv, samples)(x).numpy() for x in inputs]
    candidates = []
    for index, (name, make) in enumerate(FORMS[backend].items()):
        form = make(copy.deepcopy(conv), samples).eval()
        with torch.inference_mode():
            np.testing.assert_allclose(form(inputs[0]).numpy(), expected[0], rtol=0, atol=1e-10)
        form = make(copy.deepcopy(conv), samples).float().eval().requires_grad_(False)
        opener = OpenOnnx if backend == "onnx_ort" else OpenExecuTorch
        opened = opener(form, windows[0], folder / f"{backend}-{index}")
        candidates.append(Candidate(name, None, opened))
    report(f"{backend}, {samples} samples", candidates, windows, expected=expected, runs=runs)


def time_models(model: LoadedModel, folder: Path, *, runs: int) -> None:
    """Whole models: eager, and each backend without and with the convolution's rewrites."""
    architecture = MODELS[model.spec.architecture]
    canonical = architecture.canonical(model.module)
    windows = speech(model)
    with torch.inference_mode():
        exact = architecture.canonical(model.module).double()
        expected = [exact(torch.from_numpy(window).double()).numpy() for window in windows]
    candidates = [Candidate(EAGER_BASELINE, None, OpenEager(lambda: model.module))]
    for name in FORMS:
        backend, recipe = BACKENDS[name], RECIPES[f"{name}/fp32"]
        for label, left_out in (("before", ADOPTED), ("ours", ())):
            names = [rewrite for rewrite in backend.rewrites if rewrite not in left_out]
            path = folder / f"{model.spec.name}-{label}{backend.suffix}"
            with quiet_tools():
                backend.export(apply_rewrites(canonical, names), model.spec, recipe, path)
            options = backend.runtime_options()
            opened = OpenArtifact(name, path, model.spec, options)
            candidates.append(Candidate(f"{name}, {label}", None, partial(scores_of, opened)))
    report(model.spec.name, candidates, windows, expected=expected, runs=runs)


def scores_of(opened: OpenArtifact, threads: int) -> Run:
    """The one output of an artifact."""
    run = opened(threads)
    return lambda window: next(iter(run(window).values()))


def speech(model: LoadedModel) -> list[Floats]:
    """Random windows of the sample recording."""
    rate = model.spec.geometry.sample_rate_hz
    return windows_of([load_recording(sample_recording()[0], sample_rate_hz=rate)], spec=model.spec)


def report(
    title: str,
    candidates: Sequence[Candidate],
    windows: Sequence[Floats],
    *,
    expected: Sequence[NDArray[np.float64]],
    runs: int,
) -> None:
    """Measure and print one line a candidate."""
    measured = measure(candidates, windows, threads=1, hop_s=0.5, seed=0, timed_runs=runs)
    sys.stdout.write(f"{title}\n")
    for candidate, latency in zip(candidates, measured, strict=True):
        to_first = ratio(latency, measured[0])
        if to_first is None:
            sys.stdout.write(f"  {candidate.name:38} {latency.failures}\n")
            continue
        fastest = min(latency.samples_ms) / min(measured[0].samples_ms)
        run = candidate.open(1)
        outputs = [run(window) for window in windows]
        distance = [
            float(np.abs(output - exact).max())
            for output, exact in zip(outputs, expected, strict=True)
            if output is not None
        ]
        sys.stdout.write(
            f"  {candidate.name:38} {statistics(latency.samples_ms, hop_s=1).p50_ms:7.3f} ms"
            f"  {to_first.value:.3f} ({to_first.low:.3f}-{to_first.high:.3f})"
            f"  fastest {fastest:.3f}" + (f"  off by {max(distance):.1e}\n" if distance else "\n")
        )


if __name__ == "__main__":
    main()
