"""How quantisation of these networks fails elsewhere, beside our recipes: one table a model.

    PYTHONPATH=. python benchmarks/quantisation.py sinc-1bi pytorch_model.bin --window-s 2 \
        --calibration-audio ami/train --audio ami/dev --rttm ami/development.rttm \
        --audio ami/test --rttm ami/test.rttm --trained students/int8-1bi --trained students/int8-4

Every line is measured on the same windows; times are taken in turns in one run, on one thread, and
given beside PyTorch eager's: medians of the clock's time, and of the processor's, which other work
on the machine touches less. A decision flips when it differs from PyTorch's in the best order of
speakers, with no dead band. Audio and references come in pairs, each with its own columns; ranges
come from the calibration audio, which should be none of them.

- `PyTorch, dynamic int8`: torch.ao.quantization.quantize_dynamic of linear layers, LSTMs, or both.
- `quantize_dynamic`: onnxruntime.quantization with nothing but its defaults, of our fp32 file.
- `quantize_static`: the same, every operator that it knows, and LSTMs dynamic.
- `int8-qat`: of the folders that `distill --qat` wrote (`--trained`, one a model in their order),
  beside the float model that training started from, not their own float weights. `rounded` is
  PyTorch that rounds as these integers do: what the artifacts add to it is the export.
- all others: `diarport build --recipe ...`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from time import process_time_ns

import numpy as np
import torch
from quantised import (
    NAMES,
    Scores,
    Subject,
    onnx_subjects,
    our_subjects,
    pytorch_subjects,
    trained_subjects,
)

from export.audio import Recording, Window, cut_windows, find_audio, load_recording
from export.calibration.draw import draw, sample_set
from export.calibration.ranges import Calibration
from export.checkpoint import LoadedModel, load_model, with_window
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import LatencyReport
from runtime_checks.der import DerScorer
from runtime_checks.parity.decisions import decide
from runtime_checks.rttm import load_reference
from runtime_checks.sensitivity import Loss, loss
from runtime_checks.timing.contenders import candidate, windows_of
from runtime_checks.timing.protocol import EAGER_BASELINE, Run, measure
from runtime_checks.timing.statistics import ratio, statistics


@dataclass
class Clocked:
    """Opens a candidate whose runs note their processor time too, in milliseconds."""

    open: Callable[[int], Run]
    spent_ms: list[float] = field(default_factory=list)

    def __call__(self, threads: int) -> Run:
        """For a number of threads."""
        opened = self.open(threads)

        def run(window: Scores) -> None:
            start = process_time_ns()
            opened(window)
            self.spent_ms.append((process_time_ns() - start) / 1e6)

        return run


@dataclass(frozen=True)
class Timed:
    """What was measured of one subject."""

    report: LatencyReport
    processor_ms: float


@dataclass(frozen=True)
class Audio:
    """Recordings with their windows and the scorer of their reference."""

    name: str
    windows: Sequence[Window]
    scorer: DerScorer


def main() -> None:
    """Measure, print a table for each model."""
    options = _options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PyTorch's notices that its quantisation will move
    for source, trained in zip_longest(options.models, options.trained):
        model = with_window(load_model(source), options.window_s)
        rate = model.spec.geometry.sample_rate_hz
        pairs = list(zip(options.audio, options.rttm, strict=True)) or [sample_recording()]
        audio, recordings = [], []
        for path, rttm in pairs:
            found = [load_recording(p, sample_rate_hz=rate) for p in find_audio([Path(path)])]
            audio.append(_audio(Path(path).stem, found, Path(rttm), model))
            recordings += found
        with tempfile.TemporaryDirectory() as folder:
            subjects = [*pytorch_subjects(model)]
            exporter = Exporter(model, calibration=_calibration(options, model))
            subjects += onnx_subjects(exporter, Path(folder))
            subjects += our_subjects(exporter, Path(folder))
            if trained is not None:
                whole = {backend: _floats(subjects, name) for backend, name in NAMES.items()}
                found_model = with_window(load_model(trained), options.window_s)
                subjects += trained_subjects(found_model, whole, Path(folder))
            times = time(subjects, model, recordings, runs=options.runs)
            print_table(model, subjects, times, audio)


def _floats(subjects: Sequence[Subject], name: str) -> int:
    """Bytes of a backend's fp32 file."""
    return next(each.size_bytes for each in subjects if each.name == f"{name}, fp32 (ours)")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="zoo names or checkpoints")
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--audio", action="append", default=[], help="with its --rttm, in order")
    parser.add_argument("--rttm", action="append", default=[])
    parser.add_argument("--calibration-audio", action="append", default=[])
    parser.add_argument("--trained", action="append", default=[], help="a folder a model")
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    if len(options.audio) != len(options.rttm):
        parser.error("as many --rttm as --audio: they belong together in their order")
    return options


