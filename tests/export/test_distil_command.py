"""`diarport distill` as it is typed: outcome, messages, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from export.checkpoint import LoadedModel, load_model
from export.cli.app import main
from export.cli.progress_lines import line_progress
from export.distil.data import load_training_audio
from export.distil.evaluate import measure_agreement
from export.distil.record import TrainingRecord
from export.pyannote_import import sample_recording


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr("sys.argv", ["diarport", "distill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Result(int(code or 0), *capsys.readouterr())

    return call


def test_a_run_writes_a_model_with_its_figures(
    run: Run, zoo_model: LoadedModel, tmp_path: Path
) -> None:
    audio, rttm = sample_recording()
    for index, name in enumerate(("anna", "bert")):
        (tmp_path / "speakers" / name).mkdir(parents=True)
        tone = 0.1 * np.sin(np.arange(32000) * 0.05 * (index + 1))
        soundfile.write(tmp_path / "speakers" / name / f"{name}.wav", tone, 16000)
    out = tmp_path / "student"
    result = run(
        *("--teacher", "sinc-1bi", "--student", "sinc-1uni", "--audio", audio),
        *("--simulate-from", tmp_path / "speakers", "--validation-audio", audio),
        *("--validation-rttm", rttm, "--test-audio", audio, "--steps", "2", "--batch-size", "2"),
        *("--pool-windows", "8"),
        *("--learning-rate", "1e-4", "--credit", "Sample, CC0", "--threads", "1", "--json"),
        *("--out", out),
    )
    assert result.code == 0, result.stderr
    record = TrainingRecord.model_validate(json.loads(result.stdout))
    assert record == TrainingRecord.model_validate_json((out / "training.json").read_text())
    validation, test = record.figures
    assert (validation.split, test.split) == ("validation", "test")
    assert validation.student_der is not None and validation.teacher_der is not None
    assert test.student_der is None and test.teacher_der is None
    assert 20 < validation.teacher_der.pooled < validation.student_der.pooled
    student = load_model(out)
    recordings = load_training_audio([audio], student.spec.geometry)
    again = measure_agreement(
        student.module, zoo_model.module, recordings, geometry=student.spec.geometry, hop_s=2.5
    )
    assert again.decisions_percent == validation.agreement.decisions_percent
    for shown in (
        f"| validation | 1 recording, 30 s | 11, hop 2.5 s | {again.decisions_percent:.2f} %",
        f"{validation.student_der.pooled:.2f} % | {validation.teacher_der.pooled:.2f} % |",
        "no reference",
        "2 utterances of 2 speakers, 4 s",
        "Sample, CC0",
        "collar 0 s, overlapped speech scored",
    ):
        assert shown in student.card
    assert str(tmp_path) not in student.card + result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no audio to train on. Give --audio"),
        (["--audio", "none.wav"], "none.wav: no such file"),
        (["--student", "big-one", "--audio", "SAMPLE"], "big-one: not the name of a student"),
        (["--audio", "SAMPLE", "--learning-rate", "-1"], "--learning-rate: -1.0"),
        (["--audio", "SHORT"], "2.00 s of audio, shorter than a window; expected at least 5 s"),
        (["--audio", "SAMPLE", "--test-rttm", "RTTM"], "a reference without audio"),
        (["--audio", "SAMPLE", "--simulate-from", "none"], "none: no such folder"),
        (["--audio", "SAMPLE", "--licence-file", "none"], "none: not readable"),
    ],
)
def test_bad_input_is_named(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    sample, rttm = sample_recording()
    short = tmp_path / "short.wav"
    soundfile.write(short, np.full(32000, 0.1), 16000)
    named = {"SAMPLE": str(sample), "RTTM": str(rttm), "SHORT": str(short)}
    out = tmp_path / "out"
    result = run("-t", "sinc-1bi", "--out", out, *(named.get(a, a) for a in arguments))
    assert result.code == 2
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr
    assert not out.exists()


def test_remaining_time_is_told_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = line_progress(every_s=0)
    for done in (1, 2, 10):
        report("training", done, 10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["training: 2 of 10", "training: 10 of 10"]
    assert lines[-1].endswith("0 min left")
    for done in (1, 5):  # a second training begins its own clock
        report("training", done, 10)
    assert capsys.readouterr().err.startswith("training: 5 of 10, 0 min left")
