"""Who speaks when, prepared for drawing: aligned speakers, disagreements, waveform, audio."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..results import Timeline, TimelineRow
from .wording import letter

WAVEFORM_BINS = 2000
WAVEFORM_UNITS = 100
OPUS_RATES_HZ = {8000, 12000, 16000, 24000, 48000}

REFERENCE = "reference"
PYTORCH = "pytorch"


@dataclass(frozen=True)
class DrawnTurn:
    """A turn with the speaker it was matched to (0 is A); `speaker` is the source's own name."""

    start_s: float
    end_s: float
    speaker: str
    identity: int

    @property
    def letter(self) -> str:
        """A, B, ... Z, AA, ..."""
        return letter(self.identity)


@dataclass(frozen=True)
class DrawnRow:
    """One source of a recording. `differs` are the intervals in which another set of speakers
    speaks than in the row `differs_from` (None where there is nothing to compare with)."""

    source: str
    turns: tuple[DrawnTurn, ...]
    differs_from: str | None
    differs: tuple[tuple[float, float], ...]

    @property
    def differs_s(self) -> float:
        """Seconds of disagreement."""
        return sum(end - start for start, end in self.differs)


def draw_rows(timeline: Timeline) -> list[DrawnRow]:
    """Rows whose speakers are matched so that one colour is one person everywhere.

    PyTorch's speakers are matched to the reference's, an artifact's to PyTorch's, by the greatest
    overlap in time (Kuhn 1955); a speaker without overlap becomes a new one.
    """
    duration_s = len(timeline.samples) / timeline.sample_rate_hz
    drawn: dict[str, DrawnRow] = {}
    for row in timeline.rows:
        anchor = drawn.get(PYTORCH) if row.source not in {REFERENCE, PYTORCH} else None
        anchor = anchor or drawn.get(REFERENCE)
        turns = _match(row, anchor.turns if anchor else ())
        differs = _disagreement(turns, anchor.turns, duration_s=duration_s) if anchor else ()
        drawn[row.source] = DrawnRow(row.source, turns, anchor.source if anchor else None, differs)
    return list(drawn.values())


def _match(row: TimelineRow, anchor: Sequence[DrawnTurn]) -> tuple[DrawnTurn, ...]:
    speakers = list(dict.fromkeys(turn.speaker for turn in row.turns))
    known = sorted({turn.identity for turn in anchor})
    overlap = np.zeros((len(speakers), len(known)))
    for own in row.turns:
        for other in anchor:
            shared = min(own.end_s, other.end_s) - max(own.start_s, other.start_s)
            if shared > 0:
                overlap[speakers.index(own.speaker), known.index(other.identity)] += shared
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    identities = {
        speakers[i]: known[j] for i, j in zip(rows, columns, strict=True) if overlap[i, j] > 0
    }
    new = max(known, default=-1) + 1
    for speaker in speakers:
        if speaker not in identities:
            identities[speaker] = new
            new += 1
    return tuple(
        DrawnTurn(turn.start_s, turn.end_s, turn.speaker, identities[turn.speaker])
        for turn in sorted(row.turns, key=lambda t: (t.start_s, t.end_s, t.speaker))
    )


def _disagreement(
    turns: Sequence[DrawnTurn], others: Sequence[DrawnTurn], *, duration_s: float
) -> tuple[tuple[float, float], ...]:
    every = (*turns, *others)
    times = {0.0, duration_s} | {t for turn in every for t in (turn.start_s, turn.end_s)}
    edges = np.array(sorted(t for t in times if 0 <= t <= duration_s))
    own, other = _activity(turns, every, edges), _activity(others, every, edges)
    found: list[tuple[float, float]] = []
    for index in np.flatnonzero((own != other).any(axis=0)):
        start, end = float(edges[index]), float(edges[index + 1])
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return tuple(found)


def _activity(
    turns: Sequence[DrawnTurn], every: Sequence[DrawnTurn], edges: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which identity speaks between which edges: bool [identities, edges - 1]."""
    identities = max((turn.identity for turn in every), default=-1) + 1
    active = np.zeros((identities, len(edges) - 1), np.bool_)
    for turn in turns:
        first, last = np.searchsorted(edges, [turn.start_s, turn.end_s])
        active[turn.identity, first:last] = True
    return active


def waveform_path(samples: NDArray[np.float32]) -> tuple[str, int]:
    """SVG path of the lowest and highest sample per bin, and the number of bins.

    One unit a bin across; down, -100 to 100 for the recording's own peak.
    """
    bins = max(1, min(WAVEFORM_BINS, len(samples)))
    finite = np.nan_to_num(samples, posinf=0.0, neginf=0.0)
    edges = np.linspace(0, len(finite), bins + 1).astype(int)[:-1]
    highest, lowest = np.maximum.reduceat(finite, edges), np.minimum.reduceat(finite, edges)
    peak = max(float(np.abs(finite).max()), 1e-9)
    top = np.rint(-highest / peak * WAVEFORM_UNITS).astype(int)
    bottom = np.maximum(np.rint(-lowest / peak * WAVEFORM_UNITS).astype(int), top + 1)
    forward = " ".join(f"{x},{y}" for x, y in enumerate(top))
    backward = " ".join(f"{x},{y}" for x, y in reversed(list(enumerate(bottom))))
    return f"M{forward} {backward}Z", bins


def peak_dbfs(samples: NDArray[np.float32]) -> float | None:
    """Level of the highest sample in dB of full scale, None for digital silence."""
    peak = float(np.abs(np.nan_to_num(samples)).max(initial=0.0))
    return 20 * math.log10(peak) if peak > 0 else None


def audio_data_uri(samples: NDArray[np.float32], *, sample_rate_hz: int) -> str:
    """The recording as a data URI: Opus where libsndfile has it and knows the rate, else WAV."""
    clipped = np.clip(np.nan_to_num(samples), -1, 1)
    buffer = io.BytesIO()
    subtypes = soundfile.available_subtypes("OGG") if "OGG" in _formats() else {}
    opus = "OPUS" in subtypes and sample_rate_hz in OPUS_RATES_HZ
    container, subtype, mime = ("OGG", "OPUS", "audio/ogg") if opus else _WAV
    with soundfile.SoundFile(
        buffer, "w", samplerate=sample_rate_hz, channels=1, format=container, subtype=subtype
    ) as file:
        # libsndfile's encoders need a stack frame for what they are given at once.
        for start in range(0, len(clipped), sample_rate_hz):
            file.write(clipped[start : start + sample_rate_hz])
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


_WAV = ("WAV", "PCM_16", "audio/wav")


def _formats() -> dict[str, str]:
    formats: dict[str, str] = soundfile.available_formats()
    return formats
