"""The Core ML backend on trained weights: what is in the package, and that it is the model."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.backends.base import BACKENDS, RECIPES
from export.backends.coreml_mlprogram import _quiet
from export.bundle import hash_path
from export.checkpoint import LoadedModel
from export.errors import BundleError
from export.models.base import MODELS
from export.models.pyannet import student_config
from export.pipeline import Exporter
from export.rewrites.base import apply_rewrites
from export.types import Artifact
from runtime_checks.runners.base import RUNNERS, why_untimed
from runtime_checks.runners.coreml_mlprogram import declared_tensors

len(BACKENDS)  # recipes are registered by their backends
FP32, FP16 = RECIPES["coreml_mlprogram/fp32"], RECIPES["coreml_mlprogram/fp16"]
Exported = tuple[Artifact, Path]


@pytest.fixture(scope="module")
def exporter(zoo_model: LoadedModel) -> Exporter:
    return Exporter(zoo_model)


@pytest.fixture(scope="module")
def full(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("fp32")
    artifact = exporter.export(FP32, folder)
    return artifact, folder / artifact.path


@pytest.fixture(scope="module")
def half(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("fp16")
    artifact = exporter.export(FP16, folder)
    return artifact, folder / artifact.path


def operations(package: Path) -> list[Any]:
    """Operations of a saved package, constants included, with the weights read from its file."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.libmodelpackage import ModelPackage
    from coremltools.models.utils import load_spec

    spec = load_spec(str(package))
    root = Path(ModelPackage(str(package)).getRootModel().path())
    program = load(spec, spec.specificationVersion, str(root.parent / "weights"))
    return list(program.functions["main"].operations)


def computing(package: Path) -> list[Any]:
    return [op for op in operations(package) if op.op_type != "const"]


def float_types(op: Any) -> set[str]:
    """Types of an operation's floating-point tensors; scalars such as an epsilon stay fp32."""
    from coremltools.converters.mil.mil import types

    given = [v for value in op.inputs.values() for v in np.atleast_1d(np.array(value, object))]
    names = {types.builtin_to_string(v.dtype) for v in (*given, *op.outputs) if v.rank > 0}
    return names & {"fp16", "fp32"}


def expected_lstm(layer: nn.Module, suffix: str) -> dict[str, NDArray[np.float32]]:
    """PyTorch's gates i, f, g, o in Core ML's order i, f, o, g, and its two biases in one."""

    def ordered(values: torch.Tensor) -> NDArray[np.float32]:
        i, f, g, o = values.detach().chunk(4)
        return torch.cat([i, f, o, g]).numpy()

    parameters = dict(layer.named_parameters())
    bias = parameters[f"bias_ih_l0{suffix}"] + parameters[f"bias_hh_l0{suffix}"]
    end = "_back" if suffix else ""
    return {
        f"weight_ih{end}": ordered(parameters[f"weight_ih_l0{suffix}"]),
        f"weight_hh{end}": ordered(parameters[f"weight_hh_l0{suffix}"]),
        f"bias{end}": ordered(bias),
    }


def test_contract_in_the_file_is_the_models(
    full: Exported, half: Exported, zoo_model: LoadedModel
) -> None:
    for _, package in (full, half):
        inputs, outputs = declared_tensors(package)
        assert inputs == zoo_model.spec.inputs
        assert outputs == zoo_model.spec.outputs


def test_recurrence_is_native_and_targets_ios_17(full: Exported) -> None:
    from coremltools.models.utils import load_spec

    operators = full[0].graph_stats.operators
    assert operators["lstm"] == 1
    assert operators["instance_norm"] == 4
    assert not {"while_loop", "const", "cast", "batch_norm"} & set(operators)
    assert load_spec(str(full[1])).specificationVersion == 8


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_weights_in_the_file_are_the_models(
    name: str, exporter: Exporter, request: pytest.FixtureRequest
) -> None:
    artifact, package = request.getfixturevalue({"fp32": "full", "fp16": "half"}[name])
    compressed = exporter.compressed(artifact.recipe)
    module: Any = apply_rewrites(compressed, artifact.rewrites)
    by_type: dict[str, list[Any]] = {}
    for op in computing(package):
        by_type.setdefault(op.op_type, []).append(op)
    for op, conv in zip(by_type["conv"], module.frontend.conv1d, strict=True):
        np.testing.assert_array_equal(op.weight.val, conv.weight.detach().numpy())
    for op, layer in zip(by_type["linear"], (*module.linear, module.classifier), strict=True):
        np.testing.assert_array_equal(op.weight.val, layer.weight.detach().numpy())
    lstm, layer = by_type["lstm"][0], module.recurrent[0]
    for key, value in (expected_lstm(layer, "") | expected_lstm(layer, "_reverse")).items():
        stored = lstm.inputs[key].val
        # Matrices are rounded already; the sum of the two biases is rounded when it is stored.
        kept = value.astype(stored.dtype) if key.startswith("bias") else value
        np.testing.assert_array_equal(stored, kept)
    assert {op.epsilon.val for op in by_type["instance_norm"]} == {np.float32(1e-5)}


