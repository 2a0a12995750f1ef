"""Bad input on the command line: each case gets its message and its exit code."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from export.bundle_place import MANIFEST
from export.checkpoint import LoadedModel, save_pyannote
from export.pyannote_import import sample_recording

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def checkpoint(zoo_model: LoadedModel, tmp_path: Path) -> Path:
    path = tmp_path / "pytorch_model.bin"
    save_pyannote(path, zoo_model.module)
    return path


def test_checkpoint_missing(diarport: Run) -> None:
    code, said = diarport("build", "nowhere.bin")
    assert code == 2
    assert "nowhere.bin: no such file or zoo model; expected a checkpoint" in said
    assert "sinc-1bi" in said


def test_checkpoint_truncated(diarport: Run, checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:100_000])
    code, said = diarport("build", checkpoint)
    assert code == 2
    assert f"{checkpoint}: not loadable" in said


def test_checkpoint_that_is_none(diarport: Run, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_text("hello")
    code, said = diarport("build", path)
    assert code == 2
    assert f"{path}: not loadable" in said


def test_checkpoint_of_unknown_architecture(diarport: Run, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=False)
    content["pyannote.audio"]["architecture"]["class"] = "TransformerNet"
    torch.save(content, checkpoint)
    code, said = diarport("build", checkpoint)
    assert code == 2
    assert "unknown architecture TransformerNet; expected one of" in said and "PyanNet" in said


def write_audio(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def test_audio_that_is_missing_or_none(diarport: Run, tmp_path: Path) -> None:
    assert diarport("build", "--audio", tmp_path / "no.wav") == (
        2,
        f"error: {tmp_path / 'no.wav'}: no such file or folder; expected audio",
    )
    (tmp_path / "text.wav").write_text("not audio at all")
    code, said = diarport("build", "--audio", tmp_path / "text.wav")
    assert code == 2
    assert "text.wav: not audio" in said


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0, np.float32), "no samples; expected a recording"),
        (np.array([0.0, np.nan, np.inf], np.float32), "2 samples are NaN or infinite"),
    ],
)
def test_audio_that_cannot_be_used(
    diarport: Run, tmp_path: Path, samples: np.ndarray, message: str
) -> None:
    path = write_audio(tmp_path / "bad.wav", samples)
    code, said = diarport("build", "--audio", path)
    assert code == 2
    assert f"bad.wav: {message}" in said


@pytest.mark.parametrize(
    ("rttm", "message"),
    [
        ("", "sample.rttm"),
        ("SPEAKER sample 1 one 2.0 <NA> <NA> a <NA> <NA>\n", "line 1"),
        ("SPEAKER elsewhere 1 1.0 2.0 <NA> <NA> a <NA> <NA>\n", "elsewhere"),
        ("SPEAKER sample 1 100.0 2.0 <NA> <NA> a <NA> <NA>\n", "sample.rttm"),
    ],
    ids=["empty", "malformed", "other audio", "after its end"],
)
def test_rttm_that_does_not_match(diarport: Run, tmp_path: Path, rttm: str, message: str) -> None:
    path = tmp_path / "sample.rttm"
    path.write_text(rttm)
    out = tmp_path / "bundle"
    arguments = ["--audio", sample_recording()[0], "--rttm", path, "--out", out]
    code, said = diarport("build", "--backend", "onnx_ort", *arguments)
    assert code == 2
    assert message in said
    assert not out.exists()


def test_a_reference_without_audio(diarport: Run) -> None:
    code, said = diarport("build", "--rttm", sample_recording()[1])
    assert code == 2
    assert "a reference without audio" in said


def test_recipes_that_do_not_exist_or_are_refused(diarport: Run) -> None:
    code, said = diarport("build", "--backend", "executorch_xnnpack", "--recipe", "fp16")
    assert code == 2
    assert "executorch_xnnpack/fp16: refused (XNNPACK computes" in said
    code, said = diarport("build", "--recipe", "int3")
    assert code == 2
    assert "int3: no such recipe" in said
    assert diarport("build", "--backend", "tflite")[0] == 2


def test_limits_that_do_not_exist(diarport: Run) -> None:
    code, said = diarport("build", "--limit", "max_abs")
    assert code == 2
    assert "--limit max_abs: not understood; expected NAME=NUMBER" in said
    code, said = diarport("build", "--backend", "onnx_ort", "--limit", "elegance=1")
    assert code == 2
    assert "elegance" in said


def test_windows_without_a_frame(diarport: Run) -> None:
    code, said = diarport("build", "--window-s", "0.01")
    assert code == 2
    assert "window" in said


def test_wrong_arguments(diarport: Run) -> None:
    assert diarport("build", "--no-such-option")[0] == 2
    assert diarport("bulid")[0] == 2
    assert diarport("check")[0] == 2


def make_bundle(folder: Path, manifest: str) -> Path:
    folder.mkdir()
    (folder / MANIFEST).write_text(manifest)
    return folder


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("verify", "no such directory"),
        ("check", "no such directory"),
        ("bench", "no such file or zoo model"),  # it takes models as well
    ],
)
def test_bundles_that_are_none(diarport: Run, tmp_path: Path, command: str, reason: str) -> None:
    code, said = diarport(command, tmp_path / "none")
    assert (code, reason in said) == (2, True)
    future = make_bundle(tmp_path / "future", json.dumps({"schema_version": 7}))
    code, said = diarport(command, future)
    assert (code, "schema version 7; expected schema version 1" in said) == (2, True)


def test_a_full_disk(tmp_path: Path) -> None:
    """The kernel refuses every file over 300 kB, as a full disk would; nothing is left behind."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    ran = subprocess.run(
        [sys.executable, "-m", "export.cli.app", "build", "--out", str(tmp_path / "bundle")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files,
    )
    assert ran.returncode == 2, ran.stderr
    assert "cannot be written" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []
