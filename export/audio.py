"""Audio files in, mono windows at the model's rate out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from .errors import AudioError
from .types import FrameGeometry

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".au", ".opus"}
LIST_SUFFIXES = {".lst", ".txt"}


@dataclass(frozen=True)
class Recording:
    """A mono recording at the wanted rate; `notes` say what was changed to make it so.

    `samples` is float32 of shape [samples], nominally in [-1, 1].
    """

    uri: str
    path: Path
    samples: NDArray[np.float32]
    sample_rate_hz: int
    notes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True)
class Window:
    """One model input of a recording: float32 [window_samples], zeros after `valid_samples`."""

    uri: str
    start_s: float
    samples: NDArray[np.float32]
    valid_samples: int

    @property
    def name(self) -> str:
        """Name of the window in reports."""
        return f"{self.uri}@{self.start_s:.2f}s"


def find_audio(sources: Iterable[str | Path]) -> list[Path]:
    """Audio files named by files, folders (searched one level deep) and list files.

    A list file (.lst, .txt) holds one path a line, relative to itself. Two files of one stem
    raise, since a stem is a recording's name in an RTTM. Raises `AudioError` on anything missing.
    """
    found: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES)
            if not files:
                raise AudioError(path, found="a folder without audio", expected="audio files in it")
            found += files
        elif not path.is_file():
            raise AudioError(path, found="no such file or folder", expected="audio")
        elif path.suffix.lower() in LIST_SUFFIXES:
            found += _read_list(path)
        else:
            found.append(path)
    by_uri: dict[str, Path] = {}
    for path in found:
        other = by_uri.setdefault(path.stem, path)
        if other.resolve() != path.resolve():
            raise AudioError(
                path, found=f"has the same name as {other}", expected="one recording of each name"
            )
    return list(by_uri.values())


def _read_list(path: Path) -> list[Path]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise AudioError(
            path, found="not a text file", expected="a list of audio paths, one a line"
        ) from error
    named = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not named:
        raise AudioError(path, found="an empty list", expected="one audio path a line")
    for entry in named:
        if not entry.is_file():
            raise AudioError(entry, found="no such file", expected=f"audio, as {path} says")
    return named


def load_recording(path: Path, *, sample_rate_hz: int) -> Recording:
    """Read a file, mix it down and resample it (both are noted).

    Raises `AudioError` when it is no audio, is empty, or holds NaN or infinity.
    """
    try:
        data, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        raise AudioError(
            path, found=f"not audio ({error})", expected="a file that libsndfile reads"
        ) from error
    if data.shape[0] == 0:
        raise AudioError(path, found="no samples", expected="a recording")
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).sum())
        raise AudioError(
            path, found=f"{bad} samples are NaN or infinite", expected="finite samples"
        )
    notes: list[str] = []
    if data.shape[1] > 1:
        notes.append(f"mixed down from {data.shape[1]} channels")
    samples = data.mean(axis=1)
    if rate != sample_rate_hz:
        notes.append(f"resampled from {rate} Hz to {sample_rate_hz} Hz")
        from scipy.signal import resample_poly  # takes a third of a command's start

        ratio = Fraction(sample_rate_hz, rate)
        samples = resample_poly(samples, ratio.numerator, ratio.denominator)
    return Recording(
        path.stem, path, np.ascontiguousarray(samples, np.float32), sample_rate_hz, tuple(notes)
    )


def cut_windows(recording: Recording, geometry: FrameGeometry, *, hop_s: float) -> list[Window]:
    """Windows of the model's length every `hop_s` seconds.

    The last window that starts within the recording and holds something the one before it did
    not is zero-padded; a recording shorter than a window gives one padded window.
    """
    size = geometry.window_samples
    hop = max(1, round(hop_s * geometry.sample_rate_hz))
    total = len(recording.samples)
    windows = []
    for start in range(0, max(1, min(total, total - size + hop)), hop):
        piece = recording.samples[start : start + size]
        padded = np.zeros(size, np.float32)
        padded[: len(piece)] = piece
        windows.append(Window(recording.uri, start / geometry.sample_rate_hz, padded, len(piece)))
    return windows
