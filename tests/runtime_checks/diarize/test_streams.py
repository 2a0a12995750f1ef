"""Audio as blocks: any rate, any channels, pipes that lie about their length or break off."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import resample_poly

from export.audio import load_recording
from export.errors import AudioError
from runtime_checks.diarize.streams import Resampler, open_file, open_pipe


class Dribble(io.BytesIO):
    """A pipe that gives a few bytes at a time."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return self.read(min(7, size or 7))


def wav(samples: NDArray[np.float32], *, rate: int, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def everything(blocks: object) -> NDArray[np.float32]:
    return np.concatenate(list(blocks))  # type: ignore[call-overload]


@given(
    rate=st.sampled_from([8000, 11025, 22050, 44100, 48000]),
    sizes=st.lists(st.integers(1, 900), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_resampling_by_blocks_is_resampling_at_once(rate: int, sizes: list[int], seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(sum(sizes)).astype(np.float32)
    resampler = Resampler(rate, 16000)
    starts = np.cumsum([0, *sizes[:-1]])
    blocks = [resampler.push(samples[a : a + n]) for a, n in zip(starts, sizes, strict=True)]
    together = np.concatenate([*blocks, resampler.finish()])
    expected = resample_poly(samples, 16000, rate)
    assert len(together) == len(expected)
    np.testing.assert_allclose(together, expected, atol=2e-5)


def test_a_file_gives_what_loading_it_gives(tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).standard_normal((44100, 2)).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "a.wav", stereo, 44100, subtype="FLOAT")
    stream = open_file(tmp_path / "a.wav", sample_rate_hz=16000)
    loaded = load_recording(tmp_path / "a.wav", sample_rate_hz=16000)
    assert (
        stream.notes
        == loaded.notes
        == (
            "mixed down from 2 channels",
            "resampled from 44100 Hz to 16000 Hz",
        )
    )
    assert stream.duration_s == 1.0
    np.testing.assert_allclose(everything(stream.blocks), loaded.samples, atol=1e-5)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_of_wav_comes_through_a_pipe(subtype: str, channels: int) -> None:
    samples = np.random.default_rng(1).uniform(-0.9, 0.9, (50, channels)).astype(np.float32)
    data = wav(samples, rate=16000, subtype=subtype)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    stream = open_pipe(Dribble(data), sample_rate_hz=16000)
    np.testing.assert_allclose(everything(stream.blocks), expected.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFF024])
def test_a_length_that_nobody_knew_is_not_believed(length: int) -> None:
    samples = np.linspace(-0.5, 0.5, 20, dtype=np.float32)
    data = bytearray(wav(samples, rate=16000, subtype="PCM_16"))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", length)
    stream = open_pipe(io.BytesIO(bytes(data)), sample_rate_hz=16000)
    assert len(everything(stream.blocks)) == 20


def test_what_follows_the_audio_is_no_audio() -> None:
    data = wav(np.zeros(20, np.float32), rate=16000, subtype="PCM_16")
    stream = open_pipe(io.BytesIO(data + b"LIST\4\0\0\0abcd"), sample_rate_hz=16000)
    assert len(everything(stream.blocks)) == 20


def test_a_pipe_that_closes_early_loses_nothing_that_came() -> None:
    data = wav(np.full(20, 0.25, np.float32), rate=16000, subtype="PCM_16")
    stream = open_pipe(io.BytesIO(data[:-11]), sample_rate_hz=16000)
    np.testing.assert_array_equal(everything(stream.blocks), np.full(14, 0.25, np.float32))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "nothing; expected a WAV"),
        (b"fLaC" + bytes(40), "begin with b'fLaC'"),
        (b"RIFF\0\0\0\0WAVEfmt ", "ends within its header"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "without a format"),
        (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0abcd", "format of 4 bytes"),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 6, 1, 8000, 0, 0, 8)
            + b"data\0\0\0\0",
            "WAV format 6 of 8 bits",
        ),
    ],
)  # fmt: skip
def test_what_is_no_wav_is_refused(data: bytes, found: str) -> None:
    with pytest.raises(AudioError, match="stdin") as error:
        open_pipe(io.BytesIO(data), sample_rate_hz=16000)
    assert found in str(error.value)


def test_files_that_are_no_audio_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        open_file(tmp_path / "none.wav", sample_rate_hz=16000)
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match="not audio"):
        open_file(tmp_path / "text.wav", sample_rate_hz=16000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16000)
    with pytest.raises(AudioError, match="no samples"):
        open_file(tmp_path / "empty.wav", sample_rate_hz=16000)


def test_a_sample_that_is_not_finite_is_named_by_its_time(tmp_path: Path) -> None:
    samples = np.zeros(16000, np.float32)
    samples[12000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    stream = open_file(tmp_path / "nan.wav", sample_rate_hz=16000)
    assert len(next(stream.blocks)) == 8000
    with pytest.raises(AudioError, match=r"at 0\.75 s"):
        next(stream.blocks)
