"""Protocols of pyannote.database as training data."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.audio import load_recording
from export.cli.app import app
from export.distil.protocols import read_protocol
from export.distil.record import TrainingRecord
from export.errors import AudioError, ExportError
from export.pyannote_import import sample_recording
from runtime_checks.rttm import load_reference, read_rttm

DATABASE = """
Databases:
  Sample: {folder}/{{uri}}.wav
Protocols:
  Sample:
    SpeakerDiarization:
      talk:
        scope: global
        train:
          uri: uris.txt
          annotation: {rttm}
          annotated: sample.uem
        development:
          uri: uris.txt
      none:
        train:
          uri: empty.txt
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    audio, rttm = sample_recording()
    (tmp_path / "uris.txt").write_text(f"{audio.stem}\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "sample.uem").write_text(f"{audio.stem} 1 5.000 28.000\n")
    path = tmp_path / "database.yml"
    path.write_text(DATABASE.format(folder=audio.parent, rttm=rttm))
    return path


def test_subsets_are_audio_with_references(database: Path, tmp_path: Path) -> None:
    audio, rttm = sample_recording()
    parts = read_protocol("Sample.SpeakerDiarization.talk", database=database, folder=tmp_path)
    train = parts["train"]
    assert train.audio == (audio,) and parts["development"].audio == (audio,)
    assert parts["development"].rttm is None and parts["test"].audio == ()
    assert train.rttm is not None and train.uem is not None
    # pyannote.core trims turns to what is annotated, from 5 s to 28 s.
    theirs, ours = (read_rttm(path)[audio.stem] for path in (rttm, train.rttm))
    assert len(ours) == sum(turn.start_s < 28 for turn in theirs)
    recording = load_recording(audio, sample_rate_hz=16000)
    speech = load_reference(train.rttm, uem=train.uem, recordings=[recording])
    assert speech.scored[audio.stem] == ((5.0, 28.0),)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("Sample.SpeakerDiarization.other", "database.yml", "not readable"),
        ("words", "database.yml", "words: not readable"),
        ("Sample.SpeakerDiarization.talk", "missing.yml", "missing.yml"),
        ("Sample.SpeakerDiarization.none", "database.yml", "an empty protocol"),
    ],
)
def test_what_is_no_protocol_is_told(name: str, file: str, message: str, database: Path) -> None:
    with pytest.raises(AudioError, match=message):
        read_protocol(name, database=database.with_name(file), folder=database.parent / "made")


def test_audio_that_is_not_there_is_told(database: Path) -> None:
    database.with_name("uris.txt").write_text("sample\nlost\n")
    with pytest.raises(AudioError, match=r"not readable.*lost"):
        read_protocol(
            "Sample.SpeakerDiarization.talk", database=database, folder=database.parent / "made"
        )


def test_a_protocol_trains_chooses_and_measures(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    arguments = ["distill", "-t", "sinc-1bi", "-s", "sinc-1uni", "--steps", "1", "--batch-size"]
    arguments += ["1", "--pool-windows", "2", "--label-share", "0.3", "--threads", "1", "--json"]
    arguments += ["--protocol", "Sample.SpeakerDiarization.talk", "--database", str(database)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    record = TrainingRecord.model_validate_json((out / "training.json").read_text())
    assert list(record.audio_sha256["recordings"]) == ["sample"]
    assert list(record.audio_sha256["turns"]) == ["sample"]  # the protocol's own labels
    (validation,) = record.figures
    assert validation.split == "validation" and validation.student_der is None  # it has no turns
    assert "30 % of it on the labels" in (out / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--database", "x.yml"], "a database without --protocol"),
        (["--logger", "paper", "--audio", "x.wav"], "--logger: paper; expected csv or tensorboard"),
        (["--schedule", "cosine", "--audio", "x.wav"], "--schedule: cosine"),
    ],
)
def test_options_that_do_not_fit_are_told(options: list[str], message: str, tmp_path: Path) -> None:
    arguments = ["distill", "-t", "sinc-1bi", "--out", str(tmp_path / "out"), *options]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ExportError) and message in str(result.exception)
