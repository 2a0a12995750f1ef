"""What a hop of a stateful artifact costs beside a window, and what caching would save instead.

    python benchmarks/streaming.py hops BUNDLE
    python benchmarks/streaming.py kept MODEL [MODEL ...]

`hops` times the artifacts of a bundle that was built with --streaming, one thread: alone (a block
of each after the other), in turns, and after other memory was written, as in an app that does
something else between two hops. On a machine that others use a long run is interrupted more often
than a short one, so the 10th percentile is shown beside the median.

`kept`: a window's norms, floor and gain are its own, so nothing behind the mel energies of a frame
is the same in the next window, and they are all that can be kept. For each model, an MFCC student
or `cnn4`, it prints how much of a window's time in ONNX Runtime they take, how much a hop's do, and
what a window would take with the others kept (10th percentiles); and for students how far the
scores then are from those of whole windows. A hop is 0.5 s in whole frames of the model: other hops
have no frame in common at all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.audio import load_recording
from export.backends.base import BACKENDS, select_recipes
from export.bundle import verify_bundle
from export.checkpoint import load_model
from export.models.speaker_cnn import LogMel
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.rewrites.base import apply_rewrites
from export.types import Role, TensorSpec
from runtime_checks.inputs import window_inputs
from runtime_checks.runners.base import RUNNERS, Runner, why_untimed

BACKEND = "onnx_ort"
HOP_S = 0.5
OTHER_VALUES = 1 << 24


class Energies(nn.Module):
    """A rewritten network up to its mel energies, and no further."""

    def __init__(self, network: Any, role: Role) -> None:
        super().__init__()
        if role is Role.EMBEDDING:
            (mel,) = (each for each in network.modules() if isinstance(each, LogMel))
            self.of, self.step = mel.fbank, 160
            self.before = self.after = 0
        else:
            front = network.frontend
            self.of, self.step = front.mfcc, front.mfcc.hop_length
            self.before, self.after = front.before, front.after

    def forward(self, waveform: Tensor) -> Tensor:
        """[1, 1, samples] -> [1, frames, bands]."""
        inner = waveform[:, :, self.before : waveform.shape[2] - self.after]
        energies: Tensor = self.of.mel_power(inner) if self.after else self.of(inner)
        return energies


def opened(module: nn.Module, samples: int, folder: Path) -> Runner:
    """The energies of so many samples as an ONNX file, opened."""
    with torch.inference_mode():
        shape = tuple(module(torch.zeros(1, 1, samples)).shape)
    narrow = load_model("mfcc80-1uni").spec.model_copy(
        update={
            "inputs": (TensorSpec(name="waveform", dtype="float32", shape=(1, 1, samples)),),
            "outputs": (TensorSpec(name="energies", dtype="float32", shape=shape),),
        }
    )
    (recipe,) = select_recipes([BACKEND], ["fp32"])
    path = folder / f"energies-{samples}.onnx"
    BACKENDS[BACKEND].export(module, narrow, recipe, path)
    return RUNNERS[BACKEND].open(path, narrow, threads=1)


def measure(name: str, *, runs: int) -> None:
    """Print the shares of one model."""
    model = load_model(name)
    spec = model.spec
    samples = load_recording(sample_recording()[0], sample_rate_hz=16000).samples
    exporter = Exporter(model)
    network = apply_rewrites(exporter.canonical, BACKENDS[BACKEND].rewrites)
    energies = Energies(network, spec.role).eval()
    step, window = energies.step, spec.geometry.window_samples
    hop = round(HOP_S * spec.geometry.sample_rate_hz) // step * step
    overlap = (spec.geometry.receptive_field_samples if energies.after else 400) - step
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        (recipe,) = select_recipes([BACKEND], ["fp32"])
        artifact = exporter.export(recipe, folder)
        runners = {
            "window": RUNNERS[BACKEND].open(folder / artifact.path, spec, threads=1),
            "all energies": opened(energies, window, folder),
            "a hop's": opened(energies, hop + overlap, folder),
        }
        given = {
            what: window_inputs(
                spec.inputs if what == "window" else runner.inputs or (),
                samples[: (hop + overlap) if what == "a hop's" else window],
            )
            for what, runner in runners.items()
        }
        times: dict[str, list[float]] = {what: [] for what in runners}
        for _ in range(runs):
            for what, runner in runners.items():
                begin = time.perf_counter()
                runner.run(given[what])
                times[what].append(time.perf_counter() - begin)
    whole, all_of, some = (float(np.percentile(times[what], 10)) for what in runners)
    print(  # noqa: T201
        f"{name}, hop {hop / 16000:.4f} s: of a window's {1000 * whole:.2f} ms its energies take "
        f"{all_of / whole:.3f}, a hop's {some / whole:.3f}; with the others kept a window takes "
        f"{1 - (all_of - some) / whole:.3f}"
    )
    if spec.role is Role.SEGMENTATION:
        off = distance(energies, network, samples, hop=hop, window=window)
        print(f"{name}: scores of kept energies are off by {off:.1e}")  # noqa: T201


def distance(
    energies: Energies, network: Any, samples: np.ndarray, *, hop: int, window: int
) -> float:
    """Largest difference of a window's scores when its first energies are of the window before."""
    audio = torch.from_numpy(samples)[None, None]
    kept = hop // energies.step
    with torch.inference_mode():
        earlier, later = (energies(audio[:, :, at : at + window]) for at in (0, hop))
        joined = torch.cat([earlier[:, kept:], later[:, -kept:]], dim=1)
        whole = network(audio[:, :, hop : hop + window])
        front = network.frontend
        coefficients = front.mfcc.cepstrum(joined, front.mfcc.largest(joined))
        x = front.norm(coefficients.transpose(1, 2)).transpose(1, 2)
        for layer in network.recurrent:
            x, _ = layer(x)
        for linear in network.linear:
            x = nn.functional.leaky_relu(linear(x))
        return float((network.activation(network.classifier(x)) - whole).abs().max())


