"""`diarport diarize`, and bundles that carry a pipeline, as a user meets them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from export.bundle import verify_bundle
from export.checkpoint import save_model
from export.cli.app import app
from export.errors import BundleError
from export.models.base import MODELS
from export.pyannote_import import sample_recording
from export.types import PipelineParameters
from runtime_checks.diarize.goldens import read_pipeline_goldens
from runtime_checks.rttm import read_rttm

DIARPORT = [sys.executable, "-m", "export.cli.app"]


Command = Callable[..., tuple[int, str]]


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own."""
    command = [*DIARPORT, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, check=False, **options)


@pytest.fixture
def nothing_piped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty standard input, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained encoder with parameters beside it: whose voice is whose it cannot tell."""
    folder = tmp_path_factory.mktemp("models") / "tiny-voice"
    torch.manual_seed(0)
    architecture = MODELS["Ge2eEncoder"]
    config = architecture.tiny_config() | {"frames": {"window_s": 5.0}}
    module = architecture.build(config)
    spec = architecture.spec(module, name="tiny-voice", licence="MIT", trained_on="nothing")
    save_model(folder, module, spec, source="a test")
    parameters = PipelineParameters(delta_new=0.05, latency_s=2.0)
    (folder / "pipeline.json").write_text(parameters.to_json())
    return folder


@pytest.fixture(scope="module")
def bundle(embedding: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "bundle"
    ran = run(
        "build", "sinc-1bi-voices", "--embedding", embedding, "-b", "onnx_ort",
        "--runs", "0", "--out", out, "-q",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr.decode()
    return out


def test_a_bundle_carries_both_models_their_parameters_and_goldens(
    bundle: Path, embedding: Path
) -> None:
    content = verify_bundle(bundle).content
    assert content.pipeline is not None
    inner = verify_bundle(bundle / content.pipeline.embedding_path)
    assert inner.content.spec.name == "tiny-voice"
    assert inner.content_sha256 == content.pipeline.embedding_content_sha256
    assert content.pipeline.parameters.delta_new == 0.05
    said, arrays = read_pipeline_goldens(bundle / content.pipeline.goldens_path)
    assert arrays["scores"].shape == (60, 293, 3)
    assert arrays["embeddings"].shape == (60, 3, 8)
    assert len(said["online"]["assignments"]) == 60
    assert said["whole_file"]["turns"]


def test_an_embedding_that_is_another_is_noticed(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    golden = copy / "pipeline" / "scores.f32"
    golden.write_bytes(golden.read_bytes()[:-4] + b"\0\0\0\1")
    card = copy / "embedding" / "MODEL_CARD.md"
    card.write_text(card.read_text() + "changed")
    with pytest.raises(BundleError) as error:
        verify_bundle(copy)
    assert "pipeline/scores.f32: hash" in str(error.value) or "embedding" in str(error.value)


def test_the_pipeline_decides_as_pytorch_does(bundle: Path, embedding: Path) -> None:
    ask = ["check", str(bundle), "--pipeline", "--embedding", str(embedding), "--json"]
    ran = CliRunner().invoke(app, ask)
    assert ran.exit_code == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["verdict"] == "PASS"
    assert [row["mode"] for row in said["der"]] == ["online", "whole file"]
    assert all(row["between"] < 0.1 and row["limit"] == 0.1 for row in said["der"])
    assert {row["part"] for row in said["latency"]} == {
        "hop",
        "segmentation",
        "embedding",
        "clustering",
    }
    assert set(said["goldens_differing"].values()) == {0.0}


def test_a_file_whole(bundle: Path, tmp_path: Path) -> None:
    audio, _ = sample_recording()
    rttm, lines, picture = (tmp_path / f"out.{end}" for end in ("rttm", "jsonl", "svg"))
    outputs: list[str | Path] = ["--rttm", rttm, "--json", lines, "--plot", picture]
    ran = run("diarize", audio, "--bundle", bundle, "--speakers", "2", *outputs)
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stdout == b""
    turns = read_rttm(rttm)["sample"]
    assert {turn.speaker for turn in turns} == {"speaker1", "speaker2"}
    assert len(lines.read_text().splitlines()) == len(turns)
    assert picture.read_text().count("<rect") == len(turns) + 1
    assert b"2 speakers in 30.0 s of audio" in ran.stderr


def test_a_pipe_online_says_what_the_file_says(bundle: Path, tmp_path: Path) -> None:
    audio, _ = sample_recording()
    lines = tmp_path / "hops.jsonl"
    ask = ["--bundle", str(bundle), "--online", "--latency-s", "1", "--rttm", "-"]
    filed = run("diarize", audio, *ask, "--json", lines)
    piped = run("diarize", "-", *ask, input=audio.read_bytes())
    assert filed.returncode == piped.returncode == 0, piped.stderr.decode()
    assert filed.stdout.replace(b" sample ", b" stdin ") == piped.stdout
    hops = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [hop["until_s"] for hop in hops[:4]] == [0.0, 0.5, 1.0, 1.5]
    assert hops[-1]["until_s"] == 30.0
    assert all(hop["segmentation_ms"] > 0 for hop in hops[:-1])


def test_what_was_decided_before_a_pipe_broke_off_is_written(bundle: Path) -> None:
    audio, _ = sample_recording()
    samples, rate = soundfile.read(audio, dtype="float32")
    samples[20 * rate] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    ran = run("diarize", "-", "--bundle", bundle, "--online", input=file.getvalue())
    assert ran.returncode == 2
    assert b"NaN or infinite at 20.00 s" in ran.stderr
    fields = [line.split() for line in ran.stdout.decode().splitlines()]
    assert 18.5 < max(float(each[3]) + float(each[4]) for each in fields) <= 20.0


def test_a_pipe_that_stalls_has_said_what_was_decided(bundle: Path, tmp_path: Path) -> None:
    audio, _ = sample_recording()
    data, lines = audio.read_bytes(), tmp_path / "hops.jsonl"
    arguments = ["diarize", "-", "--bundle", str(bundle), "--online", "--latency-s", "1"]
    with subprocess.Popen(
        [*DIARPORT, *arguments, "--json", str(lines), "-q"], stdin=subprocess.PIPE
    ) as ran:
        assert ran.stdin is not None
        ran.stdin.write(data[: len(data) // 2])
        ran.stdin.flush()
        deadline = time.monotonic() + 120
        # Of 15 s, all but what the pipe's block and the latency hold back.
        while time.monotonic() < deadline and (decided := _decided(lines)) < 12.0:
            assert ran.poll() is None
            time.sleep(0.2)
        assert 12.0 <= decided < 15.0
        ran.stdin.write(data[len(data) // 2 :])
        ran.stdin.close()
        assert ran.wait(timeout=120) == 0
    assert _decided(lines) == 30.0


def _decided(lines: Path) -> float:
    """Up to when the lines written so far decide."""
    text = lines.read_text() if lines.is_file() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return float(json.loads(whole[-1])["until_s"]) if whole else 0.0


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_silence_is_nobody(bundle: Path, tmp_path: Path, seconds: float) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(round(16000 * seconds)), 16000)
    ran = CliRunner().invoke(
        app, ["diarize", str(tmp_path / "silence.wav"), "--bundle", str(bundle)]
    )
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == ""
    assert "0 speakers in" in ran.stderr


@pytest.mark.usefixtures("nothing_piped")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.wav"], "no such file"),
        (["-"], "nothing; expected a WAV"),
        (["-", "--online", "--speakers", "2"], "a number that is given, online"),
        (["-", "--latency-s", "9"], "expected from a hop to a window of 5 s"),
        (["-", "--plot", "picture.gif"], "a name that ends .svg"),
        (["-", "--rttm", "nowhere/out.rttm"], "no such folder"),
        (["-", "--recipe", "int7"], "no artifact of int7"),
    ],
)
def test_what_cannot_be_is_said(
    diarport: Command, bundle: Path, arguments: list[str], said: str
) -> None:
    code, told = diarport("diarize", *arguments, "--bundle", bundle)
    assert code == 2
    assert said in told


@pytest.mark.usefixtures("nothing_piped")
def test_a_bundle_of_one_model_is_no_pipeline(diarport: Command, bundle: Path) -> None:
    code, told = diarport("diarize", "-", "--bundle", bundle / "embedding")
    assert code == 2
    assert "a bundle without an embedding model" in told


def test_two_models_without_a_bundle(
    embedding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, _ = sample_recording()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ask = ["diarize", str(audio), "--embedding", str(embedding), "--speakers", "1", "-q"]
    first = CliRunner().invoke(app, ask)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("diarport/*/*")}
    second = CliRunner().invoke(app, ask)
    assert first.exit_code == 0, first.stderr
    assert first.stdout == second.stdout
    assert "speaker1" in first.stdout
    assert sorted(path.name for path in kept) == ["artifact.json", "artifact.json",
                    "embedding.fp32.onnx", "segmentation.fp32.onnx"]  # fmt: skip
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
