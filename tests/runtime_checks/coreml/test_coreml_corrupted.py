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

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.bundle import hash_path
from export.checkpoint import LoadedModel
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import Artifact, ParityReport, RungName, Verdict
from runtime_checks.check import CheckResult, check

Program = Any
Corrupt = Callable[[Path], None]

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
BLOB_SENTINEL = 0xDEADBEEF
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


@pytest.fixture(scope="module")
def result(zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> CheckResult:
    """One check of intact packages and of every corrupted one."""
    len(BACKENDS)
    folder, exporter = tmp_path_factory.mktemp("packages"), Exporter(zoo_model)
    intact: dict[str, Artifact] = {}
    artifacts: list[tuple[Artifact, Path]] = []
    for name in {recipe: None for recipe, _ in CORRUPTED.values()}:
        intact[name] = exporter.export(RECIPES[f"coreml_mlprogram/{name}"], folder)
        artifacts.append((intact[name], folder / intact[name].path))
    for name, (recipe, corrupt) in CORRUPTED.items():
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


def test_the_check_says_that_nothing_was_run_by_core_ml(result: CheckResult) -> None:
    told = [note for note in result.notes if "not run by Core ML" in note]
    assert len(told) == len(result.summaries)
