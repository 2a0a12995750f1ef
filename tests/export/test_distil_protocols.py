"""Protocols of pyannote.database as training data."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.audio import load_recording
from export.distil.protocols import read_protocol
from export.errors import AudioError
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
