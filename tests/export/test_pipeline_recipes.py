"""Which recipes of an embedding model a pipeline's bundle carries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from export.checkpoint import load_model
from export.cli.pipelining import _recipes
from export.errors import RecipeError
from export.pipeline import plan

EXECUTORCH = "executorch_xnnpack"


@pytest.mark.parametrize(
    ("backend", "asked", "built"),
    [
        (EXECUTORCH, ["int8-dynamic"], ["int8-dynamic", "fp32"]),
        (EXECUTORCH, ["fp32", "int8-dynamic"], ["fp32", "int8-dynamic"]),
        ("onnx_ort", ["int8-dynamic", "fp16"], ["int8-dynamic", "fp16"]),
        ("coreml_mlprogram", ["palette-6"], ["palette-6", "fp32"]),
        ("onnx_ort", [], ["fp32"]),
    ],
)
def test_fp32_stands_in_for_a_recipe_that_is_refused(
    backend: str, asked: list[str], built: list[str]
) -> None:
    request: Any = SimpleNamespace(backends=[backend], recipes=asked)
    assert _recipes(request, load_model("cnn4")) == built


def test_what_is_implied_is_left_out_with_its_reason_and_not_an_error() -> None:
    model, recipes = load_model("cnn4"), ["int8-dynamic", "fp32"]
    planned = plan(model, backends=[EXECUTORCH], recipes=recipes, implied=True)
    assert [recipe.name for recipe in planned.recipes] == ["fp32"]
    [(left, reason)] = planned.left_out
    assert left.name == "int8-dynamic" and "0.84 of fp32's bytes" in reason
    with pytest.raises(RecipeError, match="XNNPACK multiplies int8"):
        plan(model, backends=[EXECUTORCH], recipes=recipes)
