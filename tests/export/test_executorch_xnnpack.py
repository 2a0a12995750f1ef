"""The ExecuTorch backend on trained weights and real speech."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, with_window
from export.errors import RecipeError
from export.models.base import MODELS
from export.models.pyannet import student_config
from export.pipeline import Exporter, plan
from export.types import Artifact, Recipe
from runtime_checks.runners.base import RUNNERS

len(BACKENDS)  # recipes are registered by their backends
FP32 = RECIPES["executorch_xnnpack/fp32"]
Exported = tuple[Artifact, Path]

# Neither computes anything on values: they fill, number and copy.
HOUSEKEEPING = {"aten::arange.start_out", "aten::full.out", "aten::index_select.out"}
# What a scan is emitted as: slices in, copies out, a counter and a jump.
LOOP = {
    "JumpFalseCall",
    "aten::copy_",
    "aten::select_copy.int_out",
    "aten::sym_size.int",
    "executorch_prim::add.Scalar",
    "executorch_prim::eq.Scalar",
    "executorch_prim::et_copy_index.tensor",
    "executorch_prim::sub.Scalar",
}


def student(
    name: str, *, window_s: float, powerset: int | None = None, hidden: int = 16
) -> LoadedModel:
    """A student with random weights."""
    torch.manual_seed(0)
    config: dict[str, Any] = student_config(name, window_s=window_s)
    config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = hidden
    config["specifications"]["powerset_max_classes"] = powerset
    entry = MODELS["PyanNet"]
    module = entry.build(config)
    for parameter in module.lstm.parameters():  # type: ignore[union-attr]
        nn.init.normal_(parameter, std=0.3)
    spec = entry.spec(module, name=name, licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, name, "0" * 64, "", "")


def export(model: LoadedModel, folder: Path, recipe: Recipe = FP32) -> Exported:
    artifact = Exporter(model).export(recipe, folder)
    return artifact, folder / artifact.path


def largest_difference(
    model: LoadedModel, path: Path, windows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Per window, the largest score difference from the model in float64."""
    runner = RUNNERS["executorch_xnnpack"].open(path, model.spec, threads=1)
    exact = Exporter(model).canonical.double()
    differences = []
    for window in windows:
        inputs = window[: model.spec.geometry.window_samples].reshape(1, 1, -1)
        with torch.inference_mode():
            expected = exact(torch.from_numpy(inputs).double()).numpy()
        scores = runner.run({"waveform": inputs})["scores"]
        differences.append(np.abs(scores - expected).max())
    return np.array(differences)


@pytest.fixture(scope="module")
def exported(zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(zoo_model, tmp_path_factory.mktemp("executorch"))


def test_scores_equal_the_models(
    exported: Exported, zoo_model: LoadedModel, speech: NDArray[np.float32]
) -> None:
    assert largest_difference(zoo_model, exported[1], speech).max() < 5e-5


def plain_scan(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"options": {"recurrence": "scan"}})


def test_everything_is_delegated_the_loops_body_too(exported: Exported) -> None:
    stats = exported[0].graph_stats
    assert set(stats.operators) == HOUSEKEEPING | LOOP | {"XnnpackBackend"}
    assert stats.operators["JumpFalseCall"] == 1
    # Before the loop, in it, after it.
    assert stats.operators["XnnpackBackend"] == stats.delegates == 3


def test_a_plain_scan_computes_the_same_on_other_kernels(
    exported: Exported, zoo_model: LoadedModel, tmp_path: Path, speech: NDArray[np.float32]
) -> None:
    artifact, path = export(zoo_model, tmp_path, plain_scan(FP32))
    outside = set(artifact.graph_stats.operators) - HOUSEKEEPING - LOOP - {"XnnpackBackend"}
    assert {"aten::bmm.out", "aten::sigmoid.out", "aten::tanh.out"} < outside
    assert artifact.graph_stats.delegates == 2
    assert largest_difference(zoo_model, path, speech).max() < 5e-5
    runners = RUNNERS["executorch_xnnpack"]
    plain, delegated = (runners.open(p, zoo_model.spec, threads=1) for p in (path, exported[1]))
    inputs = {"waveform": speech[0].reshape(1, 1, -1)}
    difference = np.abs(plain.run(inputs)["scores"] - delegated.run(inputs)["scores"])
    assert difference.max() < 5e-6


def test_other_kinds_of_recurrence_are_refused(zoo_model: LoadedModel) -> None:
    recipe = FP32.model_copy(update={"options": {"recurrence": "unrolled"}})
    reason = BACKENDS["executorch_xnnpack"].refuses(zoo_model.spec, recipe)
    assert reason is not None and "'unrolled', not one of delegated, scan" in reason


def test_the_file_is_hardly_larger_than_its_weights(exported: Exported) -> None:
    artifact = exported[0]
    assert artifact.size_bytes < 1.08 * artifact.graph_stats.weight_bytes


def test_the_program_does_not_grow_with_the_window(
    exported: Exported,
    zoo_model: LoadedModel,
    tmp_path: Path,
    speech: NDArray[np.float32],
) -> None:
    shorter = with_window(zoo_model, 1.0)
    artifact, path = export(shorter, tmp_path)
    assert artifact.graph_stats == exported[0].graph_stats
    assert abs(artifact.size_bytes - exported[0].size_bytes) < 1000
    assert largest_difference(shorter, path, speech).max() < 5e-5


@pytest.mark.parametrize(
    ("name", "powerset", "window_s"),
    [("sinc-2uni-2lin", 2, 1.0), ("sinc-2bi-0lin", None, 10.0)],
)
def test_every_shape_of_model(
    name: str,
    powerset: int | None,
    window_s: float,
    tmp_path: Path,
    speech: NDArray[np.float32],
) -> None:
    model = student(name, powerset=powerset, window_s=window_s)
    artifact, path = export(model, tmp_path)
    assert artifact.graph_stats.operators["JumpFalseCall"] == int(name[5])
    windows = speech.reshape(2, -1)
    assert largest_difference(model, path, windows).max() < 1e-4


def test_the_same_bytes_in_another_process(exported: Exported, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from export.backends.base import BACKENDS, RECIPES\n"
        "from export.checkpoint import load_model\n"
        "from export.pipeline import Exporter\n"
        "len(BACKENDS)\n"
        "artifact = Exporter(load_model('sinc-1bi')).export(\n"
        "    RECIPES['executorch_xnnpack/fp32'], Path(sys.argv[1]))\n"
        "print(artifact.sha256)"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:export", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert ran.stdout.split() == [exported[0].sha256]
    assert ran.stderr == ""


def test_logging_is_as_it_was(exported: Exported) -> None:
    assert logging.root.manager.disable == logging.NOTSET


def test_windows_of_free_length_are_refused(zoo_model: LoadedModel) -> None:
    with pytest.raises(RecipeError, match="one length"):
        plan(zoo_model, backends=["executorch_xnnpack"], recipes=["fp32"], dynamic_length=True)


def test_a_recurrence_that_would_be_unrolled_is_refused(
    zoo_model: LoadedModel, tmp_path: Path
) -> None:
    module = nn.Sequential(nn.LSTM(4, 4, num_layers=2))
    with pytest.raises(RecipeError, match="layer 0 is a LSTM"):
        BACKENDS["executorch_xnnpack"].export(module, zoo_model.spec, FP32, tmp_path / "x.pte")
