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
from export.lowering.coreml_stats import HALF, WIDE
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
COUNTED = ("conv", "lstm", "linear", "cast", "instance_norm")


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


@pytest.mark.parametrize("name", ["fp16", "int8-weights", "palette-6"])
def test_recipes_that_compute_in_float16_refuse_loops(name: str, tmp_path: Path) -> None:
    recipe, gru = RECIPES[f"{BACKEND}/{name}"], load_model("sinc-1bi-gru")
    with pytest.raises(RecipeError, match="--allow while_loop builds it all the same"):
        Exporter(gru).export(recipe, tmp_path)
    allowed = recipe.model_copy(update={"options": {**recipe.options, "allow": ["while_loop"]}})
    with pytest.raises(RecipeError, match=f"{name} computes in float16.*fp32 is the recipe"):
        Exporter(gru).export(allowed, tmp_path)
    assert not list(tmp_path.iterdir())


def test_transforms_of_mfccs_are_stored_small_and_stay_what_they_are(
    tmp_path: Path, speech: NDArray[np.float32]
) -> None:
    exporter, sizes, runs = Exporter(load_model("mfcc80-1uni")), {}, {}
    for name in ("fp32", "fp16", "int8-weights"):
        artifact = exporter.export(RECIPES[f"{BACKEND}/{name}"], tmp_path)
        assert artifact.graph_stats.not_smaller == {}
        sizes[name], runs[name] = artifact.size_bytes, artifact
    assert sizes["int8-weights"] <= 0.28 * sizes["fp32"]
    assert sizes["fp16"] <= 0.45 * sizes["fp32"]
    bands = {"palette-6": 5100, "palette-8": 50000, "sparse float32": 80 * 201}
    cosine = {"float32": 80 * 80}
    assert runs["fp16"].graph_stats.stored == {"float16": 123264, **bands, **cosine}
    small = runs["int8-weights"].graph_stats.stored
    assert small == {"float16": 384, "int8": 122880, **bands, "palette-8": 50000 + 80 * 80}
    # The front-end's features are those of the stored transforms, to float32's rounding.
    features = []
    for name in ("fp32", "fp16", "int8-weights"):
        path = tmp_path / runs[name].path
        runner = RUNNERS[BACKEND].open(path, exporter.model.spec, threads=1)
        taps = runner.taps({"waveform": speech[0][None, None]}, ["frontend"])
        assert taps is not None
        features.append(taps["frontend"])
    plain, half, rounded = features
    assert np.array_equal(plain, half)
    assert 0 < np.abs(rounded - plain).max() < 1e-3 * np.abs(plain).max()


def test_what_a_promise_leaves_goes_to_the_most_sensitive_layers(tmp_path: Path) -> None:
    exporter = Exporter(load_model("sinc-2bi"))
    full = exporter.export(RECIPES[f"{BACKEND}/fp32"], tmp_path).size_bytes
    recipe = RECIPES[f"{BACKEND}/int8-weights"]
    artifact = exporter.export(recipe, tmp_path)
    assert artifact.graph_stats.stored["float16"] == 384 + 80 * 251
    assert 0.27 * full < artifact.size_bytes <= 0.28 * full
    compressed: Any = exporter.compressed(recipe)
    first, second, _ = (conv.weight.detach() for conv in compressed.frontend.conv1d)
    assert torch.equal(first, first.half().float())
    assert not torch.equal(second, second.half().float())
    skipped = recipe.model_copy(update={"skip": ("frontend.conv1d.0",)})
    stored = exporter.export(skipped, tmp_path).graph_stats
    assert stored.stored["float32"] == 80 * 251
    assert stored.not_smaller == {}


def test_operations_are_counted_by_the_units_that_can_take_them(
    exporter: Exporter, tmp_path: Path
) -> None:
    half = exporter.export(RECIPES[f"{BACKEND}/fp16"], tmp_path).graph_stats
    assert half.delegated[WIDE]["conv"] == 3
    assert half.delegated[HALF]["lstm"] == 1
    assert half.delegated[HALF]["linear"] == 2
    assert "conv" not in half.delegated[HALF]
    totals = {kind: sum(each.get(kind, 0) for each in half.delegated.values()) for kind in COUNTED}
    assert totals == {kind: half.operators[kind] for kind in COUNTED}
    full = exporter.export(RECIPES[f"{BACKEND}/fp32"], tmp_path).graph_stats
    assert list(full.delegated) == [WIDE]


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
