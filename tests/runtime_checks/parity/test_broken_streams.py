"""Stateful artifacts that were broken on purpose: the ladder must find each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from export.audio import load_recording
from export.backends.base import BACKENDS
from export.bundle import hash_path
from export.checkpoint import LoadedModel, load_model
from export.pipeline import Exporter, plan
from export.pyannote_import import sample_recording
from export.rewrites.base import apply_rewrites
from export.rewrites.streaming import StreamingNet, streaming_form
from export.types import Artifact, ParityReport, RungName, StreamSpec, TensorSpec, Verdict
from runtime_checks.check import CheckResult, check

BACKEND = "onnx_ort"


class SwappedStates(StreamingNet):
    """Gives the cell states where the hidden ones belong."""

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        scores, tail, norm, h, c = super().forward(*given)
        return scores, tail, norm, c, h


class ForgetfulNorm(StreamingNet):
    """Begins its mean and deviation anew with every hop."""

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        waveform, tail, norm, h, c = given
        scores, tail, after, h, c = super().forward(waveform, tail, norm * 0, h, c)
        return scores, tail, after + norm * 0, h, c


class LateTail(StreamingNet):
    """Keeps as many samples as it should, but those of a frame before."""

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        waveform, tail, *_ = given
        scores, _, *others = super().forward(*given)
        late = waveform[:, :, -tail.shape[2] - 270 : -270]
        return scores, late, *others


class ShortTail(StreamingNet):
    """Keeps a frame's step too few."""

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        waveform, tail, *others = given
        longer = torch.cat([tail, waveform[:, :, :270]], dim=2)
        outputs = super().forward(waveform, longer, *others)
        return outputs[0], outputs[1][:, :, 270:], *outputs[2:]


BROKEN: dict[str, type[StreamingNet]] = {
    "swapped": SwappedStates,
    "forgetful": ForgetfulNorm,
    "late": LateTail,
    "short": ShortTail,
}


def shorter(stream: StreamSpec) -> StreamSpec:
    def cut(tensor: TensorSpec) -> TensorSpec:
        if not tensor.name.startswith("tail"):
            return tensor
        return tensor.model_copy(update={"shape": (1, 1, stream.lead_samples - 270)})

    return stream.model_copy(
        update={
            "lead_samples": stream.lead_samples - 270,
            "inputs": tuple(cut(t) for t in stream.inputs),
            "outputs": tuple(cut(t) for t in stream.outputs),
        }
    )


def broken(
    name: str, intact: Artifact, exporter: Exporter, folder: Path, *, told: bool = False
) -> tuple[Artifact, Path]:
    """An artifact with a fault; `told` says it in the manifest too."""
    spec, backend = exporter.model.spec, BACKENDS[BACKEND]
    form, stream = streaming_form(exporter.canonical, spec, hop_s=0.5)
    form.__class__ = BROKEN[name]
    stream = shorter(stream) if name == "short" else stream
    path = folder / f"{name}{'-told' if told else ''}.onnx"
    module = apply_rewrites(form, backend.rewrites)
    backend.export(module, stream.contract(spec), intact.recipe, path)
    said = stream if told else intact.stream
    changes = {"path": path.name, "sha256": hash_path(path), "stream": said}
    return intact.model_copy(update=changes), path


@pytest.fixture(scope="module")
def student() -> LoadedModel:
    return load_model("mfcc80-1uni")


@pytest.fixture(scope="module")
def checked(student: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> CheckResult:
    folder, exporter = tmp_path_factory.mktemp("streams"), Exporter(student)
    (_, recipe) = plan(student, backends=[BACKEND], recipes=[], streaming_hop_s=0.5).recipes
    intact = exporter.export(recipe, folder)
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    short = replace(recording, samples=np.ascontiguousarray(recording.samples[80000:200000]))
    return check(
        [
            (intact, folder / intact.path),
            *(broken(name, intact, exporter, folder) for name in BROKEN),
            broken("short", intact, exporter, folder, told=True),
        ],
        spec=student.spec,
        reference=student.module,
        compressed=exporter.compressed,
        recordings=[short],
    )


Judge = Callable[[str], dict[RungName, Verdict]]


@pytest.fixture
def rungs(checked: CheckResult) -> Judge:
    def of(path: str) -> dict[RungName, Verdict]:
        report = report_of(checked, path)
        return {rung.name: rung.verdict for rung in report.rungs}

    return of


def report_of(checked: CheckResult, path: str) -> ParityReport:
    return next(
        each
        for each in checked.reports
        if each.artifact_path == path and each.against == "compressed"
    )


def test_the_intact_one_passes_on_every_frame_to_1e_4(checked: CheckResult) -> None:
    (first, *others) = checked.summaries
    assert first.verdict is Verdict.PASS, first.reason
    assert {each.verdict for each in others} == {Verdict.FAIL}
    report = report_of(checked, first.artifact_path)
    scores = next(rung for rung in report.rungs if rung.name is RungName.SCORES)
    found = {metric.name: metric.value for metric in scores.metrics}
    assert found["largest_max_abs"] < 1e-4
    assert found["windows_not_judged"] == 0
    assert any("its norm runs along with the stream" in note for note in checked.notes)


@pytest.mark.parametrize("name", ["swapped", "forgetful", "late"])
def test_states_that_are_wrong_fail_on_the_scores(name: str, rungs: Judge) -> None:
    found = rungs(f"{name}.onnx")
    assert found[RungName.CONTRACT] is Verdict.PASS
    assert found[RungName.SCORES] is Verdict.FAIL


def test_a_tail_of_another_length_breaks_the_contract(checked: CheckResult, rungs: Judge) -> None:
    assert rungs("short.onnx")[RungName.CONTRACT] is Verdict.FAIL
    assert "tail0 has shape (1, 1, 540), expected (1, 1, 810)" in (
        report_of(checked, "short.onnx").reason or ""
    )


def test_a_manifest_that_tells_of_the_wrong_tail_is_found_too(
    checked: CheckResult, rungs: Judge
) -> None:
    assert rungs("short-told.onnx")[RungName.CONTRACT] is Verdict.FAIL
    assert "hop, lead or states are not those of the model" in (
        report_of(checked, "short-told.onnx").reason or ""
    )
