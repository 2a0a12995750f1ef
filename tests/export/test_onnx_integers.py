"""int8-dynamic and int8-static in ONNX Runtime: on trained weights, real speech, and integers."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from export.backends.base import BACKENDS, RECIPES, why_refused
from export.calibration.ranges import LayerRanges, Ranges
from export.checkpoint import LoadedModel, with_window
from export.compress.base import compress_for
from export.compress.compensated import compensated
from export.compress.int8_matrices import int8_rows
from export.compress.layers import compressible_layers
from export.errors import RecipeError
from export.lowering.calibrate_convolutions import equalise
from export.lowering.static_convolutions import Grid, place
from export.ort_session import session_options
from export.pipeline import Exporter
from export.rewrites.base import apply_rewrites
from export.types import Artifact
from runtime_checks.runners.base import RUNNERS

len(BACKENDS)  # recipes are registered by their backends
BACKEND = BACKENDS["onnx_ort"]
DYNAMIC, STATIC = RECIPES["onnx_ort/int8-dynamic"], RECIPES["onnx_ort/int8-static"]
CONVOLUTIONS = ("frontend.conv1d.1", "frontend.conv1d.2")


@pytest.fixture(scope="module")
def model(zoo_model: LoadedModel) -> LoadedModel:
    return with_window(zoo_model, 2.0)


@pytest.fixture(scope="module")
def exporter(model: LoadedModel) -> Exporter:
    return Exporter(model)


@pytest.fixture(scope="module")
def spoken(speech: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four windows of two seconds."""
    return speech[:, 16_000:48_000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("integers")


@pytest.fixture(scope="module")
def artifacts(exporter: Exporter, folder: Path) -> dict[str, Artifact]:
    names = ("fp32", "int8-dynamic", "int8-static")
    return {name: exporter.export(RECIPES[f"onnx_ort/{name}"], folder) for name in names}


@pytest.fixture(scope="module")
def lowered(exporter: Exporter) -> nn.Module:
    return apply_rewrites(exporter.canonical, BACKEND.rewrites)


def scores(path: Path, model: LoadedModel, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    runner = RUNNERS["onnx_ort"].open(path, model.spec, threads=1)
    return np.concatenate([runner.run({"waveform": w[None, None]})["scores"] for w in windows])


def as_loaded(path: Path, tmp_path: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime makes of a file, on this machine."""
    import onnxruntime as ort

    options = session_options({}, threads=1)
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(n.op_type for n in onnx.load(str(tmp_path / "loaded.onnx")).graph.node)


def test_products_and_convolutions_are_computed_on_integers(
    artifacts: dict[str, Artifact], folder: Path, tmp_path: Path
) -> None:
    dynamic = as_loaded(folder / artifacts["int8-dynamic"].path, tmp_path)
    assert (dynamic["DynamicQuantizeLSTM"], dynamic["DynamicQuantizeMatMul"]) == (1, 2)
    assert (dynamic["Conv"], dynamic["ConvInteger"]) == (3, 0)
    static = as_loaded(folder / artifacts["int8-static"].path, tmp_path)
    assert (static["DynamicQuantizeLSTM"], static["DynamicQuantizeMatMul"]) == (1, 2)
    assert (static["QLinearConv"], static["Conv"], static["ConvInteger"]) == (1, 2, 0)


def test_files_are_as_small_as_their_integers(artifacts: dict[str, Artifact]) -> None:
    whole = artifacts["fp32"].size_bytes
    assert artifacts["int8-dynamic"].size_bytes < 0.40 * whole
    assert artifacts["int8-static"].size_bytes < 0.37 * whole
    for name in ("int8-dynamic", "int8-static"):
        assert artifacts[name].size_bytes < 1.08 * artifacts[name].graph_stats.weight_bytes


@pytest.mark.parametrize("name", ["int8-dynamic", "int8-static"])
def test_speech_gives_the_same_decisions(
    name: str,
    artifacts: dict[str, Artifact],
    folder: Path,
    model: LoadedModel,
    spoken: NDArray[np.float32],
) -> None:
    exact = scores(folder / artifacts["fp32"].path, model, spoken)
    mine = scores(folder / artifacts[name].path, model, spoken)
    clear = np.abs(exact - 0.5) > 0.02
    assert ((mine > 0.5) != (exact > 0.5))[clear].mean() < 0.01
    assert np.abs(mine - exact).mean() < 0.005


def test_the_file_holds_the_integers_of_the_compressed_model(
    artifacts: dict[str, Artifact], folder: Path, exporter: Exporter
) -> None:
    graph = onnx.load(str(folder / artifacts["int8-dynamic"].path)).graph
    held = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == 3]
    compressed: Any = exporter.compressed(DYNAMIC)
    integers, _ = int8_rows(compressed.linear[0].weight)
    assert any(each.shape == (256, 128) and (each == integers.numpy().T).all() for each in held)


def test_emulation_in_torch_is_what_onnx_runtime_computes(
    exporter: Exporter, model: LoadedModel, lowered: nn.Module, tmp_path: Path
) -> None:
    given = LayerRanges(inputs=(-0.5, 18.0), outputs=(-300.0, 350.0))
    placed = place(lowered, Ranges(layers={CONVOLUTIONS[0]: given}))
    path = tmp_path / "placed.onnx"
    BACKEND.export(placed, model.spec, STATIC, path)
    window = np.random.default_rng(0).standard_normal((1, 32_000)).astype(np.float32)
    runner = RUNNERS["onnx_ort"].open(path, model.spec, threads=1)
    layer = "frontend.pool1d.1"
    taps = runner.taps({"waveform": window[None]}, [layer])
    assert taps is not None
    seen: list[torch.Tensor] = []
    hook = placed.get_submodule(layer).register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.inference_mode():
        placed(torch.from_numpy(window)[None])
    hook.remove()
    step = placed.get_submodule(CONVOLUTIONS[0]).outputs.scale  # type: ignore[union-attr]
    steps = np.abs(taps[layer] - seen[0].numpy()) / step
    # Rounding of a sum that lies between two steps may fall to either side.
    assert steps.max() < 1.5
    assert (steps > 0.5).mean() < 0.01


def test_the_given_scales_are_the_files(
    model: LoadedModel, lowered: nn.Module, tmp_path: Path
) -> None:
    scales = tuple(0.01 + 0.001 * index for index in range(60))
    given = LayerRanges(inputs=(-0.5, 18.0), outputs=(-300.0, 350.0), weight_scales=scales)
    path = tmp_path / "placed.onnx"
    BACKEND.export(
        place(lowered, Ranges(layers={CONVOLUTIONS[1]: given})), model.spec, STATIC, path
    )
    held = [numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer]
    assert any(t.shape == (60,) and np.allclose(t, scales, rtol=1e-6) for t in held)
    assert any(t.size == 1 and np.allclose(t, 18.5 / 255, rtol=1e-6) for t in held)


def test_with_nothing_left_in_float_the_first_convolution_and_its_rectifier_are_integers(
    exporter: Exporter, tmp_path: Path
) -> None:
    options = {**STATIC.options, "float_layers": []}
    artifact = exporter.export(STATIC.model_copy(update={"options": options}), tmp_path)
    loaded = as_loaded(tmp_path / artifact.path, tmp_path)
    assert (loaded["QLinearConv"], loaded["Conv"]) == (3, 0)
    assert loaded["QLinearLeakyRelu"] == 1
    assert artifact.size_bytes < 0.33 * 1_173_336


def test_equalising_changes_nothing_that_is_computed(
    lowered: nn.Module, spoken: NDArray[np.float32]
) -> None:
    changed = copy.deepcopy(lowered).double()
    rng = np.random.default_rng(0)
    widths = (10 ** rng.uniform(-1, 1, 80), 10 ** rng.uniform(0, 2, 60))
    inputs, outputs = (
        (width[:, None] * rng.standard_normal((len(width), 4000))).astype(np.float32)
        for width in widths
    )
    equal, centred = equalise(changed, CONVOLUTIONS[0], inputs, outputs)
    for values in (equal, centred):
        spread = np.percentile(np.abs(values), 99.9, axis=1)
        assert spread.max() / spread.min() < 1.7
    window = torch.from_numpy(spoken[:1, None]).double()
    with torch.inference_mode():
        before, after = lowered.double()(window), changed(window)
    lowered.float()
    assert torch.allclose(before, after, atol=1e-5, rtol=0)


def test_compensated_rounding_beats_the_nearest_on_inputs_that_go_together() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((8, 5000)).repeat(5, axis=0) + 0.1 * rng.standard_normal(
        (40, 5000)
    )
    weight = rng.standard_normal((6, 40))
    scales = np.abs(weight).max(axis=1) / 7
    nearest = np.round(weight / scales[:, None]) * scales[:, None]
    made = compensated(weight, scales, np.cov(inputs).astype(np.float64), largest=7)
    lost, least = (np.square((w - weight) @ inputs).mean() for w in (nearest, made))
    assert least < 0.4 * lost
    steps = made / scales[:, None]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert np.abs(steps).max() <= 7 + 1e-9


@pytest.mark.parametrize("span", [(0.0, 0.0), (-1.0, 0.0), (0.0, 3.0), (-2.0, 5.0)])
def test_zero_is_a_step_of_every_grid(span: tuple[float, float]) -> None:
    grid = Grid.over(span)
    assert 0 <= grid.zero_point <= 255
    assert grid.round(torch.zeros(1)).item() == 0
    ends = torch.tensor(span)
    assert torch.allclose(grid.round(ends), ends, atol=grid.scale)


def test_skipped_layers_stay_in_float(exporter: Exporter, tmp_path: Path) -> None:
    skipped = STATIC.model_copy(update={"skip": ("frontend", "recurrent")})
    artifact = exporter.export(skipped, tmp_path)
    operators = artifact.graph_stats.operators
    assert (operators["LSTM"], operators.get("DynamicQuantizeLSTM", 0)) == (1, 0)
    assert as_loaded(tmp_path / artifact.path, tmp_path)["QLinearConv"] == 0
    compressed = dict(exporter.compressed(skipped).named_parameters())
    for name, weight in exporter.canonical.named_parameters():
        rounded = name.startswith(("linear", "classifier")) and weight.ndim == 2
        assert torch.equal(weight, compressed[name]) is not rounded, name


def test_layers_have_the_names_of_the_canonical_model(zoo_canonical: nn.Module) -> None:
    assert compressible_layers(zoo_canonical) == (
        *(f"frontend.conv1d.{index}" for index in range(3)),
        "recurrent.0",
        "linear.0",
        "classifier",
    )


def test_what_cannot_be_skipped_or_placed_is_refused(
    model: LoadedModel, zoo_canonical: nn.Module, lowered: nn.Module
) -> None:
    unknown = STATIC.model_copy(update={"skip": ("recurrent.4",)})
    with pytest.raises(RecipeError, match=r"--skip recurrent\.4: the model has no such layer"):
        compress_for(unknown, zoo_canonical)
    given = LayerRanges(inputs=(0, 1), outputs=(0, 1))
    with pytest.raises(RecipeError, match=r"one of frontend\.conv1d\.0"):
        place(lowered, Ranges(layers={"linear.0": given}))
    short = given.model_copy(update={"weight_scales": (0.1,)})
    with pytest.raises(RecipeError, match="expected 60, one an output channel"):
        place(lowered, Ranges(layers={CONVOLUTIONS[0]: short}))
    mfcc = model.spec.model_copy(update={"architecture": "MfccNet"})
    assert "no convolutions" in str(why_refused(BACKEND, mfcc, STATIC))


def test_windows_of_any_length(
    exporter: Exporter, model: LoadedModel, spoken: NDArray[np.float32], tmp_path: Path
) -> None:
    free = STATIC.model_copy(update={"options": {**STATIC.options, "dynamic_length": True}})
    artifact = exporter.export(free, tmp_path)
    short = scores(tmp_path / artifact.path, model, spoken[:1, :24_000])
    assert short.shape == (1, 86, 3)
    assert artifact.graph_stats.portable == {}


def test_ranges_are_kept_by_artifact(exporter: Exporter, artifacts: dict[str, Artifact]) -> None:
    path = artifacts["int8-static"].path
    assert artifacts["int8-static"].recipe.calibration_sha256 == exporter.calibration.drawn.sha256
    assert set(exporter.ranges[path].layers) == {CONVOLUTIONS[1]}
    assert artifacts["int8-dynamic"].recipe.calibration_sha256 is None


def test_int8_weights_are_stored_small_and_computed_as_floats(
    exporter: Exporter,
    artifacts: dict[str, Artifact],
    model: LoadedModel,
    spoken: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    recipe = RECIPES["onnx_ort/int8-weights"]
    artifact = exporter.export(recipe, tmp_path)
    assert artifact.size_bytes < 0.33 * artifacts["fp32"].size_bytes
    loaded = as_loaded(tmp_path / artifact.path, tmp_path)
    assert (loaded["Conv"], loaded["LSTM"], loaded["Cast"], loaded["Mul"]) == (3, 1, 0, 0)
    mine = scores(tmp_path / artifact.path, model, spoken)
    compressed = exporter.compressed(recipe).double()
    with torch.inference_mode():
        expected = compressed(torch.from_numpy(spoken[:, None]).double()).numpy()
    compressed.float()
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-4)


def test_half_of_a_symmetric_filter_is_stored(
    artifacts: dict[str, Artifact], folder: Path, lowered: nn.Module
) -> None:
    filters = lowered.get_parameter("frontend.conv1d.0.weight").detach().numpy()
    graph = onnx.load(str(folder / artifacts["int8-dynamic"].path)).graph
    held = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    first = held["frontend.conv1d.0.weight.first"]
    signs = next(each for name, each in held.items() if name.endswith(".signs"))
    assert first.shape == (80, 1, 1, 126)
    whole = np.concatenate([first, signs * first[..., :125][..., ::-1]], axis=-1)
    np.testing.assert_array_equal(whole, filters)
