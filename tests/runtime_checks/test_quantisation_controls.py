"""Quantisation that goes wrong in the ways it does elsewhere: the ladder says so each time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.audio import Recording, cut_windows, load_recording
from export.backends.base import BACKENDS, RECIPES
from export.bundle import hash_path
from export.calibration.draw import draw
from export.calibration.ranges import Calibration
from export.checkpoint import LoadedModel, with_window
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import Artifact, ParityReport, RungName, Verdict
from runtime_checks.check import CheckResult, check

len(BACKENDS)  # recipes are registered by their backends
STATIC, DYNAMIC = RECIPES["onnx_ort/int8-static"], RECIPES["onnx_ort/int8-dynamic"]


@pytest.fixture(scope="module")
def model(zoo_model: LoadedModel) -> LoadedModel:
    return with_window(zoo_model, 2.0)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return load_recording(sample_recording()[0], sample_rate_hz=16000)


def ladder(
    artifact: Artifact, folder: Path, model: LoadedModel, recording: Recording
) -> CheckResult:
    return check(
        [(artifact, folder / artifact.path)],
        spec=model.spec,
        reference=model.module,
        compressed=Exporter(model).compressed,
        recordings=[recording],
        rttm=sample_recording()[1],
        hop_s=2.0,
    )


def found(report: ParityReport) -> dict[str, float]:
    return {metric.name: metric.value for rung in report.rungs for metric in rung.metrics}


def failed(report: ParityReport) -> set[RungName]:
    return {rung.name for rung in report.rungs if rung.verdict is Verdict.FAIL}


@pytest.mark.parametrize("recipe", [DYNAMIC, STATIC], ids=lambda recipe: recipe.name)
def test_what_is_calibrated_on_speech_passes(
    recipe: Any, model: LoadedModel, recording: Recording, tmp_path: Path
) -> None:
    result = ladder(Exporter(model).export(recipe, tmp_path), tmp_path, model, recording)
    assert result.verdict is Verdict.PASS


def test_calibration_on_white_noise_is_flagged(
    model: LoadedModel, recording: Recording, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).standard_normal(20 * 16000).astype(np.float32)
    given = Recording("noise", Path("noise.wav"), 0.1 * noise, 16000, ())
    calibration = Calibration(draw([given], model.spec.geometry))
    options = {**STATIC.options, "float_layers": []}
    everything = STATIC.model_copy(update={"options": options})
    artifact = Exporter(model, calibration=calibration).export(everything, tmp_path)
    result = ladder(artifact, tmp_path, model, recording)
    assert result.verdict is Verdict.FAIL
    for report in result.reports:
        assert RungName.DECISIONS in failed(report)
        assert found(report)["decision_flips"] > 3


class Windows:
    """What onnxruntime.quantization reads: one window after the other."""

    def __init__(self, windows: NDArray[np.float32]) -> None:
        self._left: Iterator[NDArray[np.float32]] = iter(windows)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        window = next(self._left, None)
        return None if window is None else {"waveform": window[None, None]}


def test_every_node_static_is_flagged(
    model: LoadedModel, recording: Recording, tmp_path: Path
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    CalibrationDataReader.register(Windows)
    fp32 = Exporter(model).export(RECIPES["onnx_ort/fp32"], tmp_path)
    windows = [w.samples for w in cut_windows(recording, model.spec.geometry, hop_s=2.0)]
    path = tmp_path / "segmentation.naive.onnx"
    quantize_static(str(tmp_path / fp32.path), str(path), Windows(np.stack(windows)))
    changes = {"path": path.name, "sha256": hash_path(path), "recipe": STATIC}
    result = ladder(fp32.model_copy(update=changes), tmp_path, model, recording)
    assert result.verdict is Verdict.FAIL
    assert all(failed(report) for report in result.reports)


def test_swapped_speakers_are_flagged_as_a_swap(
    model: LoadedModel, recording: Recording, tmp_path: Path
) -> None:
    swapped = copy.deepcopy(model.module)
    classifier: nn.Linear = swapped.get_submodule("classifier")  # type: ignore[assignment]
    order = torch.tensor([1, 0, 2])
    with torch.no_grad():
        classifier.weight.copy_(classifier.weight[order])
        classifier.bias.copy_(classifier.bias[order])
    other = LoadedModel(swapped, model.spec, "swapped", "0" * 64, "", "")
    artifact = Exporter(other).export(DYNAMIC, tmp_path)
    result = ladder(artifact, tmp_path, model, recording)
    for report in result.reports:
        metrics = found(report)
        assert metrics["speaker_swaps"] > 5
        assert metrics["flips_as_they_stand"] > 10
        assert metrics["decision_flips"] < 0.3
