"""Where the time of an artifact goes, by its runtime: parts that add up to what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.audio import Recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, with_window
from export.errors import BundleError, RecipeError
from export.lowering.placement import loops, operator
from export.pipeline import Exporter
from export.types import Artifact, NodeTime
from runtime_checks.runners.base import RUNNERS
from runtime_checks.timing.profiles import profile_artifacts
from runtime_checks.timing.program_parts import split

len(BACKENDS)  # recipes are registered by their backends
RUNS = 3


@pytest.fixture(scope="module")
def model(zoo_model: LoadedModel) -> LoadedModel:
    return with_window(zoo_model, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles")


@pytest.fixture(scope="module")
def program(model: LoadedModel, folder: Path) -> Artifact:
    return Exporter(model).export(RECIPES["executorch_xnnpack/fp32"], folder)


@pytest.fixture(scope="module")
def network(model: LoadedModel, folder: Path) -> Artifact:
    return Exporter(model).export(RECIPES["onnx_ort/fp32"], folder)


def windows(model: LoadedModel, speech: NDArray[np.float32]) -> list[dict[str, Any]]:
    samples = model.spec.geometry.window_samples
    return [{"waveform": row[:samples].reshape(1, 1, -1)} for row in speech[:RUNS]]


def test_the_parts_of_a_program_are_all_its_instructions(
    program: Artifact, model: LoadedModel, folder: Path, speech: NDArray[np.float32]
) -> None:
    runner = RUNNERS["executorch_xnnpack"]
    parts = runner.profile(folder / program.path, windows(model, speech), options={})
    stats = program.graph_stats
    assert sum(part.nodes for part in parts) == sum(stats.operators.values())
    looped = [part for part in parts if part.kind.startswith("loop over delegate ")]
    assert len(looped) == 1
    assert looped[0].nodes == sum(stats.looped.values()) + 1  # and the reset of its counter
    alone = [part for part in parts if part.kind.startswith("delegate ")]
    assert len(alone) == stats.delegates - 1
    portable = [part for part in parts if part.place == "portable"]
    assert sum(part.nodes for part in portable) == sum(stats.portable.values()) - 1
    assert parts[1].ms > 0  # the front-end, by far the largest


def test_a_program_is_cut_where_it_still_runs(program: Artifact, folder: Path) -> None:
    from executorch.exir._serialize._program import deserialize_pte_binary

    data = (folder / program.path).read_bytes()
    (plan,) = deserialize_pte_binary(data).program.execution_plan
    instructions = plan.chains[0].instructions
    parts = split(plan, instructions)
    assert [index for part in parts for index in part] == list(range(len(instructions)))
    (loop,) = loops(instructions)
    (whole,) = [part for part in parts if loop.start in part]
    assert (whole.start, whole.stop) == (loop.start, loop.stop + 1)
    assert operator(plan, instructions[loop.stop]) == "executorch_prim::sub.Scalar"


def test_onnx_nodes_are_those_of_the_loaded_session(
    network: Artifact, model: LoadedModel, folder: Path, speech: NDArray[np.float32]
) -> None:
    path, given = folder / network.path, windows(model, speech)
    plain = RUNNERS["onnx_ort"].profile(
        path, given, options={"graph_optimization_level": "ORT_ENABLE_BASIC"}
    )
    counts = {(node.place, node.kind): node.nodes for node in plain}
    expected = network.graph_stats.delegated["CPUExecutionProvider"]
    assert counts == {("CPUExecutionProvider", kind): n for kind, n in expected.items()}
    fused = RUNNERS["onnx_ort"].profile(path, given, options=network.runtime_options)
    convolution = {node.kind: node for node in fused}["Conv"]
    assert convolution.nodes == 3
    assert convolution.ms > {node.kind: node for node in fused}["Sigmoid"].ms > 0


def test_a_runtime_that_tells_nothing_has_its_reason_on_record(
    program: Artifact, network: Artifact, model: LoadedModel, folder: Path
) -> None:
    recipe = RECIPES["coreml_mlprogram/fp32"]
    package = network.model_copy(update={"recipe": recipe, "path": "x.mlpackage"})
    broken = program.model_copy(update={"path": "broken.pte"})
    (folder / "broken.pte").write_bytes(b"no program")
    samples = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    found = profile_artifacts(
        [(each, folder / each.path) for each in (network, package, broken)],
        spec=model.spec,
        recordings=[Recording("noise", folder / "noise.wav", samples, 16_000, ())],
        runs=RUNS,
    )
    assert [profile.artifact_path for profile in found] == [
        network.path,
        "x.mlpackage",
        "broken.pte",
    ]
    assert found[0].nodes
    assert found[0].reason is None
    assert found[0].runs == RUNS
    assert "Core ML" in str(found[1].reason)
    assert "no ExecuTorch program" in str(found[2].reason)


def test_no_runs_no_profiles(network: Artifact, model: LoadedModel, folder: Path) -> None:
    files = [(network, folder / network.path)]
    assert profile_artifacts(files, spec=model.spec, recordings=[], runs=0) == ()


def test_a_session_takes_the_artifacts_options(
    network: Artifact, model: LoadedModel, folder: Path
) -> None:
    path = folder / network.path
    runner: Any = RUNNERS["onnx_ort"].open(
        path, model.spec, threads=1, options=network.runtime_options
    )
    session = runner._session
    options = session.get_session_options()
    assert options.execution_mode.name == "ORT_SEQUENTIAL"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == 1
    other: Any = RUNNERS["onnx_ort"].open(
        path, model.spec, threads=2, options={"enable_mem_pattern": False}
    )
    assert other._session.get_session_options().intra_op_num_threads == 2
    assert other._session.get_session_options().enable_mem_pattern is False


@pytest.mark.parametrize(
    "options", [{"no_such_option": 1}, {"execution_mode": "fast"}, {"enable_mem_pattern": 1}]
)
def test_an_option_that_onnx_runtime_does_not_have_is_refused(
    options: dict[str, Any], network: Artifact, model: LoadedModel, folder: Path
) -> None:
    with pytest.raises(RecipeError, match=f"runtime option {next(iter(options))}"):
        RUNNERS["onnx_ort"].open(folder / network.path, model.spec, threads=1, options=options)
    with pytest.raises(BundleError, match="ONNX Runtime cannot load it"):
        RUNNERS["onnx_ort"].open(folder / "broken.pte", model.spec, threads=1)


def test_a_part_may_take_less_than_the_noise() -> None:
    assert NodeTime(place="portable", kind="aten::full.out", nodes=1, ms=-0.01).ms < 0
