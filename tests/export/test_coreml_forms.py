"""Core ML packages for windows of any length and of several."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel
from export.errors import RecipeError
from export.models.base import MODELS
from export.models.pyannet import student_config
from export.pipeline import Exporter, plan
from export.types import Recipe
from runtime_checks.runners.base import RUNNERS

BACKEND = "coreml_mlprogram"
len(BACKENDS)  # recipes are registered by their backends
LIMITS = {"fp32": 1e-5, "fp16": 3e-3}


def student(name: str) -> LoadedModel:
    torch.manual_seed(0)
    config: dict[str, Any] = student_config(name, window_s=1.0)
    config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 16
    entry = MODELS["PyanNet"]
    module = entry.build(config)
    spec = entry.spec(module, name=name, licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, name, "0" * 64, "", "")


def asked(name: str, **options: Any) -> Recipe:
    recipe = RECIPES[f"{BACKEND}/{name}"]
    return recipe.model_copy(update={"options": recipe.options | options})


@pytest.mark.parametrize(
    "options", [{"dynamic_length": True}, {"lengths_samples": [16000, 40000]}], ids=str
)
@pytest.mark.parametrize("name", sorted(LIMITS))
def test_other_lengths_give_the_models_scores(
    name: str,
    options: dict[str, Any],
    zoo_model: LoadedModel,
    speech: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    from coremltools.models.utils import load_spec

    exporter = Exporter(zoo_model)
    artifact = exporter.export(asked(name, **options), tmp_path)
    assert artifact.dynamic_length == ("dynamic_length" in options)
    path = tmp_path / artifact.path
    runner = RUNNERS[BACKEND].open(path, zoo_model.spec, threads=1)
    exact = copy.deepcopy(zoo_model.module).double()
    for samples in (16000, 40000, 80000):
        window = speech[1][None, None, :samples]
        scores = runner.run({"waveform": window})["scores"]
        with torch.inference_mode():
            expected = exact(torch.from_numpy(window).double()).numpy()
        assert scores.shape == expected.shape
        assert np.abs(scores - expected).max() < LIMITS[name]
    declared = load_spec(str(path)).description.input[0].type.multiArrayType
    if "dynamic_length" in options:
        sizes = declared.shapeRange.sizeRanges[2]
        assert (sizes.lowerBound, sizes.upperBound) == (1261, 960_000)  # two frames, a minute
    else:
        shapes = {tuple(each.shape)[-1] for each in declared.enumeratedShapes.shapes}
        assert shapes == {16000, 40000, 80000}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"lengths_samples": [1000]}, "whole numbers from 1261 on"),
        ({"lengths_samples": "all"}, "not a list"),
        ({"lengths_samples": [16000], "dynamic_length": True}, "not both"),
        ({"target": "iOS12"}, "'iOS12', not one of iOS17, iOS18"),
    ],
)
def test_a_form_that_does_not_exist_is_refused(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=f"{BACKEND}/fp32: .*{reason}"):
        Exporter(student("sinc-1uni")).export(asked("fp32", **options), tmp_path)
    assert not list(tmp_path.iterdir())


def test_backends_without_this_form_refuse_it() -> None:
    for backend in ("onnx_ort", "executorch_xnnpack"):
        with pytest.raises(RecipeError, match="this backend has no form for the option"):
            plan(student("sinc-1uni"), backends=[backend], recipes=[], lengths_s=[0.5])
    planned = plan(student("sinc-1uni"), backends=[BACKEND], recipes=[], lengths_s=[0.5])
    assert planned.recipes[0].options == {"lengths_samples": [8000]}
