"""Nothing falls back, and no file is larger than its weights explain, unless allowed by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from export.backends.base import BACKENDS, RECIPES
from export.budget import FIXED_BYTES, SIZE_RATIO, check_budgets, over_budget
from export.checkpoint import LoadedModel
from export.cli.building import BuildRequest, run_build
from export.errors import BudgetError, ExitCode, RecipeError
from export.models.base import MODELS
from export.models.pyannet import student_config
from export.pipeline import Exporter, plan
from export.progress import silent
from export.types import Artifact, GraphStats, Recipe
from runtime_checks.der import DerSettings

len(BACKENDS)  # recipes are registered by their backends
PTE, ONNX = RECIPES["executorch_xnnpack/fp32"], RECIPES["onnx_ort/fp32"]


def student(name: str = "sinc-1uni", *, powerset: int | None = None) -> LoadedModel:
    """A small student with random weights and windows of a second."""
    torch.manual_seed(0)
    config: dict[str, Any] = student_config(name, window_s=1.0)
    config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 16
    config["specifications"]["powerset_max_classes"] = powerset
    entry = MODELS["PyanNet"]
    module = entry.build(config)
    spec = entry.spec(module, name=name, licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, name, "0" * 64, "", "")


def allowing(artifact: Artifact, options: dict[str, Any]) -> Artifact:
    recipe = artifact.recipe.model_copy(update={"options": artifact.recipe.options | options})
    return artifact.model_copy(update={"recipe": recipe})


class Behind(nn.Module):
    """A network with something computed on its scores."""

    def __init__(self, network: nn.Module, change: Any) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, waveform: Tensor) -> Tensor:
        changed: Tensor = self.change(self.network(waveform))
        return changed


def export_behind(change: Any, recipe: Recipe, folder: Path) -> Artifact:
    exporter = Exporter(student())
    exporter.__dict__["canonical"] = Behind(exporter.canonical, change).eval()
    return exporter.export(recipe, folder)


@pytest.fixture(scope="module")
def flat_norms(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A program whose norms and pools are left 1-D, where XNNPACK takes neither."""
    backend: Any = BACKENDS["executorch_xnnpack"]
    whole = backend.rewrites
    backend.rewrites = tuple(
        name for name in whole if name not in {"sincnet_4d", "polyphase_convolution"}
    )
    try:
        return Exporter(student()).export(PTE, tmp_path_factory.mktemp("flat"))
    finally:
        backend.rewrites = whole


def test_what_is_left_to_portable_kernels_fails_by_name(flat_norms: Artifact) -> None:
    found = over_budget(flat_norms)
    assert found
    with pytest.raises(BudgetError) as caught:
        check_budgets([flat_norms])
    for name in found:
        assert f"{name} falls back ({flat_norms.graph_stats.portable[name]} of it)" in str(
            caught.value
        )
        assert f"--allow {name}" in str(caught.value)
    assert caught.value.exit_code is ExitCode.PARITY_FAILED


def test_an_allowance_holds_for_what_it_names_and_no_more(flat_norms: Artifact) -> None:
    names = sorted(over_budget(flat_norms))
    check_budgets([allowing(flat_norms, {"allow": names})])
    for name in names:
        others = [other for other in names if other != name]
        assert set(over_budget(allowing(flat_norms, {"allow": others}))) == {name}


def test_an_operator_that_xnnpack_lacks_fails_by_name(tmp_path: Path) -> None:
    artifact = export_behind(lambda scores: torch.cumsum(scores, 1), PTE, tmp_path)
    assert over_budget(artifact) == {"aten::cumsum.out": "aten::cumsum.out falls back (1 of it)"}


def test_a_plain_scan_may_compute_in_its_loop_only_where_the_recipe_says_so(tmp_path: Path) -> None:
    plain = PTE.model_copy(update={"options": {"recurrence": "scan"}})
    artifact = Exporter(student()).export(plain, tmp_path)
    assert over_budget(artifact) == {}
    forged = artifact.model_copy(update={"recipe": PTE})
    assert {"aten::sigmoid.out", "aten::tanh.out"} <= set(over_budget(forged))


