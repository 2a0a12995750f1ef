"""Packages of the trained model that were changed on disk: each must fail on a rung of the ladder.

Weights are changed in `weight.bin` itself, wiring and small constants in the program, and all go
through one check together with intact packages.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.bundle import hash_path
from export.checkpoint import LoadedModel
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.rewrites.base import apply_rewrites
from export.types import Artifact, ParityReport, RungName, Verdict
from runtime_checks.check import CheckResult, check
from runtime_checks.coreml_mil.evaluator import Evaluator
from runtime_checks.coreml_mil.package import load_program
from runtime_checks.coreml_mil.weights import weight_faults

Program = Any
Corrupt = Callable[[Path], None]

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
BLOB_SENTINEL = 0xDEADBEEF
Exported = tuple[Path, nn.Module]
TYPES = {1: np.float16, 2: np.float32, 4: np.int8}


def edit_program(package: Path, change: Callable[[Program], None]) -> None:
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    function = model.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    (package / MODEL).write_bytes(model.SerializeToString(deterministic=True))


def operations(package: Path) -> Program:
    found: list[Program] = []
    edit_program(package, lambda block: found.append(block.operations))
    return found[0]


def stored(package: Path, kind: str, parameter: str) -> NDArray[Any]:
    """A weight of the first operation of a kind, as a view of the file that can be written to.

    `parameter` may lead through a decompression: `weight_ih.scale`.
    """
    name, _, inner = parameter.partition(".")
    by_output = {op.outputs[0].name: op for op in operations(package)}
    user = next(op for op in operations(package) if op.type == kind)
    maker = by_output[user.inputs[name].arguments[0].name]
    if inner and inner in maker.attributes:
        value = maker.attributes[inner]
    elif inner:
        given = maker.inputs[inner].arguments[0]
        value = given.value if given.HasField("value") else by_output[given.name].attributes["val"]
    else:
        value = maker.attributes["val"]
    file = np.memmap(package / WEIGHTS, np.uint8, "r+")
    offset = value.blobFileValue.offset
    header = file[offset : offset + struct.calcsize("<IIQQ")].tobytes()
    sentinel, dtype, size, begin = struct.unpack("<IIQQ", header)
    assert sentinel == BLOB_SENTINEL
    shape = [dimension.constant.size for dimension in value.type.tensorType.dimensions]
    view: NDArray[Any] = file[begin : begin + size].view(TYPES[dtype]).reshape(shape)
    return view


def swap_gates(parameter: str) -> Corrupt:
    def corrupt(package: Path) -> None:
        weight = stored(package, "lstm", parameter)
        quarter = len(weight) // 4
        weight[: 2 * quarter] = np.roll(weight[: 2 * quarter], quarter, axis=0)

    return corrupt


def swap_directions(package: Path) -> None:
    def change(block: Program) -> None:
        (lstm,) = (op for op in block.operations if op.type == "lstm")
        for name in ("weight_ih", "weight_hh", "bias"):
            ahead, back = lstm.inputs[name].arguments[0], lstm.inputs[f"{name}_back"].arguments[0]
            ahead.name, back.name = back.name, ahead.name

    edit_program(package, change)


def raise_epsilon(package: Path) -> None:
    def change(block: Program) -> None:
        used = {
            op.inputs["epsilon"].arguments[0].name
            for op in block.operations
            if op.type == "instance_norm"
        }
        for op in block.operations:
            if op.outputs[0].name in used:
                floats = op.attributes["val"].immediateValue.tensor.floats
                assert floats.values[0] == np.float32(1e-5)
                floats.values[0] = 1e-3

    edit_program(package, change)


def exchange_weights(package: Path) -> None:
    one, other = (stored(package, "lstm", name) for name in ("weight_hh", "weight_hh_back"))
    kept = one.copy()
    one[:], other[:] = other, kept


def flip_a_bit_of_a_scale(bit: int) -> Corrupt:
    """Of one row of 512: its sign, or a bit of its exponent."""

    def corrupt(package: Path) -> None:
        scales = stored(package, "lstm", "weight_ih.scale").reshape(-1)
        scales.view(np.uint16)[np.argmax(scales)] ^= 1 << bit

    return corrupt


CORRUPTED: dict[str, tuple[str, Corrupt]] = {
    "gates-of-a-weight": ("fp32", swap_gates("weight_ih")),
    "gates-of-a-bias": ("fp32", swap_gates("bias")),
    "directions": ("fp32", swap_directions),
    "epsilon": ("fp32", raise_epsilon),
    "weights-exchanged": ("fp32", exchange_weights),
    "sign-of-a-scale": ("int8-weights", flip_a_bit_of_a_scale(15)),
    "exponent-of-a-scale": ("int8-weights", flip_a_bit_of_a_scale(12)),
}
UNHEARD: dict[str, tuple[str, Corrupt]] = {
    "last-bit-of-a-scale": ("int8-weights", flip_a_bit_of_a_scale(0)),
}
"""What moves the scores by less than any limit."""


@pytest.fixture(scope="module")
def result(zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> CheckResult:
    """One check of intact packages and of every corrupted one."""
    len(BACKENDS)
    folder, exporter = tmp_path_factory.mktemp("packages"), Exporter(zoo_model)
    intact: dict[str, Artifact] = {}
    artifacts: list[tuple[Artifact, Path]] = []
    every = CORRUPTED | UNHEARD
    for name in {recipe: None for recipe, _ in every.values()}:
        intact[name] = exporter.export(RECIPES[f"coreml_mlprogram/{name}"], folder)
        artifacts.append((intact[name], folder / intact[name].path))
    for name, (recipe, corrupt) in every.items():
        package = folder / f"{name}.mlpackage"
        shutil.copytree(folder / intact[recipe].path, package)
        corrupt(package)
        assert hash_path(package) != intact[recipe].sha256
        artifacts.append((intact[recipe].model_copy(update={"path": package.name}), package))
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    return check(
        artifacts,
        spec=zoo_model.spec,
        reference=zoo_model.module,
        compressed=exporter.compressed,
        recordings=[recording],
        hop_s=8.0,
    )


def reports(result: CheckResult, path: str) -> list[ParityReport]:
    return [report for report in result.reports if report.artifact_path == path]


@pytest.mark.parametrize("recipe", sorted({recipe for recipe, _ in CORRUPTED.values()}))
def test_intact_packages_pass(recipe: str, result: CheckResult) -> None:
    found = reports(result, f"segmentation.{recipe}.mlpackage")
    assert [report.verdict for report in found] == [Verdict.PASS] * 2, found[0].reason
    features = found[0].rungs[1]
    assert features.name is RungName.FEATURES and features.verdict is Verdict.PASS


@pytest.mark.parametrize("name", CORRUPTED)
def test_a_corrupted_package_fails_on_the_scores_and_its_layer_is_named(
    name: str, result: CheckResult
) -> None:
    against_compressed, _ = reports(result, f"{name}.mlpackage")
    failed = {r.name for r in against_compressed.rungs if r.verdict is Verdict.FAIL}
    assert RungName.SCORES in failed, against_compressed.reason
    layer = "frontend.wav_norm1d" if name == "epsilon" else "recurrent.0"
    assert against_compressed.first_diverging_layer == layer


def test_weights_are_compared_whatever_they_do_to_the_scores(result: CheckResult) -> None:
    for name in [*CORRUPTED, *UNHEARD]:
        first = reports(result, f"{name}.mlpackage")[0].rungs[0]
        assert first.name is RungName.CONTRACT
        assert (first.verdict is Verdict.PASS) == (name == "epsilon"), first.reason
        assert (name == "epsilon") or "recurrent.0: " in str(first.reason)
    (last,) = UNHEARD
    failed = [r.name for r in reports(result, f"{last}.mlpackage")[0].rungs if r.verdict == "FAIL"]
    assert failed == [RungName.CONTRACT]


def test_the_check_says_that_nothing_was_run_by_core_ml(result: CheckResult) -> None:
    told = [note for note in result.notes if "not run by Core ML" in note]
    assert len(told) == len(result.summaries)


def export(model: LoadedModel, name: str, folder: Path) -> Exported:
    exporter, recipe = Exporter(model), RECIPES[f"coreml_mlprogram/{name}"]
    artifact = exporter.export(recipe, folder)
    return folder / artifact.path, apply_rewrites(exporter.compressed(recipe), artifact.rewrites)


@pytest.fixture(scope="module")
def small(zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(zoo_model, "int8-weights", tmp_path_factory.mktemp("int8"))


def faults(package: Path, module: nn.Module) -> tuple[str, ...]:
    return weight_faults(Evaluator(load_program(package)), module)


@pytest.mark.parametrize("name", ["fp16", "palette-6", "int4-weights", "pruned-int8"])
def test_what_a_recipe_stores_is_the_compressed_model(
    name: str, zoo_model: LoadedModel, tmp_path: Path
) -> None:
    assert faults(*export(zoo_model, name, tmp_path)) == ()


def test_every_bit_of_a_scale_counts(small: Exported, tmp_path: Path) -> None:
    package, module = small
    assert faults(package, module) == ()
    changed = tmp_path / "changed.mlpackage"
    shutil.copytree(package, changed)
    scales = stored(changed, "lstm", "weight_hh.scale").reshape(-1).view(np.uint16)
    for bit in range(16):
        scales[7 * bit] ^= 1 << bit
    (found,) = faults(changed, module)
    assert found.startswith("recurrent.0: ")
    rows = 16 * module.recurrent[0].hidden_size  # type: ignore[index, union-attr]
    assert 0.8 * rows < int(found.split()[1]) <= rows
    for bit in range(16):
        scales[7 * bit] ^= 1 << bit
    assert faults(changed, module) == ()


def test_exchanged_weights_and_filters_are_named(zoo_model: LoadedModel, tmp_path: Path) -> None:
    package, module = export(zoo_model, "fp32", tmp_path)
    filters: Any = stored(package, "conv", "weight")
    filters[[3, 4]] = filters[[4, 3]]
    exchange_weights(package)
    assert [each.split(":")[0] for each in faults(package, module)] == [
        "frontend.conv1d.0",
        "recurrent.0",
        "recurrent.0",
    ]
