"""Audio in: what is changed is noted, what cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.audio import Recording, cut_windows, find_audio, load_recording
from export.errors import AudioError, ExitCode
from export.pyannote_import import sample_recording
from export.types import FrameGeometry

RATE = 16000


def tone(hz: float, *, rate: int, seconds: float = 1.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)


def write(path: Path, samples: NDArray[np.float64], rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def message(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        load_recording(path, sample_rate_hz=RATE)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def peak_hz(recording: Recording) -> float:
    spectrum = np.abs(np.fft.rfft(recording.samples * np.hanning(len(recording.samples))))
    return float(spectrum.argmax() * recording.sample_rate_hz / len(recording.samples))


def test_samples_are_taken_as_they_are(tmp_path: Path) -> None:
    samples = tone(440, rate=RATE)
    recording = load_recording(write(tmp_path / "a.wav", samples), sample_rate_hz=RATE)
    np.testing.assert_array_equal(recording.samples, samples.astype(np.float32))
    assert recording.samples.dtype == np.float32
    assert (recording.uri, recording.notes, recording.duration_s) == ("a", (), 1.0)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_another_rate_is_resampled_and_noted(rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1000, rate=rate, seconds=2), rate)
    recording = load_recording(path, sample_rate_hz=RATE)
    assert recording.notes == (f"resampled from {rate} Hz to 16000 Hz",)
    assert recording.duration_s == pytest.approx(2, abs=1e-4)
    assert peak_hz(recording) == pytest.approx(1000, abs=0.6)
    assert np.abs(recording.samples[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


def test_resampling_lets_nothing_fold_back(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(20_000, rate=48_000), 48_000)
    recording = load_recording(path, sample_rate_hz=RATE)
    assert np.abs(recording.samples[500:-500]).max() < 0.005


def test_stereo_is_mixed_and_noted(tmp_path: Path) -> None:
    left, right = tone(440, rate=8000), tone(1200, rate=8000)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000)
    recording = load_recording(path, sample_rate_hz=8000)
    assert recording.notes == ("mixed down from 2 channels",)
    np.testing.assert_allclose(recording.samples, (left + right) / 2, atol=1e-7)
    both = load_recording(path, sample_rate_hz=RATE)
    assert both.notes == ("mixed down from 2 channels", "resampled from 8000 Hz to 16000 Hz")


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3", ".aiff"])
def test_formats(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a{suffix}", tone(440, rate=RATE))
    assert peak_hz(load_recording(path, sample_rate_hz=RATE)) == pytest.approx(440, abs=2)


def test_the_sample_recording() -> None:
    recording = load_recording(sample_recording()[0], sample_rate_hz=RATE)
    assert recording.duration_s == pytest.approx(30, abs=0.01)
    assert recording.notes == ()
    assert 0.01 < float(np.sqrt(np.square(recording.samples).mean())) < 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(value: float, tmp_path: Path) -> None:
    samples = tone(440, rate=RATE)
    samples[[7, 100]] = value
    said = message(write(tmp_path / "a.wav", samples))
    assert "2 samples are NaN or infinite" in said


def test_what_is_empty_or_not_audio(tmp_path: Path) -> None:
    assert "no samples" in message(write(tmp_path / "none.wav", np.zeros(0)))
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is no sound")
    whole = write(tmp_path / "a.flac", tone(440, rate=RATE)).read_bytes()
    (tmp_path / "head.flac").write_bytes(whole[:30])
    for name in ("zero.wav", "text.wav", "head.flac", "missing.wav"):
        assert "not audio (" in message(tmp_path / name)


def test_files_folders_and_lists(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    b, a = (write(folder / name, tone(440, rate=RATE)) for name in ("b.WAV", "a.flac"))
    (folder / "notes.md").write_text("no audio")
    listing = tmp_path / "dev.lst"
    listing.write_text("# split\n\nfolder/b.WAV\n  folder/a.flac  \n")
    assert find_audio([folder]) == [a, b]
    assert find_audio([listing]) == [b, a]
    assert find_audio([b, folder, listing]) == [b, a]  # named twice, taken once
    assert find_audio([str(a)]) == [a]


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.lst").write_text("# nothing\n")
    (tmp_path / "gone.lst").write_text("missing.wav\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    for name, found in {
        "missing": "no such file or folder",
        "empty": "a folder without audio",
        "none.lst": "an empty list",
        "gone.lst": "no such file; expected audio, as",
        "binary.txt": "not a text file",
    }.items():
        with pytest.raises(AudioError, match=found) as caught:
            find_audio([tmp_path / name])
        assert str(tmp_path) in str(caught.value)


def test_two_recordings_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "talk.wav", tone(440, rate=RATE))
    with pytest.raises(AudioError, match="has the same name as") as caught:
        find_audio([tmp_path / "one", tmp_path / "two"])
    assert str(tmp_path / "one" / "talk.wav") in str(caught.value)
    assert str(tmp_path / "two" / "talk.wav") in str(caught.value)


def geometry(window_samples: int) -> FrameGeometry:
    return FrameGeometry(
        sample_rate_hz=100,
        window_samples=window_samples,
        num_frames=1,
        frame_step_samples=1,
        receptive_field_samples=1,
    )


def counting(total: int) -> Recording:
    """A recording whose samples are 1, 2, 3, ... so that padding (0) shows."""
    return Recording("r", Path("r.wav"), np.arange(1, total + 1, dtype=np.float32), 100, ())


@given(total=st.integers(1, 3000), size=st.integers(1, 700), hop_samples=st.integers(1, 1000))
def test_windows_lie_where_they_say_and_cover_every_sample(
    total: int, size: int, hop_samples: int
) -> None:
    windows = cut_windows(counting(total), geometry(size), hop_s=hop_samples / 100)
    covered: set[int] = set()
    for index, window in enumerate(windows):
        start = index * hop_samples
        assert window.start_s == start / 100
        assert window.samples.shape == (size,)
        assert 1 <= window.valid_samples <= size
        assert window.valid_samples == min(size, total - start)
        expected = np.arange(start + 1, start + 1 + window.valid_samples)
        np.testing.assert_array_equal(window.samples[: window.valid_samples], expected)
        assert not window.samples[window.valid_samples :].any()
        covered.update(range(start, start + window.valid_samples))
    if hop_samples <= size:
        assert covered == set(range(total))
        # Every window but the first adds something.
        assert len(windows) == 1 or (len(windows) - 2) * hop_samples + size < total
    else:
        assert len(windows) == -(-total // hop_samples)


def test_windows_of_known_recordings() -> None:
    def starts(total: int, hop_s: float) -> list[float]:
        return [w.start_s for w in cut_windows(counting(total), geometry(500), hop_s=hop_s)]

    assert starts(500, 5.0) == [0.0]
    assert starts(1000, 5.0) == [0.0, 5.0]
    assert starts(1001, 5.0) == [0.0, 5.0, 10.0]
    assert starts(1000, 2.5) == [0.0, 2.5, 5.0]
    assert starts(120, 5.0) == [0.0]
    assert starts(3000, 7.0) == [0.0, 7.0, 14.0, 21.0, 28.0]
    assert starts(3000, 6.0) == [0.0, 6.0, 12.0, 18.0, 24.0]


def test_names_of_windows() -> None:
    windows = cut_windows(counting(1000), geometry(500), hop_s=2.5)
    assert [w.name for w in windows] == ["r@0.00s", "r@2.50s", "r@5.00s"]
