"""`diarport build`, `check` and `verify` as a user runs them, on real audio.

What is killed, and what must be the same twice, is a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper
from typer.testing import CliRunner

from export.bundle import content_sha256, hash_path, read_bundle, read_golden, verify_bundle
from export.cli.app import app
from export.errors import BackendUnavailableError
from export.pyannote_import import sample_recording
from runtime_checks.runners.base import RUNNERS

DIARPORT = [sys.executable, "-m", "export.cli.app"]
QUICK = ["--backend", "onnx_ort", "--runs", "3"]


def build(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A build in a process of its own."""
    command = [*DIARPORT, "build", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(*arguments: str | Path) -> Any:
    """A command in this process; errors are raised."""
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A quick bundle with an fp32 and an fp16 artifact, and what `build --json` said."""
    out = tmp_path_factory.mktemp("built") / "bundle"
    recipes = ["--recipe", "fp32", "--recipe", "fp16"]
    ran = run("build", *QUICK, *recipes, "--out", out, "--json")
    assert ran.exit_code == 0, ran.stderr
    return out, json.loads(ran.stdout)


def test_build_writes_a_bundle_that_verifies(built: tuple[Path, dict[str, Any]]) -> None:
    out, said = built
    bundle = verify_bundle(out)
    assert said["verdict"] == "PASS"
    assert said["content_sha256"] == bundle.content_sha256
    assert {a.path for a in bundle.content.artifacts} == {
        "segmentation.fp32.onnx",
        "segmentation.fp16.onnx",
    }
    assert {p.verdict.value for p in bundle.content.parity} == {"PASS"}
    assert "MIT License" in (out / "LICENSE").read_text()
    assert {entry.path for entry in bundle.evidence} == {
        "parity.json",
        "latency.json",
        "profile.json",
        "guard_rails.json",
        "report.html",
    }


def test_build_checked_every_rung_twice(built: tuple[Path, dict[str, Any]]) -> None:
    reports = built[1]["parity"]["reports"]
    assert len(reports) == 4
    for report in reports:
        verdicts = {rung["name"]: rung["verdict"] for rung in report["rungs"]}
        assert verdicts == dict.fromkeys(
            ("contract", "features", "scores", "decisions", "boundaries", "der"), "PASS"
        )


def test_goldens_are_what_the_network_gives(built: tuple[Path, dict[str, Any]]) -> None:
    out = built[0]
    content = read_bundle(out).content
    runner = RUNNERS["onnx_ort"].open(out / "segmentation.fp32.onnx", content.spec, threads=1)
    names = [golden.name for golden in content.goldens]
    assert sum(name.startswith("stress:") for name in names) == 7
    assert sum(name.startswith("sample@") for name in names) == 2
    for golden in content.goldens:
        inputs, expected = read_golden(out, golden)
        scores = runner.run({"waveform": inputs})["scores"]
        tolerance = max(1e-4, 1.5 * golden.noise_floor)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance)


def test_the_same_inputs_give_the_same_content_hash(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    recipes = ["--recipe", "fp32", "--recipe", "fp16"]
    ran = build(*QUICK, *recipes, "--out", tmp_path / "again", "--quiet")
    assert ran.returncode == 0, ran.stderr
    assert read_bundle(tmp_path / "again").content_sha256 == built[1]["content_sha256"]


def test_check_writes_junit_markdown_and_a_page_with_what_was_timed_at_build(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    junit, markdown, html = (tmp_path / f"parity.{suffix}" for suffix in ("xml", "md", "html"))
    written: list[str | Path] = ["--junit", junit, "--markdown", markdown, "--html", html]
    ran = run("check", built[0], *written, "--recipe", "fp32")
    assert ran.exit_code == 0, ran.stderr
    assert '<tr data-candidate="pytorch-eager">' in html.read_text()
    assert "segmentation.fp32.onnx" in junit.read_text()
    assert "segmentation.fp16.onnx" not in junit.read_text()
    assert "segmentation.fp32.onnx" in markdown.read_text()


def test_a_tightened_limit_fails_and_keeps_the_old_bundle(
    built: tuple[Path, dict[str, Any]],
) -> None:
    out, said = built
    limits = ["--limit", "max_abs=1e-9", "--limit", "noise_factor=0"]
    ran = run("build", *QUICK, "--out", out, *limits)
    assert ran.exit_code == 1
    assert "FAIL segmentation.fp32.onnx against float, scores: max_abs" in ran.stderr
    assert read_bundle(out).content_sha256 == said["content_sha256"]
    failed = verify_bundle(out.with_name("bundle.failed"))
    assert {p.verdict.value for p in failed.content.parity} == {"FAIL"}


def test_check_fails_on_a_manifested_artifact_of_other_weights(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Another model's file under the right name, its hash entered in the manifest."""

    forged = tmp_path / "forged"
    shutil.copytree(built[0], forged)
    path = forged / "segmentation.fp32.onnx"
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values[::-1].copy(), tensor.name))
    onnx.save(model, str(path))
    manifest = json.loads((forged / "bundle.json").read_text())
    for artifact in manifest["content"]["artifacts"]:
        artifact["sha256"] = hash_path(forged / artifact["path"])
    (forged / "bundle.json").write_text(json.dumps(manifest))
    manifest["content_sha256"] = content_sha256(read_bundle(forged).content)
    (forged / "bundle.json").write_text(json.dumps(manifest))
    ran = run("check", forged, "--recipe", "fp32")
    assert ran.exit_code == 1
    assert "FAIL segmentation.fp32.onnx against float, decisions" in ran.stderr
    assert "first diverging layer: frontend.conv1d.0" in ran.stderr


