"""Quantisation-aware training: what is rounded in training is what the artifact computes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.audio import load_recording
from export.calibration.trained import GRIDS_FILE, ConvGrids, TrainedGrids, read_grids
from export.checkpoint import LoadedModel, load_model, save_model
from export.distil.config import DistilConfig, TrainingAudio
from export.distil.fake_quant import QuantisedStudent, qat_recipe, quantised_student
from export.distil.first_grids import found_grids
from export.distil.folder import write_student
from export.distil.record import Provenance
from export.distil.start import build_student
from export.distil.train import TrainedStudent, train
from export.errors import CheckpointError, RecipeError, TrainingError
from export.lowering.integer_convolutions import (
    IntegerConv2d,
    integer_convolutions,
    on_grid,
    place_trained,
)
from export.lowering.onnx_integers import scope
from export.lowering.static_convolutions import LARGEST, Grid
from export.models.base import MODELS
from export.pipeline import Exporter, plan
from export.pyannote_import import sample_recording

RECIPE = qat_recipe("int8-qat")
CONFIG = DistilConfig(
    student="sinc-1uni",
    start_from="sinc-1uni",
    qat="int8-qat",
    steps=4,
    batch_size=2,
    pool_windows=4,
    checkpoint_steps=1,
    learning_rate=1e-3,
    average_decay=0.5,
)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("sinc-1uni")


@pytest.fixture(scope="module")
def windows() -> Tensor:
    samples = load_recording(sample_recording()[0], sample_rate_hz=16000).samples
    return torch.from_numpy(samples[: 6 * 80000].reshape(6, 1, 80000).copy())


@pytest.fixture(scope="module")
def grids(model: LoadedModel, windows: Tensor) -> TrainedGrids:
    return found_grids(model.module, RECIPE, windows)


@pytest.fixture(scope="module")
def exporter(model: LoadedModel, grids: TrainedGrids) -> Exporter:
    return Exporter(replace(model, grids=grids))


@pytest.fixture(scope="module")
def audio() -> TrainingAudio:
    return TrainingAudio([load_recording(sample_recording()[0], sample_rate_hz=16000)])


@pytest.fixture(scope="module")
def trained(
    model: LoadedModel, audio: TrainingAudio, tmp_path_factory: pytest.TempPathFactory
) -> TrainedStudent:
    return train(model, audio, CONFIG, folder=tmp_path_factory.mktemp("qat"), start=model)


def integer_sums(conv: IntegerConv2d, x: Tensor, grid: Grid) -> Tensor:
    """What integers make of what goes into a convolution: no float in sums."""
    counted = (x.double() / grid.scale).round() + grid.zero_point
    counted = counted.clamp(0, 255).long() - grid.zero_point
    sums = nn.functional.conv2d(counted, conv.integers.long(), stride=conv.stride)
    return sums.double() * grid.scale * conv.scales.double()[:, None, None]


def test_the_first_convolution_is_a_sum_of_two_products_of_8_bit_numbers(
    exporter: Exporter, windows: Tensor
) -> None:
    module = exporter.compressed(RECIPE)
    conv = integer_convolutions(module)["frontend.conv1d.0"]
    x = module.get_submodule("frontend.wav_norm1d")(windows[:1]).unsqueeze(2)
    first, second = conv.grids
    coarse = on_grid(x, first)
    assert torch.unique(torch.round(coarse / first.scale)).numel() <= 256
    assert (x - coarse).abs().max() <= first.scale / 2 * 1.01
    assert (x - conv.rounded(x)).abs().max() <= first.scale / 254  # 16 bits in all
    assert conv.bias is not None
    expected = integer_sums(conv, x, first) + integer_sums(conv, x - coarse, second)
    with torch.no_grad():
        found = (conv(x) - conv.bias[:, None, None]).double()
    # A sample that lies between two of the finer steps.
    assert (found - expected).abs().max() < 10 * second.scale * conv.scales.max() * LARGEST


@pytest.mark.parametrize("layer", [f"frontend.conv1d.{index}" for index in range(3)])
def test_artifact_computes_what_training_rounded(
    exporter: Exporter, windows: Tensor, tmp_path: Path, layer: str
) -> None:
    artifact = exporter.export(RECIPE, tmp_path)
    graph = onnx.load(str(tmp_path / artifact.path))
    first = next(n for n in graph.graph.node if n.name == f"{scope(layer)}coarse.integers")
    last = next(n for n in graph.graph.node if n.output[0].startswith(f"{scope(layer)}Conv"))
    names = [first.input[0], last.output[0]]
    for name in names:
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    given, found = session.run(names, {"waveform": windows[2:3].numpy()})
    conv = integer_convolutions(exporter.compressed(RECIPE))[layer]
    with torch.inference_mode():
        expected = conv(torch.from_numpy(given)).numpy()
    off = np.abs(found - expected)
    step = conv.grids[-1].scale * float(conv.scales.max()) * LARGEST
    assert off.max() < 10 * step
    assert (off > 1e-2 * step + 1e-5 * np.abs(expected).max()).mean() < 3e-3  # between two steps


def test_convolutions_run_on_integers_and_are_stored_as_such(
    exporter: Exporter, tmp_path: Path
) -> None:
    artifact = exporter.export(RECIPE, tmp_path)
    operators = artifact.graph_stats.operators
    assert operators["ConvInteger"] == 6 and "Conv" not in operators
    graph = onnx.load(str(tmp_path / artifact.path)).graph
    stored = {t.name: t for t in graph.initializer}
    large = [t for t in stored.values() if np.prod(t.dims) > 2000]  # a recurrence's biases are less
    assert not [t.name for t in large if t.data_type == onnx.TensorProto.FLOAT]
    for name in [n for n in stored if n.endswith(".int8")]:  # never with a scale for each value
        scales = stored[f"{name.removesuffix('int8')}scales"]
        assert np.prod(scales.dims) * 2 <= np.prod(stored[name].dims)
    for node in graph.node:
        if node.op_type == "ConvInteger":  # the other way round there is no fast kernel
            assert stored[node.input[1]].data_type == onnx.TensorProto.UINT8
            assert stored[node.input[2]].data_type == onnx.TensorProto.INT8


def test_windows_of_free_length_have_the_same_integers(
    exporter: Exporter, windows: Tensor, tmp_path: Path
) -> None:
    free = RECIPE.model_copy(update={"options": {**RECIPE.options, "dynamic_length": True}})
    (tmp_path / "free").mkdir()
    scores = []
    for recipe, folder in ((RECIPE, tmp_path), (free, tmp_path / "free")):
        path = folder / exporter.export(recipe, folder).path
        session = onnxruntime.InferenceSession(str(path))
        scores.append(session.run(None, {"waveform": windows[:1].numpy()})[0])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
    shorter = session.run(None, {"waveform": windows[:1, :, :31_007].numpy()})[0]
    assert shorter.shape == (1, (31_007 - 721) // 270, 3)


def test_the_student_in_training_is_the_module_that_is_exported(
    model: LoadedModel, exporter: Exporter, grids: TrainedGrids, windows: Tensor
) -> None:
    student = QuantisedStudent(copy.deepcopy(model.module), RECIPE, grids, moving=0).eval()
    with torch.inference_mode():
        found, expected = student(windows), exporter.compressed(RECIPE)(windows)
        exact = model.module(windows)
    assert (found - expected).abs().mean() < 1e-3
    assert 1e-3 < (expected - exact).abs().mean() < 5e-2  # it does round, and loses little


def test_every_layer_learns_but_the_sinc_filters(model: LoadedModel, windows: Tensor) -> None:
    student = quantised_student(copy.deepcopy(model.module), RECIPE, windows, steps=4).train()
    student(windows[:2]).sum().backward()
    lacking = {n for n, p in student.net.named_parameters() if p.grad is None}
    kept = ("sincnet.wav_norm1d", "sincnet.conv1d.0")
    free = {"sincnet.conv1d.1.bias", "sincnet.conv1d.2.bias"}  # a norm takes them away
    assert {name for name in lacking if not name.startswith(kept)} == free
    gradient = student.net.get_parameter("lstm.weight_hh_l0").grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_ranges_follow_what_is_seen_and_then_stand_still(
    model: LoadedModel, windows: Tensor
) -> None:
    student = quantised_student(copy.deepcopy(model.module), RECIPE, windows, steps=4).train()
    seen = [student.grids()]
    for _ in range(5):
        with torch.no_grad():
            student(3.0 * torch.randn(2, 1, 16000, generator=torch.manual_seed(1)))
        seen.append(student.grids())
    assert seen[0] != seen[1] != seen[2] != seen[3]
    assert seen[3] == seen[4] == seen[5]  # three quarters of four steps
    assert seen[0].layers["frontend.conv1d.0"] == seen[5].layers["frontend.conv1d.0"]


def test_a_powerset_model_is_rounded_too() -> None:
    architecture = MODELS["PyanNet"]
    config = architecture.tiny_config()
    config["specifications"]["powerset_max_classes"] = 2
    torch.manual_seed(0)
    net = architecture.build(config)
    x = 0.1 * torch.randn(3, 1, 16000)
    with torch.no_grad():
        scores = quantised_student(net, RECIPE, x, steps=1).eval()(x)
    assert scores.shape[2] == 7
    torch.testing.assert_close(scores.exp().sum(2), torch.ones(scores.shape[:2]))


def test_folder_keeps_ranges_and_float_weights(
    trained: TrainedStudent, model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    write_student(
        tmp_path,
        trained,
        teacher=model,
        audio=audio,
        config=CONFIG,
        figures=(),
        provenance=Provenance(),
        start=model,
    )
    loaded = load_model(tmp_path)
    assert trained.grids is not None
    assert loaded.grids == trained.grids
    assert loaded.spec.geometry == model.spec.geometry
    before, after = model.module.state_dict(), loaded.module.state_dict()
    assert not torch.equal(before["sincnet.conv1d.1.weight"], after["sincnet.conv1d.1.weight"])
    filters = "sincnet.conv1d.0.filterbank.low_hz_"
    assert torch.equal(before[filters], after[filters])
    assert plan(loaded, backends=["onnx_ort"], recipes=["int8-qat"]).recipes[0].name == "int8-qat"
    assert "rounded in training" in (tmp_path / "MODEL_CARD.md").read_text()


def test_interrupted_training_goes_on_to_the_same_student(
    trained: TrainedStudent, model: LoadedModel, audio: TrainingAudio, tmp_path: Path
) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(TrainingError, match="interrupted"):
        train(model, audio, CONFIG, folder=tmp_path, start=model, progress=interrupt)
    again = train(model, audio, CONFIG, folder=tmp_path, start=model, resume=True)
    assert again.grids == trained.grids
    expected = trained.module.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in again.module.state_dict().items())


@given(
    st.floats(-50, 0),
    st.floats(0.001, 50),
    st.lists(st.floats(2**-20, 10, width=32), min_size=1, max_size=8),
)
@settings(max_examples=50, deadline=None)
def test_grids_survive_their_file(low: float, high: float, gains: list[float]) -> None:
    given = ConvGrids(inputs=(low, high), gains=tuple(gains), halves=2)
    written = TrainedGrids(recipe="int8-qat", layers={"frontend.conv1d.1": given})
    assert TrainedGrids.model_validate_json(written.to_json()) == written
    grid = Grid.over(given.inputs)
    edges = on_grid(torch.tensor([low, 0.0, high], dtype=torch.float64), grid)
    assert edges[1] == 0
    assert (edges - torch.tensor([low, 0.0, high])).abs().max() <= grid.scale * 0.51


Damage = Callable[[dict[str, Any]], None]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no layers": (lambda c: c.update(layers={}), "at least 1"),
    "unknown field": (lambda c: c.update(extra=1), "extra"),
    "no zero": (lambda c: _first(c).update(inputs=[1.0, 2.0]), "must hold zero"),
    "no gain": (lambda c: _first(c)["gains"].__setitem__(0, 0.0), "not positive"),
    "three halves": (lambda c: _first(c).update(halves=3), "halves"),
}


def _first(content: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = content["layers"]["frontend.conv1d.0"]
    return first


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_grids_are_named(
    model: LoadedModel, grids: TrainedGrids, tmp_path: Path, damage: str
) -> None:
    save_model(tmp_path, model.module, model.spec, source="test")
    assert read_grids(tmp_path) is None
    change, reason = DAMAGES[damage]
    content = json.loads(grids.to_json())
    change(content)
    (tmp_path / GRIDS_FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=reason) as caught:
        load_model(tmp_path)
    assert GRIDS_FILE in str(caught.value)


def test_a_model_without_ranges_is_refused_with_what_to_do(model: LoadedModel) -> None:
    with pytest.raises(RecipeError, match="distill --qat int8-qat --start-from sinc-1uni"):
        plan(model, backends=["onnx_ort"], recipes=["int8-qat"])
    with pytest.raises(RecipeError, match="was not trained for it"):
        Exporter(model).compressed(RECIPE)
    mfcc = load_model("mfcc80-1uni")
    with pytest.raises(RecipeError, match="int8-dynamic is all of it"):
        plan(mfcc, backends=["onnx_ort"], recipes=["int8-qat"])


def test_ranges_of_another_model_are_refused(exporter: Exporter, grids: TrainedGrids) -> None:
    module = exporter.compressed(RECIPE)
    with pytest.raises(RecipeError, match="that this model was trained with"):
        place_trained(module, grids)  # placed already
    first = grids.layers["frontend.conv1d.0"]
    swapped = grids.model_copy(update={"layers": dict.fromkeys(grids.layers, first)})
    with pytest.raises(RecipeError, match="for 1 channels"):
        Exporter(replace(exporter.model, grids=swapped)).compressed(RECIPE)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"qat": "int8-static"}, "no recipe that takes its ranges from training"),
        ({"precision": "bf16-mixed"}, "--precision 32-true"),
        ({"student": "mfcc80-1uni"}, "has no convolutions"),
    ],
)
def test_settings_that_cannot_be_trained_are_named(
    model: LoadedModel, changed: dict[str, str], reason: str
) -> None:
    with pytest.raises(TrainingError, match=reason):
        build_student(CONFIG.model_copy(update=changed), model)
