"""Audio of any length as mono blocks at the pipeline's rate, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import firwin, upfirdn

from export.errors import AudioError

from .wave_pipe import read_wave_pipe

BLOCK_S = 0.5
ZERO_CROSSINGS, KAISER_BETA = 10, 5.0  # of scipy.signal.resample_poly

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Stream:
    """Blocks of mono float32 [samples]; `notes` say what is changed to make them so.

    `duration_s` is None where nobody knows. Blocks raise AudioError where the audio breaks off.
    """

    uri: str
    blocks: Iterator[Samples]
    duration_s: float | None
    notes: tuple[str, ...]


def open_file(path: Path, *, sample_rate_hz: int) -> Stream:
    """A file that libsndfile reads, block by block. Raises `AudioError` when it is none."""
    if not path.is_file():
        raise AudioError(path, found="no such file", expected="audio, or - for a pipe")
    try:
        sound = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        raise AudioError(
            path, found=f"not audio ({error})", expected="a file that libsndfile reads"
        ) from error
    if sound.frames == 0:
        raise AudioError(path, found="no samples", expected="a recording")

    def blocks() -> Iterator[NDArray[np.float32]]:
        with sound:
            size = max(1, round(BLOCK_S * sound.samplerate))
            while len(block := _read(sound, path, size)):
                yield block

    return _stream(
        path.stem,
        blocks(),
        channels=sound.channels,
        rate_hz=sound.samplerate,
        wanted_hz=sample_rate_hz,
        duration_s=sound.frames / sound.samplerate,
    )


def open_pipe(pipe: BinaryIO, *, sample_rate_hz: int) -> Stream:
    """A WAV of unknown length from a pipe, as it comes."""
    wave = read_wave_pipe(pipe)
    return _stream(
        "stdin",
        wave.blocks,
        channels=wave.channels,
        rate_hz=wave.sample_rate_hz,
        wanted_hz=sample_rate_hz,
        duration_s=None,
    )


def open_microphone(*, sample_rate_hz: int) -> Stream:
    """The default microphone, until it is stopped. Needs the extra `microphone`."""
    import queue

    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise AudioError(
            "microphone",
            found=f"sounddevice cannot be used ({error})",
            todo="Install the extra: pip install 'diarport[microphone]', and PortAudio.",
        ) from error
    heard: queue.SimpleQueue[Samples] = queue.SimpleQueue()

    def keep(block: NDArray[np.float32], *_: object) -> None:
        heard.put(block.copy())

    def blocks() -> Iterator[NDArray[np.float32]]:
        try:
            with sounddevice.InputStream(sample_rate_hz, channels=1, callback=keep):
                while True:
                    yield heard.get()
        except sounddevice.PortAudioError as error:
            raise AudioError("microphone", found=str(error), expected="a device") from error

    return _stream(
        "microphone",
        blocks(),
        channels=1,
        rate_hz=sample_rate_hz,
        wanted_hz=sample_rate_hz,
        duration_s=None,
    )


def _read(sound: soundfile.SoundFile, path: Path, size: int) -> NDArray[np.float32]:
    try:
        block: NDArray[np.float32] = sound.read(size, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(
            path, found=f"breaks off at {sound.tell() / sound.samplerate:.1f} s ({error})"
        ) from error
    return block


def _stream(
    uri: str,
    blocks: Iterator[NDArray[np.float32]],
    *,
    channels: int,
    rate_hz: int,
    wanted_hz: int,
    duration_s: float | None,
) -> Stream:
    notes = []
    if channels > 1:
        notes.append(f"mixed down from {channels} channels")
    if rate_hz != wanted_hz:
        notes.append(f"resampled from {rate_hz} Hz to {wanted_hz} Hz")
    mono = _mono(uri, blocks, rate_hz=rate_hz)
    if rate_hz != wanted_hz:
        mono = _resampled(mono, Resampler(rate_hz, wanted_hz))
    return Stream(uri, mono, duration_s, tuple(notes))


def _mono(uri: str, blocks: Iterator[NDArray[np.float32]], *, rate_hz: int) -> Iterator[Samples]:
    seen = 0
    for block in blocks:
        mono = block.mean(axis=1) if block.ndim > 1 else block
        wrong = np.flatnonzero(~np.isfinite(mono))
        if len(wrong):
            raise AudioError(
                uri,
                found=f"a sample that is NaN or infinite at {(seen + wrong[0]) / rate_hz:.2f} s",
                expected="finite samples",
            )
        seen += len(mono)
        yield mono.astype(np.float32)


def _resampled(blocks: Iterator[Samples], resampler: Resampler) -> Iterator[Samples]:
    for block in blocks:
        yield resampler.push(block)
    yield resampler.finish()


class Resampler:
    """`scipy.signal.resample_poly`, block by block: together the blocks are what it gives at once.

    Its filter: a windowed sinc over `ZERO_CROSSINGS` crossings on either side, Kaiser window.
    """

    def __init__(self, rate_hz: int, wanted_hz: int) -> None:
        ratio = Fraction(wanted_hz, rate_hz)
        self._up, self._down = ratio.numerator, ratio.denominator
        largest = max(self._up, self._down)
        largest = max(self._up, self._down)
        self._half = ZERO_CROSSINGS * largest
        taps = firwin(2 * self._half + 1, 1 / largest, window=("kaiser", KAISER_BETA))
        self._taps: NDArray[np.float64] = taps * self._up
        self._kept: NDArray[np.float64] = np.zeros(0)
        self._first, self._seen, self._given = 0, 0, 0

    def push(self, samples: Samples) -> Samples:
        """What these samples complete."""
        self._seen += len(samples)
        self._kept = np.concatenate([self._kept, samples])
        # The output m needs inputs up to (m * down + half) / up.
        ready = (self._seen * self._up - self._half - 1) // self._down + 1
        return self._give(max(self._given, ready))

    def finish(self) -> Samples:
        """The rest, as if zeros came after it."""
        return self._give(-(-self._seen * self._up // self._down))

    def _give(self, until: int) -> Samples:
        if until <= self._given:
            return np.zeros(0, np.float32)
        # Taken with the input moved by whole blocks of `down`, so that outputs keep their phase.
        shift = self._half + self._given * self._down - self._first * self._up
        skip = -(-shift // self._down)
        lead = skip * self._down - shift
        taps = np.concatenate([np.zeros(lead), self._taps])
        missing = max(0, (until * self._down + self._half) // self._up + 1 - self._first)
        padded = np.pad(self._kept, (0, max(0, missing - len(self._kept))))
        out = upfirdn(taps, padded, self._up, self._down)[skip : skip + until - self._given]
        self._given = until
        needed = max(0, (until * self._down - self._half) // self._up)
        self._kept = self._kept[max(0, needed - self._first) :]
        self._first = max(self._first, needed)
        resampled: Samples = out.astype(np.float32)
        return resampled
