"""The MFCC front-end beside SincNet's on the same windows, and beside torchaudio's values.

    python benchmarks/mfcc_front_end.py --window-s 2 --runs 300

For PyTorch eager (torchaudio's transform), ONNX Runtime and ExecuTorch, on one thread and
interleaved in one run: medians and their ratios to the SincNet front-end of `sinc-1bi` on the same
runtime. Then, for each number of coefficients and kind of input, the largest difference from
torchaudio's transform in float64 relative to its largest value, of ours and of torchaudio's own,
both in float32.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sincnet_convolution import OpenExecuTorch, OpenOnnx
from torch import Tensor, nn

from export.audio import cut_windows, load_recording
from export.backends.base import BACKENDS
from export.checkpoint import load_model, with_window
from export.models.base import MODELS
from export.models.students import student_design
from export.pyannote_import import sample_recording
from export.rewrites.base import apply_rewrites
from export.rewrites.mfcc_dft import MfccDft
from runtime_checks.timing.contenders import OpenEager
from runtime_checks.timing.protocol import EAGER_BASELINE, Candidate, measure
from runtime_checks.timing.statistics import statistics

SINC = "sinc-1bi"
COEFFICIENTS = (80, 120, 150)
OPENERS: dict[str, Any] = {"onnx_ort": OpenOnnx, "executorch_xnnpack": OpenExecuTorch}
Floats = NDArray[np.float32]


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sinc = with_window(load_model(SINC), arguments.window_s)
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    cut = cut_windows(recording, sinc.spec.geometry, hop_s=arguments.window_s)
    windows = [window.samples.reshape(1, 1, -1) for window in cut]
    models = {SINC: MODELS["PyanNet"].canonical(sinc.module)}
    models |= {f"mfcc{n}": front_end_model(n) for n in COEFFICIENTS}
    with tempfile.TemporaryDirectory() as folder:
        compare_times(models, windows, Path(folder), runs=arguments.runs)
    for n in COEFFICIENTS:
        compare_values(models[f"mfcc{n}"], torch.from_numpy(np.concatenate(windows)), count=n)


def front_end_model(count: int) -> nn.Module:
    """A canonical student; its front-end has no trained weights."""
    architecture, config = student_design(f"mfcc{count}-1uni")
    entry = MODELS[architecture]
    return entry.canonical(entry.build(config))


def compare_times(
    models: dict[str, nn.Module], windows: list[Floats], folder: Path, *, runs: int
) -> None:
    """Medians and ratios of front-ends on every runtime."""
    candidates = []
    for name, model in models.items():
        frontend = model.get_submodule("frontend")
        label = EAGER_BASELINE if name == SINC else f"{name}, eager"
        candidates.append(Candidate(label, None, OpenEager(partial(_given, frontend))))
        for backend, opener in OPENERS.items():
            names = [r for r in BACKENDS[backend].rewrites if not r.startswith("recurrent")]
            block = apply_rewrites(model, names).get_submodule("frontend").requires_grad_(False)
            opened = opener(block, windows[0], folder / f"{name}-{backend}")
            candidates.append(Candidate(f"{name}, {backend}", None, opened))
    reports = measure(candidates, windows, threads=1, hop_s=0.5, seed=0, timed_runs=runs)
    for r in reports:
        if r.failures:
            sys.stdout.write(f"{r.candidate}: {r.failures}\n")
    medians = {
        r.candidate: statistics(r.samples_ms, hop_s=0.5).p50_ms for r in reports if r.samples_ms
    }
    for label, median in medians.items():
        runtime = label.split(", ")[-1] if ", " in label else label
        base = medians.get(f"{SINC}, {runtime}", medians[EAGER_BASELINE])
        sys.stdout.write(f"{label:32} {median:8.3f} ms {median / base:8.3f} of {SINC}\n")


def _given(module: nn.Module) -> nn.Module:
    return module


def compare_values(model: nn.Module, speech: Tensor, *, count: int) -> None:
    """Distances from torchaudio in float64."""
    transform: Any = model.get_submodule("frontend.mfcc")
    half = speech.clone()
    half[:, :, speech.shape[2] // 2 :] = 0
    kinds = {
        "speech": speech,
        "silence": torch.zeros_like(speech),
        "full scale": (speech * 100).clamp(-1, 1),
        "quiet (-80 dB)": speech * 1e-4,
        "offset 0.5": 0.5 + 0.5 * speech,
        "half silent": half,
    }
    for kind, x in kinds.items():
        exact = copy.deepcopy(transform).double()(x.double())
        errors = [
            ((of(x).double() - exact).abs().max() / exact.abs().max()).item()
            for of in (MfccDft(transform), transform)
        ]
        sys.stdout.write(
            f"mfcc{count:<4} {kind:15} ours {errors[0]:.1e}  torchaudio {errors[1]:.1e}\n"
        )


if __name__ == "__main__":
    main()
