"""A whole check: real files of the shipped model on real audio."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.audio import Recording, cut_windows, load_recording
from export.backends.base import BACKENDS, RECIPES
from export.bundle import hash_path
from export.checkpoint import LoadedModel
from export.compress.base import compress_for
from export.errors import AudioError, RecipeError
from export.models.base import MODELS
from export.pyannote_import import sample_recording
from export.rewrites.base import apply_rewrites
from export.types import RUNGS, Artifact, ParityReport, Precision, Role, Verdict
from runtime_checks.check import CheckResult, check
from runtime_checks.der import DerSettings
from runtime_checks.parity.reference import evaluate


def export(
    network: nn.Module, model: LoadedModel, path: Path, recipe: str = "fp32"
) -> tuple[Artifact, Path]:
    backend = BACKENDS["onnx_ort"]
    chosen = RECIPES[f"onnx_ort/{recipe}"]
    stats = backend.export(apply_rewrites(network, backend.rewrites), model.spec, chosen, path)
    artifact = Artifact(
        path=path.name,
        sha256=hash_path(path),
        size_bytes=path.stat().st_size,
        recipe=chosen,
        rewrites=backend.rewrites,
        dynamic_length=False,
        tool_versions=backend.tool_versions(),
        graph_stats=stats,
    )
    return artifact, path


@pytest.fixture(scope="module")
def sample() -> Recording:
    return load_recording(sample_recording()[0], sample_rate_hz=16000)


@pytest.fixture(scope="module")
def fp32(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Path]:
    return export(zoo_canonical, zoo_model, tmp_path_factory.mktemp("check") / "fp32.onnx")


def elsewhere(artifact: Artifact, backend: str) -> Artifact:
    """The same artifact, said to be of another backend."""
    recipe = artifact.recipe.model_copy(update={"backend": backend})
    return artifact.model_copy(update={"path": f"{backend}.file", "recipe": recipe})


@pytest.fixture(scope="module")
def result(
    zoo_model: LoadedModel,
    zoo_canonical: nn.Module,
    fp32: tuple[Artifact, Path],
    sample: Recording,
    tmp_path_factory: pytest.TempPathFactory,
) -> CheckResult:
    """fp32, fp16, and artifacts that cannot run here; with audio that no reference covers."""
    half = compress_for(RECIPES["onnx_ort/fp16"], zoo_canonical)
    fp16 = export(half, zoo_model, tmp_path_factory.mktemp("half") / "fp16.onnx", "fp16")
    other = Recording("other", sample.path, sample.samples[:96000], 16000, ("mixed down",))
    return check(
        [
            fp32,
            fp16,
            (elsewhere(fp32[0], "tomorrow"), fp32[1]),
        ],
        spec=zoo_model.spec,
        reference=zoo_model.module,
        compressed=lambda recipe: compress_for(recipe, zoo_canonical),
        recordings=[sample, other],
        rttm=sample_recording()[1],
    )


def find(result: CheckResult, path: str, against: str) -> ParityReport:
    (found,) = (r for r in result.reports if r.artifact_path == path and r.against == against)
    return found


def test_two_reports_and_one_summary_each(result: CheckResult) -> None:
    assert [r.against for r in result.reports] == ["compressed", "float"] * 3
    assert [s.artifact_path for s in result.summaries] == [
        "fp32.onnx",
        "fp16.onnx",
        "tomorrow.file",
    ]


def test_stored_halves_are_held_to_fp32_by_their_own_model_and_to_fp16_by_the_float_one(
    result: CheckResult,
) -> None:
    compressed, total = (find(result, "fp16.onnx", to) for to in ("compressed", "float"))
    assert (compressed.tolerance, total.tolerance) == (Precision.FP32, Precision.FP16)
    assert compressed.verdict is total.verdict is Verdict.PASS
    drift, loss = (
        next(m.value for m in r.rungs[2].metrics if m.name == "largest_max_abs")
        for r in (compressed, total)
    )
    assert drift < 1e-4 < loss < 2e-2


def test_what_cannot_run_here_is_no_pass(result: CheckResult) -> None:
    for against in ("compressed", "float"):
        report = find(result, "tomorrow.file", against)
        assert report.verdict is Verdict.NOT_RUN
        assert {rung.verdict for rung in report.rungs} == {Verdict.NOT_RUN}
        assert len(report.rungs) == len(RUNGS[Role.SEGMENTATION])
        assert report.reason and "no runner" in report.reason
    summary = next(s for s in result.summaries if s.artifact_path == "tomorrow.file")
    assert summary.verdict is Verdict.NOT_RUN and summary.reason
    assert result.verdict is Verdict.NOT_RUN


def test_windows_cover_all_audio_and_der_only_what_the_reference_covers(
    result: CheckResult,
) -> None:
    assert result.num_speech_windows == 11 + 2
    assert len(result.noise_floors) == result.num_speech_windows + 7
    assert 0 < max(result.noise_floors.values()) < 1e-2
    assert result.reference_der is not None
    assert 20 < result.reference_der.pooled < 50
    assert result.reference_der.num_windows <= 11
    assert result.notes == (
        "other: mixed down",
        "the reference says nothing about other: used for parity only, not for DER",
    )


def test_every_recording_has_a_timeline(result: CheckResult) -> None:
    sample, other = result.timelines
    assert sample.has_reference and not other.has_reference
    assert [row.source for row in sample.rows] == [
        "reference",
        "pytorch",
        "fp32.onnx",
        "fp16.onnx",
    ]
    assert [row.source for row in other.rows] == ["pytorch", "fp32.onnx", "fp16.onnx"]
    assert len(sample.rows[1].turns) > 5
    assert sample.rows[1].turns == sample.rows[2].turns
    assert {turn.speaker for turn in sample.rows[1].turns} >= {"speaker90", "speaker91"}


def run(
    artifacts: list[tuple[Artifact, Path]],
    model: LoadedModel,
    canonical: nn.Module,
    sample: Recording,
    **options: object,
) -> CheckResult:
    given: dict[str, object] = {
        "compressed": lambda recipe: canonical,
        "recordings": [sample],
        "hop_s": 5.0,
    }
    return check(
        artifacts,
        spec=model.spec,
        reference=model.module,
        **(given | options),  # type: ignore[arg-type]
    )


def test_without_a_reference_der_does_not_run_and_parity_still_passes(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, fp32: tuple[Artifact, Path], sample: Recording
) -> None:
    result = run([fp32], zoo_model, zoo_canonical, sample)
    assert result.reference_der is None
    assert result.reports[0].rungs[-1].verdict is Verdict.NOT_RUN
    assert result.verdict is Verdict.PASS
    assert any("no reference" in note for note in result.notes)


def test_limits_and_der_settings_are_the_users_and_are_told(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, fp32: tuple[Artifact, Path], sample: Recording
) -> None:
    result = run(
        [fp32],
        zoo_model,
        zoo_canonical,
        sample,
        limits={"max_abs": 0.0, "noise_factor": 0.0},
        rttm=sample_recording()[1],
        der_settings=DerSettings(collar_s=0.25),
    )
    report = result.reports[0]
    assert report.verdict is Verdict.FAIL
    assert report.reason and "limits changed from fp32: max_abs 0.0001 -> 0.0" in report.reason
    assert (report.rungs[-1].reason or "").startswith("collar 0.25 s, overlapped speech scored; ")
    assert result.reference_der is not None and result.reference_der.collar_s == 0.25


def test_what_compression_loses_is_told_from_what_the_export_loses(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, sample: Recording, tmp_path: Path
) -> None:
    smaller = copy.deepcopy(zoo_canonical)
    torch.manual_seed(0)
    for parameter in smaller.get_submodule("recurrent.0").parameters():
        parameter.data *= 1 + 0.2 * torch.randn_like(parameter)
    artifact = export(smaller, zoo_model, tmp_path / "smaller.onnx")
    result = run([artifact], zoo_model, smaller, sample)
    compressed, total = result.reports
    assert compressed.verdict is Verdict.PASS
    assert total.verdict is Verdict.FAIL
    assert total.first_diverging_layer == "recurrent.0"
    assert total.reason and "compression: recurrent.0 is off" in total.reason
    assert result.summaries[0].reason and result.summaries[0].reason.startswith("against float")


def test_a_powerset_model_is_checked_too(tmp_path: Path, sample: Recording) -> None:
    torch.manual_seed(0)
    entry = MODELS["PyanNet"]
    config = entry.tiny_config()
    config["specifications"] |= {"powerset_max_classes": 2}
    module = entry.build(config)
    spec = entry.spec(module, name="tiny", licence="MIT", trained_on="nothing")
    assert spec.outputs[0].shape[-1] == 7
    model = LoadedModel(module, spec, "tiny", "0" * 64, "", "")
    canonical = entry.canonical(module)
    artifact = export(canonical, model, tmp_path / "powerset.onnx")
    result = run([artifact], model, canonical, sample, rttm=sample_recording()[1])
    assert result.verdict is Verdict.PASS, result.summaries[0].reason
    assert result.reference_der is not None


def test_equal_weights_are_evaluated_once(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, fp32: tuple[Artifact, Path], sample: Recording
) -> None:
    stages: list[str] = []
    run(
        [fp32, fp32],
        zoo_model,
        zoo_canonical,
        sample,
        progress=lambda stage, done, total: stages.append(stage),
    )
    windows = 6 + 7  # the sample is 30 s long
    assert stages.count("PyTorch") == windows
    assert stages.count("PyTorch, as exported") == 0
    assert stages.count("fp32.onnx") == 2 * windows


def test_parallel_windows_give_what_one_after_the_other_gives(
    zoo_model: LoadedModel, sample: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = cut_windows(sample, zoo_model.spec.geometry, hop_s=5.0)
    together = evaluate(zoo_model.module, windows, spec=zoo_model.spec)
    monkeypatch.setattr("runtime_checks.parity.reference.MAX_WORKERS", 1)
    alone = evaluate(zoo_model.module, windows, spec=zoo_model.spec)
    assert together.noise_floors == alone.noise_floors
    assert np.array_equal(together.float64, alone.float64)


def test_bad_input_is_told_before_anything_takes_time(
    zoo_model: LoadedModel,
    zoo_canonical: nn.Module,
    fp32: tuple[Artifact, Path],
    sample: Recording,
    tmp_path: Path,
) -> None:
    with pytest.raises(AudioError, match="no recordings"):
        run([fp32], zoo_model, zoo_canonical, sample, recordings=[])
    with pytest.raises(AudioError, match="hop"):
        run([fp32], zoo_model, zoo_canonical, sample, hop_s=0.0)
    with pytest.raises(RecipeError, match="max_abs_score"):
        run([fp32], zoo_model, zoo_canonical, sample, limits={"max_abs_score": 1})
    with pytest.raises(AudioError, match="sample without audio of that name"):
        stranger = Recording("stranger", sample.path, sample.samples, 16000, ())
        run([fp32], zoo_model, zoo_canonical, stranger, rttm=sample_recording()[1])
    uem = tmp_path / "beginning.uem"
    uem.write_text("sample 1 0.0 5.0\n")
    with pytest.raises(AudioError, match="no speech where it is scored"):
        run([fp32], zoo_model, zoo_canonical, sample, rttm=sample_recording()[1], uem=uem)
