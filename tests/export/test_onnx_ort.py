"""The ONNX backend on trained weights and real speech."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel
from export.compress.base import compress_for
from export.errors import BundleError
from export.models.base import MODELS
from export.pipeline import Exporter
from export.types import Artifact
from runtime_checks.runners.base import RUNNERS, Runner


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def exported(
    request: pytest.FixtureRequest, zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    len(BACKENDS)
    artifact = Exporter(zoo_model).export(RECIPES[f"onnx_ort/{request.param}"], folder)
    return artifact, folder / artifact.path


def open_runner(path: Path, model: LoadedModel) -> Runner:
    return RUNNERS["onnx_ort"].open(path, model.spec, threads=1)


def test_scores_equal_the_compressed_model(
    exported: tuple[Artifact, Path], zoo_model: LoadedModel, speech: NDArray[np.float32]
) -> None:
    artifact, path = exported
    runner = open_runner(path, zoo_model)
    compressed = compress_for(artifact.recipe, MODELS["PyanNet"].canonical(zoo_model.module))
    exact = compressed.double()
    for window in speech:
        inputs = window.reshape(1, 1, -1)
        with torch.inference_mode():
            expected = exact(torch.from_numpy(inputs).double()).numpy()
        np.testing.assert_allclose(
            runner.run({"waveform": inputs})["scores"], expected, rtol=0, atol=1e-4
        )


def test_contract_in_the_file_is_the_models(
    exported: tuple[Artifact, Path], zoo_model: LoadedModel
) -> None:
    runner = open_runner(exported[1], zoo_model)
    assert runner.inputs == zoo_model.spec.inputs
    assert runner.outputs == zoo_model.spec.outputs


def test_one_lstm_node_a_layer_and_no_shape_chains(exported: tuple[Artifact, Path]) -> None:
    operators = exported[0].graph_stats.operators
    assert operators["LSTM"] == 1
    assert not {"Shape", "Gather", "Concat", "Loop", "Scan", "Constant"} & set(operators)


def test_fp16_halves_the_weights_and_computes_in_float32(
    zoo_model: LoadedModel, tmp_path: Path
) -> None:
    exporter = Exporter(zoo_model)
    full, half = (exporter.export(RECIPES[f"onnx_ort/{n}"], tmp_path) for n in ("fp32", "fp16"))
    # The filterbank (80 x 251 values) stays in float32.
    kept = 80 * 251 * 4
    assert half.graph_stats.weight_bytes - kept < 0.53 * (full.graph_stats.weight_bytes - kept)
    graph = onnx.load(str(tmp_path / half.path)).graph
    elem_types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert elem_types == {onnx.TensorProto.FLOAT}


def test_dynamic_length_takes_any_window(
    zoo_model: LoadedModel, tmp_path: Path, speech: NDArray[np.float32]
) -> None:
    recipe = RECIPES["onnx_ort/fp32"].model_copy(update={"options": {"dynamic_length": True}})
    artifact = Exporter(zoo_model).export(recipe, tmp_path)
    assert artifact.dynamic_length
    runner = open_runner(tmp_path / artifact.path, zoo_model)
    for samples, frames in ((32_000, 115), (80_000, 293)):
        inputs = speech[0, :samples].reshape(1, 1, -1)
        scores = runner.run({"waveform": inputs})["scores"]
        assert scores.shape == (1, frames, 3)
        with torch.inference_mode():
            expected = zoo_model.module.double()(torch.from_numpy(inputs).double())
        zoo_model.module.float()
        np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-4)


def test_the_same_bytes_in_another_process(zoo_model: LoadedModel, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from export.backends.base import BACKENDS, RECIPES\n"
        "from export.checkpoint import load_model\n"
        "from export.pipeline import Exporter\n"
        "len(BACKENDS)\n"
        "artifact = Exporter(load_model('sinc-1bi')).export(\n"
        "    RECIPES['onnx_ort/fp16'], Path(sys.argv[1]))\n"
        "print(artifact.sha256)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    (tmp_path / "here").mkdir()
    here = Exporter(zoo_model).export(RECIPES["onnx_ort/fp16"], tmp_path / "here")
    assert ran.stdout.split()[-1] == here.sha256


def test_taps_follow_the_layers(
    exported: tuple[Artifact, Path], zoo_model: LoadedModel, speech: NDArray[np.float32]
) -> None:
    runner = open_runner(exported[1], zoo_model)
    inputs = {"waveform": speech[0].reshape(1, 1, -1)}
    taps = runner.taps(inputs, ["frontend.conv1d.0", "recurrent.0", "classifier", "activation"])
    assert taps is not None
    assert taps["frontend.conv1d.0"].shape == (1, 80, 1, 7975)
    assert taps["recurrent.0"].size == 293 * 256
    probabilities = 1 / (1 + np.exp(-taps["classifier"]))
    np.testing.assert_allclose(probabilities, runner.run(inputs)["scores"], atol=1e-6)


def test_a_file_that_is_not_onnx_is_refused(zoo_model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "segmentation.fp32.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(BundleError, match="ONNX Runtime cannot load it"):
        open_runner(path, zoo_model)