def hops(bundle: Path, *, runs: int) -> None:
    """Print times of a hop and of a window, for every backend that is timed here."""
    content = verify_bundle(bundle).content
    samples = load_recording(sample_recording()[0], sample_rate_hz=16000).samples
    pairs: dict[tuple[str, str], dict[bool, Callable[[], object]]] = {}
    for artifact in content.artifacts:
        recipe, contract = artifact.recipe, artifact.contract(content.spec)
        if why_untimed(recipe.backend) is None:
            runner = RUNNERS[recipe.backend].open(
                bundle / artifact.path, contract, threads=1, options=artifact.runtime_options
            )
            inputs = window_inputs(contract.inputs, samples[: contract.inputs[0].shape[2]])
            pair = pairs.setdefault((recipe.backend, recipe.name), {})
            pair[artifact.stream is not None] = partial(runner.run, inputs)
    for (backend, recipe_name), pair in pairs.items():
        for how in (alone, in_turns, partial(in_turns, between=np.zeros(OTHER_VALUES, np.float32))):
            hop, window = how(pair, runs=runs)
            shown = [
                f"{name} {np.percentile(hop, at):.2f} of {np.percentile(window, at):.2f} ms: "
                f"{np.percentile(hop, at) / np.percentile(window, at):.3f}"
                for name, at in (("p10", 10), ("p50", 50))
            ]
            said = "alone" if how is alone else "in turns"
            said += ", other memory written" if isinstance(how, partial) else ""
            print(f"{backend}/{recipe_name} {said}: {', '.join(shown)}")  # noqa: T201


Times = tuple[list[float], list[float]]


def alone(pair: Mapping[bool, Callable[[], object]], *, runs: int) -> Times:
    """Milliseconds of hops and windows, ten blocks of each."""
    found: Times = ([], [])
    for _ in range(10):
        for times, stateful in zip(found, (True, False), strict=True):
            pair[stateful]()
            times += [timed(pair[stateful]) for _ in range(runs // 10)]
    return found


def in_turns(
    pair: Mapping[bool, Callable[[], object]],
    *,
    runs: int,
    between: NDArray[np.float32] | None = None,
) -> Times:
    """Milliseconds of a hop, a window, a hop, and so on."""
    found: Times = ([], [])
    for _ in range(runs):
        for times, stateful in zip(found, (True, False), strict=True):
            if between is not None:
                between += 1
            times.append(timed(pair[stateful]))
    return found


def timed(run: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    begin = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - begin)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["hops", "kept"])
    parser.add_argument("subjects", nargs="+", help="bundles, or models")
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for subject in options.subjects:
        if options.what == "hops":
            hops(Path(subject), runs=options.runs)
        else:
            measure(subject, runs=options.runs)


if __name__ == "__main__":
    main()
