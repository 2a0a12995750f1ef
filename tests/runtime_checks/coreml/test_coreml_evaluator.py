"""What the evaluator refuses, what it flags, and how it stands on real packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - its usual name
from coremltools.converters.mil.mil import types
from numpy.typing import NDArray
from torch import nn

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel
from export.pipeline import Exporter
from export.quiet import quiet_tools
from export.rewrites.base import apply_rewrites
from export.types import Artifact, Verdict
from runtime_checks.coreml_mil.evaluator import EvaluationError, Evaluator
from runtime_checks.coreml_mil.flags import numeric_flags
from runtime_checks.coreml_mil.numerics import Mode
from runtime_checks.coreml_mil.operators.base import all_operators, operator
from runtime_checks.coreml_mil.package import from_mil, load_program
from runtime_checks.parity.reference import double
from runtime_checks.runners.base import RUNNERS, Noting, NotRunnableError
from runtime_checks.runners.coreml_mil import EvaluatedRunner
from runtime_checks.runners.coreml_mlprogram import declared_tensors
from runtime_checks.runners.coreml_native import ConfirmingRunner

len(BACKENDS)  # recipes are registered by their backends


@pytest.fixture(scope="module")
def exported(
    zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Artifact, Path]]:
    folder, exporter = tmp_path_factory.mktemp("packages"), Exporter(zoo_model)
    made = {}
    for name in ("fp32", "fp16"):
        artifact = exporter.export(RECIPES[f"coreml_mlprogram/{name}"], folder)
        made[name] = (artifact, folder / artifact.path)
    return made


def squares() -> Any:
    """Squares and reciprocals in fp16, as int16-scale audio would meet them."""

    @mb.program(  # type: ignore[untyped-decorator]
        input_specs=[mb.TensorSpec(shape=(4,), dtype=types.fp16)], opset_version=ct.target.iOS17
    )
    def main(x: Any) -> Any:
        square = mb.square(x=x, name="energy")
        return mb.mul(x=square, y=np.float16(0.5), name="halved")

    return main


def written(program: Any, folder: Path) -> Path:
    path = folder / "tiny.mlpackage"
    with quiet_tools():
        ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16,
            skip_model_load=True,
        ).save(str(path))
    return path


def test_the_first_operation_that_overflows_is_named_and_counted(tmp_path: Path) -> None:
    path = written(squares(), tmp_path)
    loud = {"x": np.array([300, 1, -400, 1e-5], np.float16)}
    quiet = {"x": np.array([1, 2, 3, 4], np.float16)}
    assert numeric_flags(path, [quiet]) == ()
    found = numeric_flags(path, [quiet, loud])
    assert [(f.kind, f.operation, f.values, f.runs) for f in found] == [
        ("overflow", "energy", 2, 2),
        ("underflow", "energy", 1, 2),
    ]
    assert found[0].largest == 400.0**2
    assert str(found[0]).startswith("square energy: 2 values overflow float16")


def test_results_that_are_no_numbers_are_flagged_where_they_arise() -> None:
    @mb.program(  # type: ignore[untyped-decorator]
        input_specs=[mb.TensorSpec(shape=(2,), dtype=types.fp16)], opset_version=ct.target.iOS17
    )
    def main(x: Any) -> Any:
        root = mb.sqrt(x=x, name="root")
        return mb.add(x=root, y=np.float16(1), name="later")

    evaluator = Evaluator(from_mil(main, target=8))
    evaluator.run({"x": np.array([-1, 4], np.float16)})
    assert [(f.kind, f.operation, f.values) for f in evaluator.flags] == [("invalid", "root", 1)]


def test_an_unknown_operation_is_named_and_nothing_is_run(
    exported: dict[str, tuple[Artifact, Path]],
    zoo_model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(all_operators(), "lstm")
    _, path = exported["fp32"]
    with pytest.raises(NotRunnableError, match="does not know the operation lstm"):
        RUNNERS["coreml_mlprogram"].open(path, zoo_model.spec, threads=1)


def test_an_artifact_that_cannot_be_evaluated_is_not_run(
    exported: dict[str, tuple[Artifact, Path]],
    zoo_model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from export.audio import load_recording
    from export.pyannote_import import sample_recording
    from runtime_checks.check import check

    def partly(call: Any) -> Any:
        raise call.unsupported("a form of its own")

    monkeypatch.setitem(all_operators(), "linear", partly)
    result = check(
        [exported["fp32"]],
        spec=zoo_model.spec,
        reference=zoo_model.module,
        compressed=Exporter(zoo_model).compressed,
        recordings=[load_recording(sample_recording()[0], sample_rate_hz=16000)],
        hop_s=30.0,
    )
    assert result.verdict is Verdict.NOT_RUN
    (summary,) = result.summaries
    assert summary.reason and "no linear with a form of its own" in summary.reason


def test_an_operation_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'conv' is registered twice"):
        operator("conv")(lambda call: call.tensor())


def test_a_value_that_has_not_the_declared_shape_is_an_error(
    exported: dict[str, tuple[Artifact, Path]],
) -> None:
    evaluator = Evaluator(load_program(exported["fp32"][1]))
    with pytest.raises(EvaluationError, match=r"waveform has shape \(1, 1, 100\)"):
        evaluator.run({"waveform": np.zeros((1, 1, 100), np.float32)})
    with pytest.raises(EvaluationError, match="the input waveform is missing"):
        evaluator.run({})


def test_in_float64_a_package_is_the_exported_model(
    exported: dict[str, tuple[Artifact, Path]],
    zoo_canonical: nn.Module,
    speech: NDArray[np.float32],
) -> None:
    artifact, path = exported["fp32"]
    module = double(apply_rewrites(zoo_canonical, artifact.rewrites))
    evaluator = Evaluator(load_program(path), mode=Mode.EXACT)
    for window in speech[:, None, None]:
        found: Any = evaluator.run({"waveform": window})["scores"]
        with torch.inference_mode():
            expected = module(torch.from_numpy(window).double()).numpy()
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_adding_up_in_fp16_is_worse_than_rounding_and_still_bounded(
    exported: dict[str, tuple[Artifact, Path]], speech: NDArray[np.float32]
) -> None:
    program, given = load_program(exported["fp16"][1]), {"waveform": speech[0][None, None]}
    outputs: Any = {m: Evaluator(program, mode=m).run(given)["scores"] for m in Mode}
    rounding = np.abs(outputs[Mode.DECLARED] - outputs[Mode.EXACT]).max()
    stepwise = np.abs(outputs[Mode.SEQUENTIAL] - outputs[Mode.EXACT]).max()
    assert 1e-5 < rounding < stepwise < 5e-3


@pytest.mark.parametrize(
    "options", [{"dynamic_length": True}, {"lengths_samples": [40000, 80000]}], ids=str
)
def test_a_free_length_is_declared_free_and_taken(
    options: dict[str, Any],
    zoo_model: LoadedModel,
    speech: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    recipe = RECIPES["coreml_mlprogram/fp32"].model_copy(update={"options": options})
    artifact = Exporter(zoo_model).export(recipe, tmp_path)
    runner: Any = RUNNERS["coreml_mlprogram"].open(
        tmp_path / artifact.path, zoo_model.spec, threads=1
    )
    assert [each.shape for each in runner.inputs] == [(1, 1, None)]
    assert [each.shape for each in runner.outputs] == [(1, None, 3)]
    shapes = [
        runner.run({"waveform": speech[:1, None, :n]})["scores"].shape for n in (80000, 40000)
    ]
    assert shapes == [(1, 293, 3), (1, 145, 3)]


def test_layers_are_found_in_the_package(
    exported: dict[str, tuple[Artifact, Path]],
    zoo_model: LoadedModel,
    zoo_canonical: nn.Module,
    speech: NDArray[np.float32],
) -> None:
    from runtime_checks.parity.reference import layer_outputs

    artifact, path = exported["fp32"]
    runner: Any = RUNNERS["coreml_mlprogram"].open(path, zoo_model.spec, threads=1)
    module = double(apply_rewrites(zoo_canonical, artifact.rewrites))
    layers = layer_outputs(module, torch.from_numpy(speech[0])[None, None].double())
    names = [name for name in layers if name != "activation"]
    found = runner.taps({"waveform": speech[0][None, None]}, names)
    assert set(found) == set(names)
    for name in names:
        scale = np.abs(layers[name]).max()
        np.testing.assert_allclose(found[name], layers[name], rtol=0, atol=1e-4 * scale)


def test_a_runtime_is_compared_with_the_evaluator(
    exported: dict[str, tuple[Artifact, Path]], speech: NDArray[np.float32]
) -> None:
    """On a Mac the runtime is Core ML; here it is the evaluator, adding up in another way."""
    _, path = exported["fp16"]
    one, other = (
        EvaluatedRunner(path, declared=declared_tensors(path), threads=1, mode=mode)
        for mode in (Mode.DECLARED, Mode.EXACT)
    )
    both = ConfirmingRunner(one, other)
    given = {"waveform": speech[0][None, None]}
    assert both.notes() == ()
    np.testing.assert_array_equal(both.run(given)["scores"], one.run(given)["scores"])
    assert isinstance(both, Noting)
    (note,) = both.notes()
    distance = np.abs(one.run(given)["scores"] - other.run(given)["scores"]).max()
    assert note == f"Core ML and the evaluator differ by at most {distance:.2g} on 1 windows"
