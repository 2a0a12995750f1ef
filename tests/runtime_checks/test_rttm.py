"""References of who speaks when, and how they fit their audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.audio import Recording
from export.errors import AudioError, ExitCode
from export.pyannote_import import sample_recording
from runtime_checks.results import Turn
from runtime_checks.rttm import load_reference, read_rttm, read_uem

LINE = "SPEAKER meeting 1 1.500 2.250 <NA> <NA> alice <NA> <NA>\n"


def recording(uri: str = "meeting", seconds: float = 10.0) -> Recording:
    samples = np.zeros(round(seconds * 16000), np.float32)
    return Recording(uri, Path(f"{uri}.wav"), samples, 16000, ())


def written(folder: Path, text: str, name: str = "reference.rttm") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_sample_is_read() -> None:
    turns = read_rttm(sample_recording()[1])
    assert list(turns) == ["sample"]
    assert len(turns["sample"]) == 10
    assert turns["sample"][0] == Turn(6.69, 6.69 + 0.43, "speaker90")


def test_comments_and_other_kinds_of_line_are_passed_over(tmp_path: Path) -> None:
    text = f";; a comment\n\nSPKR-INFO meeting 1 <NA> <NA> <NA> unknown alice <NA>\n{LINE}"
    assert read_rttm(written(tmp_path, text)) == {"meeting": [Turn(1.5, 3.75, "alice")]}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("SPEAKER meeting 1 1.5 2.0 <NA> <NA>\n", "7 fields"),
        ("SPEAKER meeting 1 one 2.0 <NA> <NA> bob <NA> <NA>\n", "'one'"),
        ("SPEAKER meeting 1 nan 2.0 <NA> <NA> bob <NA> <NA>\n", "'nan'"),
        ("SPEAKER meeting 1 1.5 -2.0 <NA> <NA> bob <NA> <NA>\n", "-2.0"),
        ("speaker meeting 1 1.5 2.0 <NA> <NA> bob <NA> <NA>\n", "'speaker'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(AudioError, match="line 2") as caught:
        read_rttm(written(tmp_path, LINE + line))
    assert found in str(caught.value)
    assert caught.value.exit_code is ExitCode.BAD_INPUT


@given(st.text(max_size=200))
def test_any_text_gives_turns_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.rttm"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        turns = read_rttm(path)
    except AudioError as error:
        assert "any.rttm" in str(error)
    else:
        assert all(each for each in turns.values())


@pytest.mark.parametrize("text", ["", ";; nothing\n", "SPEAKER meeting 1 1 0 <NA> <NA> bob\n"])
def test_a_reference_without_turns_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(AudioError, match="no turns"):
        read_rttm(written(tmp_path, text))


def test_a_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="not readable"):
        read_rttm(tmp_path / "nowhere.rttm")
    (tmp_path / "binary.rttm").write_bytes(b"\xff\xfe\x00SPEAKER")
    with pytest.raises(AudioError, match="not readable"):
        read_rttm(tmp_path / "binary.rttm")


def test_turns_without_their_audio_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, LINE + LINE.replace("meeting", "lecture"))
    with pytest.raises(AudioError, match="lecture without audio of that name"):
        load_reference(path, uem=None, recordings=[recording()])


def test_turns_beyond_the_audio_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, LINE)
    with pytest.raises(AudioError, match=r"a turn of meeting that ends at 3.75 s"):
        load_reference(path, uem=None, recordings=[recording(seconds=3.0)])


def test_audio_that_the_reference_is_silent_about_is_not_covered(tmp_path: Path) -> None:
    recordings = [recording(), recording("other"), recording("silent")]
    uem = written(tmp_path, "meeting 1 0 4\nsilent 1 0.5 9\n", "scored.uem")
    found = load_reference(written(tmp_path, LINE), uem=uem, recordings=recordings)
    assert found.covers("meeting") and not found.covers("other")
    assert found.covers("silent") and found.turns["silent"] == ()
    assert found.scored == {"meeting": ((0.0, 4.0),), "silent": ((0.5, 9.0),)}


@pytest.mark.parametrize("text", ["meeting 1 0\n", "meeting 1 4 2\n", "meeting 1 0 x\n", ""])
def test_a_malformed_uem_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(AudioError, match=r"scored\.uem"):
        read_uem(written(tmp_path, text, "scored.uem"))
