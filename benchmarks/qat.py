"""A model trained for int8 beside the float model that it is to stand in for: one table a pair.

    PYTHONPATH=. python benchmarks/qat.py pytorch_model.bin students/int8 --window-s 2 \
        --audio ami/dev --rttm ami/development.rttm --audio ami/test --rttm ami/test.rttm

Times, decisions and DER are beside PyTorch eager of the first model, not of the float weights that
the second was trained to; columns are those of benchmarks/quantisation.py. `rounded` is PyTorch
computing in float what the integers compute: what differs there is the quantisation, what the
artifact adds is the export. It is not timed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from quantisation import _audio, print_table, time
from quantised import OpenModule, Subject, our_subjects

from export.audio import find_audio, load_recording
from export.backends.base import RECIPES
from export.calibration.trained import is_trained
from export.checkpoint import LoadedModel, load_model, with_window
from export.pipeline import Exporter

TRAINED_NAME = "ONNX, int8-qat (ours)"


def main() -> None:
    """Measure, print a table."""
    options = _options()
    torch.set_num_threads(1)
    model = with_window(load_model(options.model), options.window_s)
    trained = with_window(load_model(options.trained), options.window_s)
    rate = model.spec.geometry.sample_rate_hz
    audio, recordings = [], []
    for path, rttm in zip(options.audio, options.rttm, strict=True):
        found = [load_recording(p, sample_rate_hz=rate) for p in find_audio([Path(path)])]
        audio.append(_audio(Path(path).stem, found, Path(rttm), model))
        recordings += found
    with tempfile.TemporaryDirectory() as folder:
        subjects = _subjects(model, trained, Path(folder))
        times = time(subjects, model, recordings, runs=options.runs)
        print_table(model, subjects, times, audio)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="the float model: zoo name or checkpoint")
    parser.add_argument("trained", help="the folder that distill --qat wrote")
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--audio", action="append", required=True)
    parser.add_argument("--rttm", action="append", required=True)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    if len(options.audio) != len(options.rttm):
        parser.error("as many --rttm as --audio: they belong together in their order")
    return options


def _subjects(model: LoadedModel, trained: LoadedModel, folder: Path) -> list[Subject]:
    eager = OpenModule(model.module)
    subjects = [Subject("PyTorch, fp32", 1, 1, eager.run, eager)]
    for name in ("float", "trained"):
        (folder / name).mkdir()
    made = list(our_subjects(Exporter(model), folder / "float", backends=["onnx_ort"]))
    subjects += made
    exporter = Exporter(trained)
    (recipe,) = (r for r in RECIPES.values() if is_trained(r) and r.backend == "onnx_ort")
    rounded = OpenModule(exporter.compressed(recipe))
    found = list(our_subjects(exporter, folder / "trained", backends=["onnx_ort"]))
    (artifact,) = (each for each in found if each.name == TRAINED_NAME)
    whole = made[0].float_bytes
    subjects.append(Subject("int8-qat, rounded", 0, whole, rounded.run, None))
    subjects.append(Subject(TRAINED_NAME, artifact.size_bytes, whole, artifact.run, artifact.timed))
    return subjects


if __name__ == "__main__":
    main()
