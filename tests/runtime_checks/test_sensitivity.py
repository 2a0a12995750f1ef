"""One layer at a time in lower precision: the emulation, what is measured, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

from export.audio import Window
from export.calibration.draw import sample_set
from export.calibration.ranges import Calibration
from export.checkpoint import LoadedModel, with_window
from export.cli.app import app
from export.compress.layers import compressible_layers
from export.errors import AudioError, ExportError, RecipeError
from export.pyannote_import import sample_recording
from runtime_checks import emulation
from runtime_checks.emulation import (
    LoweredRecurrence,
    Method,
    dynamic,
    lowered,
    scores_of,
    stored_form,
    to_int8,
)
from runtime_checks.sensitivity import Emulator, SensitivityRecord, gains, loss

FIRST = "frontend.conv1d.0"


@pytest.fixture(scope="module")
def windows(speech: NDArray[np.float32]) -> list[Window]:
    """Speech in windows of two seconds."""
    return [Window("sample", float(i), s[:32000], 32000) for i, s in enumerate(speech)]


@pytest.fixture(scope="module")
def network(zoo_canonical: nn.Module) -> nn.Module:
    return stored_form(zoo_canonical, Method.WEIGHTS)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.01, 100))
def test_a_dynamic_grid_holds_zero_and_rounds_by_half_a_step_at_most(
    seed: int, offset: float, scale: float
) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).normal(offset, scale, (3, 4, 50))).float()
    x[0, 0, 0] = 0.0
    for window, rounded in zip(x, dynamic(x), strict=True):
        steps = (window.amax().clamp(min=0) - window.amin().clamp(max=0)) / 255
        assert float((window - rounded).abs().max()) <= float(steps) * 0.51
        assert len(rounded.unique()) <= 256
    assert float(dynamic(x)[0, 0, 0]) == 0.0
    torch.testing.assert_close(dynamic(x)[1], dynamic(x[1:2])[0], rtol=0, atol=0)


def test_a_window_of_zeros_stays_zero() -> None:
    assert dynamic(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_lowered_recurrence_without_grids_is_pytorchs(
    kind: Any, bidirectional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = kind(6, 5, batch_first=True, bidirectional=bidirectional).eval()
    x = torch.randn(2, 7, 6)
    with torch.no_grad():
        rounded = LoweredRecurrence(layer)(x)[0]
        monkeypatch.setattr(emulation, "dynamic", lambda values: values)
        exact = LoweredRecurrence(layer)(x)[0]
        torch.testing.assert_close(exact, layer(x)[0], rtol=0, atol=1e-6)
    assert 1e-4 < float((rounded - exact).abs().max()) < 0.1


def test_lowering_one_layer_touches_no_other_and_not_the_network(network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = lowered(network, ["linear.0"], method=Method.WEIGHTS)
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]) == (name != "linear.0.weight")
        assert torch.equal(network.state_dict()[name], before[name])
    row = made.state_dict()["linear.0.weight"][0]
    assert len(torch.unique((row / row.abs().max() * 127).round())) <= 255
    torch.testing.assert_close(row * 127 / row.abs().max(), (row * 127 / row.abs().max()).round())


@pytest.mark.parametrize("method", list(Method))
def test_every_layer_can_be_lowered_by_every_method(
    method: Method, zoo_model: LoadedModel, zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    """The names are those of --skip; and the first convolution is what int8 hurts most."""
    spec = with_window(zoo_model, 2.0).spec
    calibration = Calibration(sample_set(spec.geometry)) if method is Method.STATIC else None
    model = stored_form(zoo_canonical, method)
    emulator = Emulator(model, spec, windows, method, calibration=calibration)
    found = emulator.losses(kept=[FIRST])
    assert {row.layer for row in found.layers} == set(compressible_layers(zoo_canonical))
    assert FIRST in {row.layer for row in found.layers[:2] if row.kept or method is Method.STATIC}
    flips = [row.loss.decision_flips for row in found.layers]
    assert flips == sorted(flips, reverse=True)
    assert all(row.loss.mean_abs > 0 for row in found.layers)
    assert found.without_kept is not None
    assert found.without_kept.mean_abs < found.together.mean_abs / 2


def test_nothing_lowered_loses_nothing(
    network: nn.Module, windows: list[Window], zoo_model: LoadedModel
) -> None:
    exact = scores_of(network, windows)
    found = loss(exact, exact, spec=zoo_model.spec, der=None)
    assert (found.max_abs, found.mean_abs, found.decision_flips) == (0, 0, 0)
    assert (found.speaker_swaps, found.delta_der) == (0, None)


def test_a_swap_of_speakers_is_told_apart_from_a_loss(
    network: nn.Module, windows: list[Window], zoo_model: LoadedModel
) -> None:
    """A rounding that exchanges two rows of the classifier, and so two speakers everywhere."""

    def swapping(name: str, weight: Tensor) -> Tensor:
        return to_int8(name, weight)[[1, 0, 2]]

    made = lowered(network, ["classifier"], method=Method.WEIGHTS, rounded=swapping)
    bias = made.get_submodule("classifier").get_parameter("bias")
    bias.data = bias.data[[1, 0, 2]]
    exact = scores_of(network, windows)
    found = loss(scores_of(made, windows), exact, spec=zoo_model.spec, der=None)
    assert found.max_abs > 0.5  # as they stand, the scores are another speaker's
    assert found.decision_flips < 0.5
    assert found.speaker_swaps >= 2


def call(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["sensitivity", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


QUICK = ("sinc-1bi", "--window-s", "2", "--hop-s", "4")


def test_a_recipe_tells_what_it_keeps_in_float_and_what_that_gains(tmp_path: Path) -> None:
    page, out = tmp_path / "page.html", tmp_path / "record.json"
    recipe = ("--recipe", "int8-dynamic", "--backend", "executorch_xnnpack")
    said = call(*QUICK, *recipe, "--html", page, "--out", out)
    record = SensitivityRecord.model_validate_json(out.read_text())
    assert record.method is Method.DYNAMIC and record.recipe == "executorch_xnnpack/int8-dynamic"
    kept = {row.layer for row in record.layers if row.kept}
    assert kept == {f"frontend.conv1d.{i}" for i in range(3)}
    assert record.recipe_loss is not None and record.recipe_loss.delta_der is not None
    assert record.recipe_loss.mean_abs < record.together.mean_abs
    assert gains(record).startswith("executorch_xnnpack/int8-dynamic keeps frontend.conv1d.0")
    assert "frontend.conv1d.0 *" in said and "as executorch_xnnpack/int8-dynamic" in said
    assert page.read_text().count("<rect") == len(record.layers) + 2


def test_palettes_are_rounded_as_the_recipe_rounds(tmp_path: Path) -> None:
    coarse, fine = (
        json.loads(call(*QUICK, "--recipe", f"palette-{bits}", "--json")) for bits in (4, 8)
    )
    assert coarse["weights"] == "palette-4" and coarse["method"] == "int8-weights"
    losses = [
        {row["layer"]: row["loss"]["mean_abs"] for row in record["layers"]}
        for record in (coarse, fine)
    ]
    assert losses[0]["recurrent.0"] > 4 * losses[1]["recurrent.0"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["nowhere"], ExportError, "no such file or zoo model"),
        (["--method", "int4"], RecipeError, r"no such method; expected one of int8-weights"),
        (["--recipe", "int8"], RecipeError, "no such recipe"),
        (["--recipe", "fp32", "-b", "onnx_ort"], RecipeError, "nothing in lower precision"),
        (["--recipe", "int8-dynamic"], RecipeError, r"a recipe of .*; expected one of them"),
        (["-b", "onnx_ort"], RecipeError, "--recipe beside it"),
        (["--calibration-audio", "x"], RecipeError, "finds its ranges as it runs"),
        (["mfcc80-1uni", "--method", "int8-static"], RecipeError, "no convolutions"),
        (["--rttm", "turns.rttm"], AudioError, "a reference without audio"),
        (["--html", "no/such/page.html"], ExportError, "folder does not exist"),
    ],
)
def test_bad_input_is_told(arguments: list[str], error: type[ExportError], message: str) -> None:
    with pytest.raises(error, match=message):
        call(*arguments)


def test_calibration_on_silence_is_refused(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "silence.wav", np.zeros(16000 * 12), 16000)
    with pytest.raises(AudioError, match="silence"):
        call("--method", "int8-static", "--calibration-audio", tmp_path / "silence.wav")


def test_a_reference_without_speech_is_refused(tmp_path: Path) -> None:
    rttm = tmp_path / "late.rttm"
    rttm.write_text("SPEAKER sample 1 500.0 1.0 <NA> <NA> alice <NA> <NA>\n")
    with pytest.raises(AudioError):
        call(*QUICK, "--audio", sample_recording()[0], "--rttm", rttm)
