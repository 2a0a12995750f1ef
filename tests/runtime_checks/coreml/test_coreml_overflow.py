"""A package that overflows float16 on the ladder's windows is refused by the operation's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export.audio import Recording, load_recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel
from export.lowering import coreml_convert
from export.models.base import MODELS
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import Artifact, RungName, Verdict
from runtime_checks.check import CheckResult, check
from runtime_checks.coreml_mil.flags import numeric_flags

len(BACKENDS)  # recipes are registered by their backends
INT16 = 32768.0


@pytest.fixture(scope="module")
def exporter() -> Exporter:
    """An MFCC network: its powers of int16 samples are far beyond float16."""
    torch.manual_seed(0)
    entry = MODELS["MfccNet"]
    module = entry.build(entry.tiny_config())
    spec = entry.spec(module, name="mfcc", licence="MIT", trained_on="nothing")
    return Exporter(LoadedModel(module, spec, "mfcc", "0" * 64, "", ""))


@pytest.fixture(scope="module")
def loud() -> Recording:
    """Two seconds of speech in the range of int16."""
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    return replace(recording, samples=recording.samples[:32000] * INT16)


def checked(
    exporter: Exporter, recording: Recording, folder: Path
) -> tuple[Artifact, CheckResult, Path]:
    artifact = exporter.export(RECIPES["coreml_mlprogram/fp16"], folder)
    path = folder / artifact.path
    result = check(
        [(artifact, path)],
        spec=exporter.model.spec,
        reference=exporter.model.module,
        compressed=exporter.compressed,
        recordings=[recording],
    )
    return artifact, result, path


def test_mfccs_in_float32_stand_the_range_of_int16(
    exporter: Exporter, loud: Recording, tmp_path: Path
) -> None:
    _, result, path = checked(exporter, loud, tmp_path)
    assert result.verdict is Verdict.PASS
    flags = numeric_flags(path, [{"waveform": loud.samples[None, None, :16000]}])
    assert not [flag for flag in flags if flag.kind != "underflow"]


def test_a_program_wholly_in_float16_is_refused_and_names_where_it_overflows(
    exporter: Exporter, loud: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(module: Any, recipe: Any) -> Callable[[Any], bool]:
        return lambda operation: True

    monkeypatch.setattr(coreml_convert, "_behind", everything)
    artifact, result, path = checked(exporter, loud, tmp_path)
    assert set(artifact.graph_stats.stored) == {"float16"}
    flags = numeric_flags(path, [{"waveform": loud.samples[None, None, :16000]}])
    overflowing = [flag for flag in flags if flag.kind == "overflow"]
    assert overflowing[0].operator == "mul"  # the squares of the spectrum
    assert overflowing[0].largest > 65504
    assert result.verdict is Verdict.FAIL
    reason = result.summaries[0].reason or ""
    assert f"mul {overflowing[0].operation}: " in reason
    assert "values overflow float16" in reason
    rung = next(r for r in result.reports[0].rungs if r.name is RungName.CONTRACT)
    assert rung.verdict is Verdict.FAIL
