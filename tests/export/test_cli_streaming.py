"""Stateful artifacts as a user meets them: built, checked, timed, and heard with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch

from export.audio import load_recording
from export.bundle import verify_bundle
from export.checkpoint import load_model, save_model
from export.models.base import MODELS
from export.pyannote_import import sample_recording
from export.types import PipelineParameters, Verdict
from runtime_checks.timing.contenders import time_artifacts

Diarport = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained encoder: whose voice is whose it cannot tell."""
    folder = tmp_path_factory.mktemp("models") / "tiny-voice"
    torch.manual_seed(0)
    architecture = MODELS["Ge2eEncoder"]
    module = architecture.build(architecture.tiny_config() | {"frames": {"window_s": 5.0}})
    spec = architecture.spec(module, name="tiny-voice", licence="MIT", trained_on="nothing")
    save_model(folder, module, spec, source="a test")
    (folder / "pipeline.json").write_text(PipelineParameters(latency_s=2.0).to_json())
    return folder


@pytest.fixture(scope="module")
def bundle(embedding: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from export.cli.building import BuildRequest, run_build
    from export.progress import silent
    from runtime_checks.der import DerSettings

    out = tmp_path_factory.mktemp("built") / "bundle"
    samples, rate = soundfile.read(sample_recording()[0], frames=8 * 16000)
    soundfile.write(out.with_name("short.wav"), samples, rate)
    request = BuildRequest(
        model="mfcc80-1uni",
        out=out,
        audio=[out.with_name("short.wav")],
        rttm=None,
        uem=None,
        backends=["onnx_ort"],
        recipes=[],
        window_s=None,
        hop_s=None,
        dynamic_length=False,
        allow=[],
        limits={},
        der_settings=DerSettings(),
        runs=0,
        streaming_hop_s=0.5,
        embedding=str(embedding),
    )
    assert run_build(request, silent).verdict is Verdict.PASS
    return out


def test_a_bundle_holds_both_forms_and_says_what_the_stateful_one_takes(bundle: Path) -> None:
    content = verify_bundle(bundle).content
    windowed, stateful = content.artifacts
    assert (windowed.path, windowed.stream) == ("segmentation.fp32.onnx", None)
    assert stateful.path == "segmentation.fp32.streaming.onnx"
    assert stateful.stream is not None
    assert stateful.stream.hop_samples == 7830
    assert [each.verdict for each in content.parity] == [Verdict.PASS] * 2
    assert content.pipeline is not None
    inner = verify_bundle(bundle / content.pipeline.embedding_path)
    assert [each.stream for each in inner.content.artifacts] == [None]


def test_online_a_hop_scores_its_own_audio(
    bundle: Path, diarport: Diarport, tmp_path: Path
) -> None:
    lines = tmp_path / "hops.jsonl"
    audio = sample_recording()[0]
    code, said = diarport("diarize", audio, "--bundle", bundle, "--online", "--json", lines)
    assert code == 0, said
    assert "segmentation from hop to hop (segmentation.fp32.streaming.onnx)" in said
    hops = [json.loads(line) for line in lines.read_text().splitlines()]
    heard = [hop["heard_s"] for hop in hops]
    assert heard[0] == pytest.approx(8640 / 16000)
    assert heard[1] - heard[0] == pytest.approx(7830 / 16000, abs=1e-4)
    assert heard[-1] == pytest.approx(30.0, abs=1e-3)
    assert any(hop["speaking"] for hop in hops)
    said_twice = diarport("diarize", audio, "--bundle", bundle, "--online", "--json", lines)
    again = [json.loads(line) for line in lines.read_text().splitlines()]
    assert said_twice[0] == 0
    assert [hop["speaking"] for hop in again] == [hop["speaking"] for hop in hops]


def test_whole_windows_are_heard_where_they_are_asked_for(
    bundle: Path, diarport: Diarport, tmp_path: Path
) -> None:
    audio, lines = sample_recording()[0], tmp_path / "hops.jsonl"
    ask = ["diarize", audio, "--bundle", bundle, "--hop-s", "2"]
    code, said = diarport(*ask, "--online", "--windowed", "--json", lines)
    assert code == 0, said
    assert "from hop to hop" not in said
    assert json.loads(lines.read_text().splitlines()[0])["heard_s"] == 2.0
    code, said = diarport(*ask, "--online")
    assert code == 2
    assert "hop: 2 s; expected 0.489375 s" in said
    code, said = diarport(*ask, "--json", lines)
    assert code == 0, said
    assert "from hop to hop" not in said


def test_models_without_a_bundle_go_from_hop_to_hop_too(
    embedding: Path, diarport: Diarport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ask = ["diarize", sample_recording()[0], "--embedding", embedding, "--online"]
    code, said = diarport(*ask, "--segmentation", "mfcc80-1uni")
    assert code == 0, said
    assert "segmentation from hop to hop" in said
    assert len(list(tmp_path.glob("diarport/*/segmentation.fp32.streaming.onnx"))) == 1


def test_a_stateful_hop_is_timed_beside_the_window(bundle: Path) -> None:
    artifacts = [(each, bundle / each.path) for each in verify_bundle(bundle).content.artifacts]
    reports = time_artifacts(
        artifacts,
        model=load_model("mfcc80-1uni"),
        recordings=[load_recording(sample_recording()[0], sample_rate_hz=16000)],
        runs=5,
    )
    fastest = {each.candidate: min(each.samples_ms) for each in reports}
    assert fastest["segmentation.fp32.streaming.onnx"] < fastest["segmentation.fp32.onnx"] / 2
    assert {each.window_s for each in reports} == {5.0}
    assert not any(each.failures for each in reports)


def test_students_that_cannot_are_refused(diarport: Diarport, tmp_path: Path) -> None:
    for name, reason in (("sinc-1bi", "it looks ahead"), ("sinc-1uni", "SincNet normalises")):
        code, said = diarport("build", name, "--streaming", "--out", tmp_path / "out")
        assert code == 2
        assert reason in said
        assert "mfcc80-1uni" in said
    assert not list(tmp_path.iterdir())
