"""Plug-ins are found, and two of one name are an error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.backends.base import RECIPES, fp_recipes, register_recipe, select_recipes
from export.errors import ExportError, RecipeError
from export.registry import Registry


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[object]]:
    """A registry over a package of one plug-in module, not yet imported."""
    package = tmp_path / "plugins_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("loaded = []\nregistry = None\n")
    (package / "second.py").write_text(
        "from . import loaded, registry\n"
        "loaded.append(__name__)\n"
        "@registry.register('square')\n"
        "class Square:\n"
        "    sides = 4\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made: Registry[object] = Registry("shape", "plugins_of_a_test")
    import plugins_of_a_test  # type: ignore[import-not-found]

    plugins_of_a_test.registry = made
    monkeypatch.setitem(sys.modules, "plugins_of_a_test", plugins_of_a_test)
    yield made
    for name in [n for n in sys.modules if n.startswith("plugins_of_a_test")]:
        del sys.modules[name]


def test_plugins_are_found_once_and_when_needed(registry: Registry[object]) -> None:
    loaded = sys.modules["plugins_of_a_test"].loaded
    assert loaded == []
    assert getattr(registry["square"], "sides", None) == 4
    assert list(registry) == ["square"] and len(registry) == 1
    assert loaded == ["plugins_of_a_test.second"]


def test_a_duplicate_raises(registry: Registry[object]) -> None:
    registry.add("circle", object())
    with pytest.raises(ValueError, match="shape 'circle' is registered twice"):
        registry.add("circle", object())
    with pytest.raises(ValueError, match="'circle' is registered twice"):

        @registry.register("circle")
        class Circle:
            """Never registered."""


def test_a_duplicate_of_a_plugin_raises_when_it_is_loaded(registry: Registry[object]) -> None:
    registry.add("square", object())
    with pytest.raises(ValueError, match="shape 'square' is registered twice"):
        list(registry)


def test_an_unknown_name_lists_the_known(registry: Registry[object]) -> None:
    registry.add("circle", object())
    assert "triangle" not in registry
    with pytest.raises(ExportError, match="triangle: no such shape; expected one of circle, squ"):
        registry["triangle"]


def test_a_recipe_registered_twice_raises() -> None:
    before = dict(RECIPES)
    try:
        fp_recipes("backend_of_a_test", fp16_compute=True)
        made = RECIPES["backend_of_a_test/fp16"]
        assert (made.weight_precision, made.activation_precision) == ("fp16", "fp16")
        with pytest.raises(ValueError, match="'backend_of_a_test/fp16' is registered twice"):
            register_recipe(made)
    finally:
        RECIPES.clear()
        RECIPES.update(before)


def test_recipes_by_name() -> None:
    chosen = select_recipes(["coreml_mlprogram", "onnx_ort"], ["fp32", "fp16"])
    assert [(r.backend, r.name) for r in chosen] == [
        ("coreml_mlprogram", "fp32"),
        ("onnx_ort", "fp32"),
        ("coreml_mlprogram", "fp16"),
        ("onnx_ort", "fp16"),
    ]
    assert {r.name for r in select_recipes([], [])} == {"fp32"}
    with pytest.raises(RecipeError, match="fp7: no such recipe"):
        select_recipes([], ["fp7"])
    with pytest.raises(ExportError, match="tflite: no such backend"):
        select_recipes(["tflite"], [])
