"""Every recipe is made or refused, with its reason, by every backend."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from export.backends.base import BACKENDS, RECIPES, select_recipes
from export.errors import RecipeError
from export.recipes import DESCRIPTIONS, REFUSED, refuse

Run = Callable[..., tuple[int, str]]


def test_every_backend_makes_or_refuses_every_recipe() -> None:
    for backend in BACKENDS:
        for name in DESCRIPTIONS:
            key = f"{backend}/{name}"
            assert (key in RECIPES) is not (key in REFUSED), key
    assert {recipe.name for recipe in RECIPES.values()} <= set(DESCRIPTIONS)


def test_asking_for_what_is_refused_gives_the_reason(diarport: Run) -> None:
    with pytest.raises(RecipeError, match=r"onnx_ort/w8a16: refused \(ONNX Runtime's CPU kernels"):
        select_recipes(["onnx_ort"], ["w8a16"])
    code, said = diarport("build", "-b", "executorch_xnnpack", "-r", "int8-static")
    assert code == 2
    assert "executorch_xnnpack/int8-static: refused (calibrated ranges" in said


def test_a_refusal_needs_a_description_and_a_reason() -> None:
    with pytest.raises(ValueError, match="no description of recipe 'int3'"):
        refuse("onnx_ort", {"int3": "why not"})
    with pytest.raises(ValueError, match="no reason"):
        refuse("onnx_ort", {"w8a16": ""})


def test_recipes_and_doctor_list_what_is_refused(diarport: Run) -> None:
    _, said = diarport("recipes")
    assert "What they are" in said
    assert "w8a16" in said
    _, said = diarport("doctor", "--json")
    assert "onnx_ort/w8a16 (ONNX Runtime's CPU kernels" in said
