"""The worked examples of CONTRIBUTING.md work: each is run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from export.backends.base import BACKENDS, RECIPES
from export.budget import over_budget
from export.checkpoint import LoadedModel
from export.models.base import MODELS
from export.pipeline import Exporter
from export.rewrites.base import REWRITES, apply_rewrites

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Take away again what an example registers."""
    len(BACKENDS), len(MODELS), len(REWRITES)
    tables: list[dict[str, Any]] = [vars(r)["_entries"] for r in (BACKENDS, MODELS, REWRITES)]
    tables.append(RECIPES)
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def run_example(title: str) -> dict[str, Any]:
    found = re.search(rf"## {title}\n.*?```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(found[1], f"CONTRIBUTING.md: {title}", "exec"), names)
    return names


def test_the_rewrite_is_exact() -> None:
    run_example("Add a rewrite")
    model = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2)).double()
    rewritten = apply_rewrites(model, ["leaky_relu_as_max"])
    assert not any(isinstance(m, nn.LeakyReLU) for m in rewritten.modules())
    x = torch.randn(8, 4, dtype=torch.float64)
    assert torch.equal(rewritten(x), model(x))


def test_the_backend_exports(zoo_model: LoadedModel, tmp_path: Path) -> None:
    run_example("Add a backend")
    artifact = Exporter(zoo_model).export(RECIPES["torchscript_cpu/fp32"], tmp_path)
    assert artifact.path == "segmentation.fp32.ts"
    assert artifact.graph_stats.operators["aten::lstm"] == 1
    assert over_budget(artifact) == {}
    loaded = torch.jit.load(str(tmp_path / artifact.path))  # type: ignore[no-untyped-call]
    x = MODELS["PyanNet"].example_inputs(zoo_model.spec)
    with torch.inference_mode():
        expected = zoo_model.module.double()(x[0].double())
        difference = (loaded(*x) - expected).abs().max()
    zoo_model.module.float()
    assert difference < 1e-3


def test_the_architecture_keeps_its_contract() -> None:
    run_example("Add an architecture")
    entry = MODELS["WidePyanNet"]
    model = entry.build(entry.tiny_config())
    spec = entry.spec(model, name="wide", licence="MIT", trained_on="nothing")
    assert spec.architecture == "WidePyanNet"
    canonical: Any = entry.canonical(model)
    assert canonical.classifier.in_features == 2 * canonical.recurrent[0].hidden_size
    inputs = entry.example_inputs(spec)
    with torch.inference_mode():
        assert tuple(canonical(*inputs).shape) == spec.outputs[0].shape