def test_fp16_computes_the_front_end_in_float32_and_the_rest_in_float16(half: Exported) -> None:
    ops = computing(half[1])
    first = next(i for i, op in enumerate(ops) if op.op_type == "lstm")
    front = [op for op in ops[:first] if op.op_type != "cast"]
    assert [op.op_type for op in front].count("conv") == 3
    assert all(float_types(op) == {"fp32"} for op in front)
    rest = [op for op in ops[first:] if op.op_type != "cast"]
    assert {op.op_type for op in rest} >= {"lstm", "linear", "sigmoid"}
    assert all(float_types(op) == {"fp16"} for op in rest)
    assert [float_types(op) for op in ops if op.op_type == "cast"] == [{"fp16", "fp32"}] * 2


@pytest.mark.parametrize("name", ["fp16", "int8-weights"])
def test_of_two_recurrences_the_first_is_float32(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[f"coreml_mlprogram/{name}"]
    artifact = Exporter(powerset_model()).export(recipe, tmp_path)
    ops = computing(tmp_path / artifact.path)
    assert [types_of(op) for op in ops if op.op_type == "lstm"] == [{"fp32"}, {"fp16"}]
    assert {frozenset(types_of(op)) for op in ops if op.op_type == "linear"} == {
        frozenset({"fp16"})
    }


def types_of(op: Any) -> set[str]:
    """Types that an operation gives."""
    from coremltools.converters.mil.mil import types

    return {types.builtin_to_string(out.dtype) for out in op.outputs}


def test_fp16_halves_what_is_behind_the_front_end(
    full: Exported, half: Exported, exporter: Exporter
) -> None:
    canonical: Any = exporter.canonical
    behind = (canonical.recurrent, canonical.linear, canonical.classifier)
    matrices = sum(p.numel() for part in behind for p in part.parameters() if p.ndim == 2)
    saved = full[0].graph_stats.weight_bytes - half[0].graph_stats.weight_bytes
    assert 2 * matrices < saved < 2.05 * matrices
    assert half[0].size_bytes < 0.62 * full[0].size_bytes
    for artifact, _ in (full, half):
        overhead = artifact.size_bytes - artifact.graph_stats.weight_bytes
        assert 0 < overhead < 40_000


def test_powerset_scores_never_take_the_logarithm_of_a_softmax(tmp_path: Path) -> None:
    model = powerset_model()
    for recipe in (FP32, FP16):
        artifact = Exporter(model).export(recipe, tmp_path)
        operators = artifact.graph_stats.operators
        assert operators["reduce_max"] == operators["log"] == 1
        assert "softmax" not in operators
        assert declared_tensors(tmp_path / artifact.path)[1][0].shape == (1, 56, 7)


def powerset_model() -> LoadedModel:
    config = student_config("sinc-2uni", window_s=1.0)
    config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 16
    config["specifications"]["powerset_max_classes"] = 2
    entry = MODELS["PyanNet"]
    module = entry.build(config)
    spec = entry.spec(module, name="powerset", licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, "powerset", "0" * 64, "", "")


def test_a_model_with_more_layers_keeps_them_in_order(tmp_path: Path) -> None:
    model = powerset_model()
    exporter = Exporter(model)
    artifact = exporter.export(FP32, tmp_path)
    lstms = [op for op in computing(tmp_path / artifact.path) if op.op_type == "lstm"]
    layers: Any = exporter.canonical
    for op, layer in zip(lstms, layers.recurrent, strict=True):
        assert op.direction.val == "forward"
        for key, value in expected_lstm(layer, "").items():
            np.testing.assert_array_equal(op.inputs[key].val, value)


def test_another_process_writes_the_same_bytes_and_nothing_on_the_terminal(
    half: Exported, zoo_model: LoadedModel, tmp_path: Path
) -> None:
    """Strings hash at random here, and by a seed there."""
    code = (
        "import sys; from pathlib import Path\n"
        "from export.backends.base import BACKENDS, RECIPES\n"
        "from export.checkpoint import load_model\n"
        "from export.pipeline import Exporter\n"
        "len(BACKENDS)\n"
        "model = load_model(sys.argv[1])\n"
        "recipe = RECIPES['coreml_mlprogram/fp16']\n"
        "print(Exporter(model).export(recipe, Path(sys.argv[2])).sha256)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, zoo_model.source, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert ran.stdout.split() == [half[0].sha256]
    assert ran.stderr == ""
    assert hash_path(tmp_path / half[0].path) == half[0].sha256


def test_the_package_carries_its_contract_and_no_date(
    half: Exported, zoo_model: LoadedModel
) -> None:
    from coremltools.libmodelpackage import ModelPackage
    from coremltools.models.utils import load_spec

    metadata = load_spec(str(half[1])).description.metadata
    assert dict(metadata.userDefined) == {
        "architecture": "PyanNet",
        "classes": ",".join(zoo_model.spec.classes),
        "frame_step_samples": "270",
        "receptive_field_samples": "991",
        "sample_rate_hz": "16000",
    }
    assert metadata.license == zoo_model.spec.licence
    manifest = json.loads((half[1] / "Manifest.json").read_text())
    assert [uuid.UUID(key).version for key in manifest["itemInfoEntries"]] == [5, 5]
    root = Path(ModelPackage(str(half[1])).getRootModel().path())
    assert root.name == "model.mlmodel"
    assert root.stat().st_mode & 0o777 == 0o644


def test_quiet_hides_no_error_and_puts_everything_back() -> None:
    from tqdm import tqdm

    def attempt() -> Iterator[None]:
        with _quiet():
            assert tqdm([1]).disable
            yield
            raise RuntimeError("conversion failed")

    before = (logging.root.manager.disable, tqdm.__init__)
    steps = attempt()
    next(steps)
    assert not logging.getLogger("coremltools").isEnabledFor(logging.WARNING)
    assert logging.getLogger("coremltools").isEnabledFor(logging.ERROR)
    with pytest.raises(RuntimeError, match="conversion failed"):
        next(steps)
    assert (logging.root.manager.disable, tqdm.__init__) == before


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "no model", "half a model"])
def test_what_is_no_package_is_refused_by_name(kind: str, half: Exported, tmp_path: Path) -> None:
    path = tmp_path / "segmentation.fp16.mlpackage"
    if kind != "nothing":
        path.mkdir()
    if kind == "no model":
        (path / "Manifest.json").write_bytes((half[1] / "Manifest.json").read_bytes())
    if kind == "half a model":
        model = Path("Data/com.apple.CoreML/model.mlmodel")
        (path / model.parent).mkdir(parents=True)
        (path / "Manifest.json").write_bytes((half[1] / "Manifest.json").read_bytes())
        (path / model).write_bytes((half[1] / model).read_bytes()[:5000])
    with pytest.raises(BundleError, match=r"segmentation\.fp16\.mlpackage: Core ML cannot load it"):
        declared_tensors(path)


def test_where_there_is_no_core_ml_packages_are_evaluated_and_not_timed() -> None:
    assert RUNNERS["coreml_mlprogram"].unavailable() is None
    reason = why_untimed("coreml_mlprogram")
    if platform.system() == "Darwin":
        assert reason is None
    else:
        assert reason is not None
        assert reason.endswith(f"Core ML runs on macOS only; this is {platform.system()}")


def test_scores_equal_the_compressed_model(
    full: Exported, half: Exported, exporter: Exporter, speech: NDArray[np.float32]
) -> None:
    factory = RUNNERS["coreml_mlprogram"]
    for (artifact, package), limit in ((full, 1e-3), (half, 2e-2)):
        runner = factory.open(package, exporter.model.spec, threads=1)
        module = exporter.compressed(artifact.recipe)
        for window in speech[:, None, None]:
            with torch.inference_mode():
                expected = module(torch.from_numpy(window)).numpy()
            scores = runner.run({"waveform": window})["scores"]
            np.testing.assert_allclose(scores, expected, rtol=0, atol=limit)
