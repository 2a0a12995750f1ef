"""The audio that a recipe is calibrated on: windows drawn from recordings, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..audio import Recording, Window, cut_windows, load_recording
from ..errors import AudioError
from ..pyannote_import import sample_recording
from ..types import FrameGeometry, Sha256

DEFAULT_SECONDS = 300.0
LEAST_SECONDS = 10.0
"""Audible audio below which ranges say more about one speaker's one sentence than about speech."""

AUDIBLE = 3e-4
"""Root mean square (-70 dBFS) below which a window is silence: norms make noise of it."""


@dataclass(frozen=True)
class CalibrationSet:
    """Windows float32 [windows, samples] at the model's rate, in the order they were drawn.

    `sources` names them; `notes` tell what was converted or left out.
    """

    windows: NDArray[np.float32]
    sample_rate_hz: int
    sources: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Length of all windows."""
        return self.windows.size / self.sample_rate_hz

    @property
    def sha256(self) -> Sha256:
        """Hash of rate, window length and samples (little-endian float32), whatever files are
        called."""
        digest = hashlib.sha256(f"{self.sample_rate_hz} {self.windows.shape}\n".encode())
        digest.update(np.ascontiguousarray(self.windows, "<f4").tobytes())
        return digest.hexdigest()


def draw(
    recordings: Sequence[Recording], geometry: FrameGeometry, *, seconds: float = DEFAULT_SECONDS
) -> CalibrationSet:
    """Windows that do not overlap, evenly from all over the recordings, `seconds` of them at most.

    Raises AudioError when a recording is silent or no window long, or when what is left is too
    little to tell ranges from.
    """
    if seconds < LEAST_SECONDS:
        raise AudioError(
            "calibration", found=f"{seconds:g} s asked for", expected=f"at least {LEAST_SECONDS:g}"
        )
    drawn, notes = [], []
    for recording in recordings:
        notes += [f"calibration: {recording.uri}: {note}" for note in recording.notes]
        drawn += _audible(recording, geometry)
    found_s = len(drawn) * geometry.window_s
    if found_s < LEAST_SECONDS:
        raise AudioError(
            ", ".join(recording.path.name for recording in recordings),
            found=f"{found_s:.1f} s of audible whole windows to calibrate on",
            expected=f"at least {LEAST_SECONDS:g} s of speech",
            todo="Give more, or longer, recordings: --calibration-audio.",
        )
    wanted = max(1, int(seconds / geometry.window_s))
    if wanted < len(drawn):
        drawn = [drawn[int(i)] for i in np.linspace(0, len(drawn) - 1, wanted)]
    return CalibrationSet(
        windows=np.stack([window.samples for window in drawn]),
        sample_rate_hz=geometry.sample_rate_hz,
        sources=tuple(window.name for window in drawn),
        notes=tuple(notes),
    )


def sample_set(geometry: FrameGeometry, *, seconds: float = DEFAULT_SECONDS) -> CalibrationSet:
    """The default: the two-speaker recording inside pyannote.audio, 30 s of it."""
    path, _ = sample_recording()
    recording = load_recording(path, sample_rate_hz=geometry.sample_rate_hz)
    return draw([recording], geometry, seconds=seconds)


def _audible(recording: Recording, geometry: FrameGeometry) -> list[Window]:
    size = geometry.window_samples
    windows = [
        window
        for window in cut_windows(recording, geometry, hop_s=geometry.window_s)
        if window.valid_samples == size
    ]
    if not windows:
        raise AudioError(
            recording.path,
            found=f"{recording.duration_s:.2f} s",
            expected=f"calibration audio of at least a window ({geometry.window_s:g} s)",
        )
    audible = [w for w in windows if float(np.sqrt(np.mean(w.samples**2))) >= AUDIBLE]
    if not audible:
        raise AudioError(
            recording.path,
            found=f"silence: {len(windows)} windows below {20 * np.log10(AUDIBLE):.0f} dBFS",
            expected="calibration audio with speech",
            todo="Calibrate on recordings as the model will hear them.",
        )
    return audible
