"""Core ML recipes with small weights: what is stored, how large it is, and that it is the model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.backends.base import BACKENDS, RECIPES
from export.budget import check_budgets, over_budget
from export.checkpoint import LoadedModel, load_model
from export.errors import BudgetError, RecipeError
from export.lowering import coreml_small
from export.lowering.coreml_stats import NOT_FOUND
from export.models.base import MODELS
from export.pipeline import Exporter, plan
from export.types import Artifact
from runtime_checks.runners.base import RUNNERS

BACKEND = "coreml_mlprogram"
len(BACKENDS)  # recipes are registered by their backends

# Of sinc-1bi: convolutions hold 62080 values, LSTM and linear layer 225280, the classifier 384.
REST = 225280
STORED = {
    "int8-weights": {"float16": 384, "int8": 62080 + REST},
    "palette-8": {"float16": 384, "int8": 62080, "palette-8": REST},
    "palette-6": {"float16": 384, "int8": 62080, "palette-6": REST},
    "palette-4": {"float16": 384, "int8": 62080, "palette-4": REST},
    "int4-weights": {"float16": 384, "int8": 62080, "int4": REST},
    "pruned-int8": {"float16": 384, "int8": 62080, "sparse int8": REST},
}
LARGEST = {
    "int8-weights": 0.28,
    "palette-8": 0.28,
    "palette-6": 0.23,
    "palette-4": 0.18,
    "int4-weights": 0.21,
    "pruned-int8": 0.26,
}
IOS_17, IOS_18 = 8, 9


@pytest.fixture(scope="module")
def exporter(zoo_model: LoadedModel) -> Exporter:
    return Exporter(zoo_model)


@pytest.fixture(scope="module")
def full_bytes(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> int:
    fp32 = RECIPES[f"{BACKEND}/fp32"]
    return exporter.export(fp32, tmp_path_factory.mktemp("fp32")).size_bytes


def evaluated(path: Path, model: LoadedModel, window: NDArray[np.float32]) -> Any:
    runner = RUNNERS[BACKEND].open(path, model.spec, threads=1)
    return runner.run({"waveform": window[None, None]})["scores"][0]


@pytest.mark.parametrize("name", sorted(STORED))
def test_weights_are_stored_small_and_are_the_compressed_models(
    name: str,
    exporter: Exporter,
    full_bytes: int,
    speech: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    from coremltools.models.utils import load_spec

    artifact = exporter.export(RECIPES[f"{BACKEND}/{name}"], tmp_path)
    stats, path = artifact.graph_stats, tmp_path / artifact.path
    assert stats.stored == STORED[name]
    assert stats.not_smaller == {}
    assert over_budget(artifact) == {}
    assert artifact.size_bytes <= LARGEST[name] * full_bytes
    assert 0 < artifact.size_bytes - stats.weight_bytes < 25_000
    newest = name in {"palette-4", "int4-weights", "pruned-int8"}
    assert load_spec(str(path)).specificationVersion == (IOS_18 if newest else IOS_17)
    exact = copy.deepcopy(exporter.compressed(artifact.recipe)).double()
    with torch.inference_mode():
        waveform = torch.from_numpy(speech[0]).double()[None, None]
        compressed = exact(waveform)[0].numpy()
        whole = copy.deepcopy(exporter.canonical).double()(waveform)[0].numpy()
    scores = evaluated(path, exporter.model, speech[0])
    drift = np.abs(scores - compressed).max()
    assert drift < 3e-3
    assert drift < 0.1 * np.abs(scores - whole).max()


def test_a_width_that_blocks_do_not_divide_fails_the_build_by_name(
    exporter: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreml_small, "block_size", lambda width: 32)
    artifact = exporter.export(RECIPES[f"{BACKEND}/int4-weights"], tmp_path)
    left = artifact.graph_stats.not_smaller
    assert set(left.values()) == {512 * 60}  # the input weights of both directions
    assert len(left) == 2
    with pytest.raises(BudgetError, match=r"int4-weights left weights as they were") as caught:
        check_budgets([artifact])
    assert all(f"{name} (30720 values)" in str(caught.value) for name in left)
    assert "--allow not-smaller" in str(caught.value)
    check_budgets([allowing(artifact)])


def test_weights_in_a_loop_that_core_ml_decomposes_fail_the_build(tmp_path: Path) -> None:
    entry = MODELS["SincRnnNet"]
    config = entry.tiny_config()
    torch.manual_seed(0)
    module = entry.build(config)
    spec = entry.spec(module, name="gru", licence="MIT", trained_on="nothing")
    model = LoadedModel(module, spec, "gru", "0" * 64, "", "")
    recipe = RECIPES[f"{BACKEND}/int8-weights"]
    with pytest.raises(RecipeError, match="--allow while_loop builds it all the same"):
        Exporter(model).export(recipe, tmp_path)
    allowed = recipe.model_copy(update={"options": {**recipe.options, "allow": ["while_loop"]}})
    artifact = Exporter(model).export(allowed, tmp_path)
    assert artifact.graph_stats.operators["while_loop"] >= 1
    assert artifact.graph_stats.not_smaller[NOT_FOUND] > 10_000
    assert "not-smaller" in over_budget(artifact)


def test_a_loop_s_weights_count_as_weights(tmp_path: Path) -> None:
    (recipe,) = plan(
        load_model("sinc-1bi-gru"), backends=[BACKEND], recipes=["fp32"], allow=["while_loop"]
    ).recipes
    artifact = Exporter(load_model("sinc-1bi-gru")).export(recipe, tmp_path)
    assert over_budget(artifact) == {}
    assert artifact.graph_stats.weight_bytes > 0.95 * artifact.size_bytes


def allowing(artifact: Artifact) -> Artifact:
    recipe = artifact.recipe.model_copy(update={"options": {"allow": ["not-smaller"]}})
    return artifact.model_copy(update={"recipe": recipe})