def test_shapes_computed_at_run_time_fail_by_name(tmp_path: Path) -> None:
    def by_length(scores: Tensor) -> Tensor:
        return scores * torch.argmax(scores, dim=1, keepdim=True).float()

    artifact = export_behind(by_length, ONNX, tmp_path)
    assert over_budget(artifact) == {"ArgMax": "ArgMax falls back (1 of it)"}


@pytest.mark.parametrize("dynamic_length", [False, True])
@pytest.mark.parametrize("powerset", [None, 2])
@pytest.mark.parametrize("name", ["sinc-1uni", "sinc-1bi", "sinc-2bi", "sinc-3uni", "sinc-4bi"])
def test_no_shape_chains(
    name: str, powerset: int | None, dynamic_length: bool, tmp_path: Path
) -> None:
    recipe = ONNX.model_copy(update={"options": {"dynamic_length": dynamic_length}})
    artifact = Exporter(student(name, powerset=powerset)).export(recipe, tmp_path)
    stats = artifact.graph_stats
    assert stats.portable == {}
    assert not {"Shape", "Gather", "Concat", "Slice", "Expand", "Cast"} & set(stats.operators)
    assert stats.operators["LSTM"] == int(name[5])
    assert stats.delegated["CPUExecutionProvider"]["LSTM"] == int(name[5])
    assert over_budget(artifact) == {}


@given(weights=st.integers(1, 10**8), size=st.integers(1, 2 * 10**8))
def test_a_file_is_as_large_as_its_weights_and_little_more(weights: int, size: int) -> None:
    artifact = sized(weights, size)
    allowed = max(SIZE_RATIO * weights, weights + FIXED_BYTES)
    assert ("size" in over_budget(artifact)) == (size > allowed)
    assert over_budget(allowing(artifact, {"allow": ["size"]})) == {}
    wide = over_budget(allowing(artifact, {"size_budget": 3.0}))
    assert ("size" in wide) == (size > max(3 * weights, weights + FIXED_BYTES))


def test_a_size_above_its_budget_says_both_figures() -> None:
    with pytest.raises(BudgetError, match=r"1200000 bytes, 1\.200 of its weights' 1000000"):
        check_budgets([sized(1_000_000, 1_200_000)])


@pytest.mark.parametrize(
    "options", [{"allow": "size"}, {"allow": [1]}, {"size_budget": 0.5}, {"size_budget": True}]
)
def test_an_allowance_that_is_not_understood_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="expected"):
        over_budget(allowing(sized(1, 1), options))


def test_a_build_over_budget_writes_nothing(tmp_path: Path) -> None:
    request = BuildRequest(
        model="sinc-1bi",
        out=tmp_path / "bundle",
        audio=[],
        rttm=None,
        uem=None,
        backends=["onnx_ort"],
        recipes=[],
        window_s=1.0,
        hop_s=None,
        dynamic_length=False,
        allow=[],
        limits={},
        der_settings=DerSettings(),
        runs=0,
    )
    backend: Any = BACKENDS["onnx_ort"]
    backend.fallbacks = lambda stats, recipe: {"LSTM": stats.operators["LSTM"]}
    try:
        with pytest.raises(BudgetError, match=r"LSTM falls back \(1 of it\).*--allow LSTM"):
            run_build(request, silent)
    finally:
        del backend.fallbacks
    assert list(tmp_path.iterdir()) == []


def test_allowances_of_the_user_join_the_recipes(zoo_model: LoadedModel) -> None:
    planned = plan(zoo_model, backends=["onnx_ort"], recipes=["fp32"], allow=["Shape", "size"])
    assert [recipe.options for recipe in planned.recipes] == [{"allow": ["Shape", "size"]}]


def sized(weights: int, size: int) -> Artifact:
    return Artifact(
        path="x.onnx",
        sha256="0" * 64,
        size_bytes=size,
        recipe=ONNX,
        rewrites=(),
        dynamic_length=False,
        tool_versions={},
        graph_stats=GraphStats(operators={}, delegates=0, weight_bytes=weights),
    )
