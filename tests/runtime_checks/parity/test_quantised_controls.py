"""Quantisations that went wrong, each a real ONNX file of trained weights: all are flagged, and one
that only exchanges speakers is flagged as an exchange."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.bundle import hash_path, size_of
from export.calibration.draw import CalibrationSet
from export.calibration.ranges import Calibration
from export.checkpoint import LoadedModel, with_window
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import ParityReport, RungName, Verdict
from runtime_checks.check import CheckResult, check

len(BACKENDS)  # recipes are registered by their backends


def white_noise(samples: int) -> CalibrationSet:
    rng = np.random.default_rng(0)
    windows = (0.1 * rng.standard_normal((15, samples))).astype(np.float32)
    return CalibrationSet(windows, 16000, ("white noise",), ())


class Reader:
    """Windows as onnxruntime.quantization reads them."""

    def __init__(self, drawn: CalibrationSet) -> None:
        self.left = iter(drawn.windows)

    def get_next(self) -> dict[str, Any] | None:
        window = next(self.left, None)
        return None if window is None else {"waveform": window[None, None]}


def every_node_static(fp32: Path, out: Path, drawn: CalibrationSet) -> None:
    """onnxruntime's defaults, and the LSTM dynamic, which it cannot make static."""
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    reader: Any = Reader(drawn)
    quantize_static(fp32, out.with_suffix(".static"), reader)
    quantize_dynamic(out.with_suffix(".static"), out, op_types_to_quantize=["LSTM"])


def exchange_speakers(network: nn.Module) -> nn.Module:
    """The first two rows of the classifier, as a quantiser would that mixes up scales and rows."""
    changed = copy.deepcopy(network)
    for parameter in changed.get_submodule("classifier").parameters():
        parameter.data = parameter.data[[1, 0, 2]]
    return changed


@pytest.fixture(scope="module")
def result(zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> CheckResult:
    """One check of int8-static as it should be, and of three that went wrong."""
    model, folder = with_window(zoo_model, 2.0), tmp_path_factory.mktemp("controls")
    static, dynamic = RECIPES["onnx_ort/int8-static"], RECIPES["onnx_ort/int8-dynamic"]
    intact = Exporter(model)
    noisy = Exporter(model, calibration=Calibration(white_noise(32000)))
    swapping = Exporter(model)
    swapping.__dict__["canonical"] = exchange_speakers(intact.canonical)
    made = []
    for name, exporter, recipe in (
        ("intact", intact, static),
        ("calibrated-on-noise", noisy, static),
        ("speakers-exchanged", swapping, dynamic),
    ):
        artifact = exporter.export(recipe, folder)
        path = (folder / artifact.path).rename(folder / f"{name}.onnx")
        made.append((artifact.model_copy(update={"path": path.name}), path))
    fp32 = folder / intact.export(RECIPES["onnx_ort/fp32"], folder).path
    path = folder / "every-node-static.onnx"
    every_node_static(fp32, path, intact.calibration.drawn)
    changes = {"path": path.name, "sha256": hash_path(path), "size_bytes": size_of(path)}
    made.append((made[0][0].model_copy(update=changes), path))
    audio, rttm = sample_recording()
    return check(
        made,
        spec=model.spec,
        reference=model.module,
        compressed=intact.compressed,
        recordings=[load_recording(audio, sample_rate_hz=16000)],
        rttm=rttm,
    )


def against_float(result: CheckResult, name: str) -> ParityReport:
    found = [r for r in result.reports if r.artifact_path == f"{name}.onnx"]
    return next(report for report in found if report.against == "float")


def decisions(report: ParityReport) -> dict[str, float]:
    rung = next(rung for rung in report.rungs if rung.name is RungName.DECISIONS)
    return {metric.name: metric.value for metric in rung.metrics}


def test_the_recipe_as_it_should_be_keeps_its_decisions(result: CheckResult) -> None:
    report = against_float(result, "intact")
    verdicts = {rung.name: rung.verdict for rung in report.rungs}
    assert verdicts[RungName.DECISIONS] is verdicts[RungName.DER] is Verdict.PASS, report.reason
    assert decisions(report)["decision_flips"] < 0.8


@pytest.mark.parametrize("name", ["calibrated-on-noise", "every-node-static"])
def test_what_lost_decisions_is_flagged_as_a_loss(result: CheckResult, name: str) -> None:
    report = against_float(result, name)
    failed = {rung.name for rung in report.rungs if rung.verdict is Verdict.FAIL}
    assert report.verdict is Verdict.FAIL and RungName.DECISIONS in failed
    intact = decisions(against_float(result, "intact"))["decision_flips"]
    assert decisions(report)["decision_flips"] > max(0.8, 1.4 * intact)


def test_a_quantisation_that_exchanges_speakers_is_flagged_as_a_swap_and_not_as_a_loss(
    result: CheckResult,
) -> None:
    report = against_float(result, "speakers-exchanged")
    found = decisions(report)
    assert found["speaker_swaps"] >= 5 and found["flips_as_they_stand"] > 10
    assert found["decision_flips"] < 0.8
    rung = next(rung for rung in report.rungs if rung.name is RungName.DECISIONS)
    assert rung.verdict is Verdict.PASS
    assert rung.reason is not None and rung.reason.startswith("speakers swapped in ")
    assert report.der is not None and abs(report.der.delta) < 0.5
