"""Audio and references as the commands take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..audio import Recording, find_audio, load_recording
from ..errors import AudioError
from ..pyannote_import import sample_recording
from ..types import ModelSpec, Role

if TYPE_CHECKING:
    from runtime_checks.verification import Segments


def load_audio(
    audio: Sequence[Path] | None, *, rttm: Path | None, sample_rate_hz: int
) -> tuple[list[Recording], Path | None]:
    """Recordings at the model's rate, and the RTTM that goes with them.

    Without audio it is the two-speaker recording inside pyannote.audio, with its own reference.
    """
    if audio:
        paths = find_audio(audio)
    elif rttm is not None:
        raise AudioError(rttm, found="a reference without audio", todo="Give its audio: --audio.")
    else:
        path, rttm = sample_recording()
        paths = [path]
    return [load_recording(path, sample_rate_hz=sample_rate_hz) for path in paths], rttm


def load_trials(folder: Path | None, spec: ModelSpec) -> Segments | None:
    """Segments of the speakers in a folder, no longer than an embedding model's window."""
    if folder is None:
        return None
    from runtime_checks.verification import SEGMENT_S, cut_segments

    from ..distil.data import load_speakers

    if spec.role is not Role.EMBEDDING:
        raise AudioError(
            folder, found=f"trials for {spec.name}", expected="an embedding model to try"
        )
    geometry = spec.geometry
    speakers = load_speakers(folder, sample_rate_hz=geometry.sample_rate_hz)
    return cut_segments(speakers, segment_s=min(SEGMENT_S, geometry.window_s))


def audio_notes(recordings: Sequence[Recording]) -> list[str]:
    """What was changed in the audio before the model saw it."""
    return [f"{r.path.name}: {note}" for r in recordings for note in r.notes]