def test_a_named_backend_that_cannot_run_exits_with_3(
    built: tuple[Path, dict[str, Any]],
) -> None:
    if sys.platform == "darwin":
        pytest.skip("Core ML runs here")
    with pytest.raises(BackendUnavailableError, match="Core ML runs on macOS only") as error:
        run("check", built[0], "--backend", "coreml_native")
    assert "coreml_native: " in str(error.value) and error.value.exit_code == 3


def test_audio_that_the_reference_does_not_cover_is_for_parity_only(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    wav, rttm = sample_recording()
    samples, rate = soundfile.read(wav)
    soundfile.write(tmp_path / "sample.wav", samples, rate)
    soundfile.write(tmp_path / "other.wav", np.stack([samples, samples], 1)[: 44_100 * 6], 44_100)
    ran = run("check", built[0], "--audio", tmp_path, "--rttm", rttm, "--recipe", "fp32")
    assert ran.exit_code == 0, ran.stderr
    text = " ".join(ran.stderr.split())
    assert "the reference says nothing about other: used for parity only" in text
    assert "other.wav: mixed down from 2 channels" in text or "mixed down from 2" in text
    assert "resampled from 44100 Hz to 16000 Hz" in text


@pytest.mark.parametrize("reached", ["", "segmentation.fp32.onnx", "parity.json"])
def test_kill_leaves_the_old_bundle(
    built: tuple[Path, dict[str, Any]], reached: str, tmp_path: Path
) -> None:
    """Killed when the temporary directory, the artifact or the verdicts have just appeared."""
    out = tmp_path / "bundle"
    shutil.copytree(built[0], out)
    process = subprocess.Popen(
        [*DIARPORT, "build", *QUICK, "--out", str(out), "--quiet"], start_new_session=True
    )
    while process.poll() is None and not list(tmp_path.glob(f".bundle.tmp-*/{reached}")):
        time.sleep(0.002)
    assert process.poll() is None, f"the build ended before {reached} was seen"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.iterdir())) == 2
    assert verify_bundle(out).content_sha256 == built[1]["content_sha256"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_the_default_build_has_three_artifacts_and_passes(tmp_path: Path) -> None:
    ran = run("build", "--out", tmp_path / "bundle", "--json")
    assert ran.exit_code == 0, ran.stderr
    verdicts = {row["artifact"]: row["verdict"] for row in json.loads(ran.stdout)["artifacts"]}
    assert verdicts["segmentation.fp32.onnx"] == "PASS"
    assert verdicts["segmentation.fp32.pte"] == "PASS"
    assert set(verdicts) == {
        "segmentation.fp32.onnx",
        "segmentation.fp32.pte",
        "segmentation.fp32.mlpackage",
    }
