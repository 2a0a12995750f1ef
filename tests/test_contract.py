"""The same contract for everything that is registered: what is added tests itself.

Weights are random and tiny here: this holds the plug-ins' interfaces and exactness in float64.
Parity on trained weights is the matter of the ladder's tests.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.backends.base import BACKENDS, RECIPES, why_refused
from export.bundle import hash_path
from export.calibration.trained import is_trained
from export.checkpoint import LoadedModel, load_model, save_model
from export.distil.fake_quant import qat_recipe
from export.distil.first_grids import found_grids
from export.models.base import MODELS
from export.pipeline import Exporter, artifact_name
from export.rewrites.base import REWRITES, apply_rewrites
from export.types import Precision, Recipe, Role
from runtime_checks.runners.base import RUNNERS, backend_of

len(BACKENDS)  # recipes are registered by their backends


def tiny(architecture: str) -> LoadedModel:
    torch.manual_seed(0)
    entry = MODELS[architecture]
    module = entry.build(entry.tiny_config())
    spec = entry.spec(module, name="tiny", licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, "tiny", "0" * 64, "", "")


def scores(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = module.double()(*(x.double() for x in inputs))
    module.float()
    return out


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny(request.param)


def test_an_architecture_keeps_its_contract(model: LoadedModel) -> None:
    entry = MODELS[model.spec.architecture]
    inputs = entry.example_inputs(model.spec)
    assert tuple(x.shape for x in inputs) == tuple(s.shape for s in model.spec.inputs)
    out = scores(model.module, inputs)
    assert out.shape == model.spec.outputs[0].shape
    if model.spec.role is Role.SEGMENTATION:
        assert out.shape[1] == model.spec.geometry.num_frames
    longer = entry.with_window(model.module, model.spec, 1.7)
    assert scores(model.module, entry.example_inputs(longer)).shape == longer.outputs[0].shape


def test_an_architecture_round_trips_through_its_configuration(
    model: LoadedModel, tmp_path: Path
) -> None:
    save_model(tmp_path, model.module, model.spec, source="test")
    loaded = load_model(tmp_path)
    inputs = MODELS[model.spec.architecture].example_inputs(model.spec)
    assert loaded.spec == model.spec
    assert torch.equal(scores(loaded.module, inputs), scores(model.module, inputs))


def test_the_canonical_form_is_exact_and_independent(model: LoadedModel) -> None:
    entry = MODELS[model.spec.architecture]
    inputs = entry.example_inputs(model.spec)
    canonical = entry.canonical(model.module)
    assert torch.allclose(
        scores(canonical, inputs), scores(model.module, inputs), rtol=0, atol=1e-10
    )
    shared = {p.data_ptr() for p in canonical.parameters()} & {
        p.data_ptr() for p in model.module.parameters()
    }
    assert not shared


@pytest.mark.parametrize("name", sorted(REWRITES))
def test_a_rewrite_is_exact_and_leaves_its_input_alone(name: str, model: LoadedModel) -> None:
    entry = MODELS[model.spec.architecture]
    inputs = entry.example_inputs(model.spec)
    canonical = entry.canonical(model.module)
    before = scores(canonical, inputs)
    # In float64, since what a rewrite computes ahead of time it computes in the weights' type.
    rewritten = apply_rewrites(copy.deepcopy(canonical).double(), [name])
    assert torch.allclose(scores(rewritten, inputs), before, rtol=0, atol=1e-10)
    assert torch.equal(scores(canonical, inputs), before)


def is_exported_twice(recipe: Recipe, architecture: str) -> bool:
    """Exporting to ONNX takes a moment. Of Core ML a network of either role stands for all, of
    ExecuTorch the smallest network, and one more for what is trained.

    Each backend has a test beside this that exports in another process.
    """
    if recipe.backend == "executorch_xnnpack":
        return architecture == "MfccNet" or (architecture, recipe.name) == ("PyanNet", "int8-qat")
    return recipe.backend != "coreml_mlprogram" or architecture in {"PyanNet", "SpeakerCnn"}


@pytest.mark.parametrize("key", sorted(RECIPES))
def test_a_recipe_exports_the_same_bytes_twice_and_runs(
    key: str, model: LoadedModel, tmp_path: Path
) -> None:
    # Core ML has loops for GRU and RNN layers, and takes them where that is allowed.
    recipe = RECIPES[key]
    recipe = recipe.model_copy(update={"options": {**recipe.options, "allow": ["while_loop"]}})
    backend = BACKENDS[recipe.backend]
    if reason := backend.unavailable():
        pytest.skip(f"{key}: {reason}")
    if reason := why_refused(backend, model.spec, recipe):
        pytest.skip(f"{model.spec.architecture}: {reason}")
    if is_trained(recipe):
        [waveform] = MODELS[model.spec.architecture].example_inputs(model.spec)
        model = replace(model, grids=found_grids(model.module, qat_recipe(recipe.name), waveform))
    (tmp_path / "a").mkdir()
    artifact = Exporter(model).export(recipe, tmp_path / "a")
    if is_exported_twice(recipe, model.spec.architecture):
        (tmp_path / "b").mkdir()
        assert Exporter(model).export(recipe, tmp_path / "b") == artifact
    path = tmp_path / "a" / artifact.path
    assert artifact.path == artifact_name(recipe, backend, role=model.spec.role)
    assert artifact.sha256 == hash_path(path)
    assert artifact.size_bytes > artifact.graph_stats.weight_bytes * 0.9 > 0
    assert artifact.graph_stats.operators
    assert artifact.tool_versions["torch"].startswith("2.13")
    factory = RUNNERS[recipe.backend]
    if reason := factory.unavailable():
        pytest.skip(f"exported; not run: {reason}")
    runner = factory.open(path, model.spec, threads=1)
    inputs = MODELS[model.spec.architecture].example_inputs(model.spec)
    named = zip(model.spec.inputs, inputs, strict=True)
    outputs = runner.run({tensor.name: value.numpy() for tensor, value in named})
    out = outputs[model.spec.outputs[0].name]
    expected = scores(Exporter(model).compressed(recipe), inputs).numpy()
    limit = 1e-4 if recipe.activation_precision is Precision.FP32 else 2e-2
    np.testing.assert_allclose(out, expected, rtol=0, atol=limit)


def test_every_backend_has_a_runner_and_a_recipe() -> None:
    assert {backend_of(runner) for runner in RUNNERS} == set(BACKENDS) <= set(RUNNERS)
    assert {recipe.backend for recipe in RECIPES.values()} == set(BACKENDS)