def _audio(name: str, recordings: list[Recording], rttm: Path, model: LoadedModel) -> Audio:
    geometry = model.spec.geometry
    hop_s = geometry.window_s / 2
    windows = [w for each in recordings for w in cut_windows(each, geometry, hop_s=hop_s)]
    speech = load_reference(rttm, uem=None, recordings=recordings)
    return Audio(name, windows, DerScorer(speech, windows, geometry=geometry))


def _calibration(options: argparse.Namespace, model: LoadedModel) -> Calibration:
    geometry = model.spec.geometry
    paths = find_audio([Path(path) for path in options.calibration_audio])
    if not paths:
        return Calibration(sample_set(geometry))
    given = [load_recording(path, sample_rate_hz=geometry.sample_rate_hz) for path in paths]
    return Calibration(draw(given, geometry))


def time(
    subjects: Sequence[Subject],
    model: LoadedModel,
    recordings: Sequence[Recording],
    *,
    runs: int,
) -> Mapping[str, Timed]:
    """All that can be timed here, in turns; PyTorch eager first."""
    timed = [subject for subject in subjects if subject.timed]
    names = [EAGER_BASELINE, *(subject.name for subject in timed[1:])]
    clocks = [Clocked(subject.timed) for subject in timed if subject.timed]
    candidates = [
        candidate(name, clock, spec=model.spec) for name, clock in zip(names, clocks, strict=True)
    ]
    windows = windows_of(recordings, spec=model.spec)
    reports = measure(candidates, windows, threads=1, hop_s=0.5, seed=0, timed_runs=runs)
    return {
        subject.name: Timed(report, float(np.median(clock.spent_ms[-runs:])))
        for subject, report, clock in zip(timed, reports, clocks, strict=True)
    }


def print_table(
    model: LoadedModel,
    subjects: Sequence[Subject],
    times: Mapping[str, Timed],
    audio: Sequence[Audio],
) -> None:
    """Markdown, a line a subject."""
    eager = times[subjects[0].name]
    p50_ms = statistics(eager.report.samples_ms, hop_s=0.5).p50_ms
    exact = {each.name: _scores(subjects[0], each) for each in audio}
    titles = [f"{each.name}: flips | DER | delta DER" for each in audio]
    lines = [
        f"{model.spec.name}, windows of {model.spec.geometry.window_s:g} s, one thread, "
        f"{eager.report.device}; PyTorch eager {p50_ms:.2f} ms, of the processor "
        f"{eager.processor_ms:.2f}, {len(eager.report.samples_ms)} runs",
        f"| | MB | of fp32 | p50 of PyTorch's | of processor time | {' | '.join(titles)} |",
        "|" + "---|" * (5 + 3 * len(audio)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    for subject in subjects:
        cells = [subject.name, f"{subject.size_bytes / 1e6:.2f}"]
        cells += [f"{subject.size_bytes / subject.float_bytes:.3f}", *_time(subject, times, eager)]
        for each in audio:
            scores = _scores(subject, each)
            found = loss(scores, exact[each.name], spec=model.spec, der=each.scorer)
            cells += _lost(found, each, exact[each.name], model)
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()
    sys.stdout.write("\n")


def _scores(subject: Subject, audio: Audio) -> list[Scores]:
    return [subject.run(window.samples[None, None]) for window in audio.windows]


def _time(subject: Subject, times: Mapping[str, Timed], eager: Timed) -> tuple[str, str]:
    """Ratio of medians with its interval, and that of the processor's time."""
    timed = times.get(subject.name)
    share = ratio(timed.report, eager.report) if timed else None
    if timed is None or share is None:
        return "not timed", ""
    interval = f"{share.value:.2f} ({share.low:.2f}-{share.high:.2f})"
    return interval, f"{timed.processor_ms / eager.processor_ms:.2f}"


def _lost(found: Loss, audio: Audio, exact: Sequence[Scores], model: LoadedModel) -> list[str]:
    reference = audio.scorer.score([decide(each, model.spec) for each in exact])
    flips = f"{found.decision_flips:.2f} %"
    if found.speaker_swaps:
        flips += f" ({found.speaker_swaps} windows swapped)"
    if reference is None or found.delta_der is None:
        return [flips, "", ""]
    delta, interval = f"{found.delta_der:+.2f}", found.delta_der_interval
    if interval:
        delta += f" ({interval.low:+.2f} to {interval.high:+.2f})"
    return [flips, f"{reference.pooled + found.delta_der:.2f} %", delta]


if __name__ == "__main__":
    main()
