"""Simulated conversations: turns, pauses and overlaps made of single speakers' utterances.

The walk over turns follows the idea of algorithm 1 of Fujita et al., "End-to-end neural speaker
diarization with permutation-free objectives" (Interspeech 2019), cut to one window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

Samples = NDArray[np.float32]
Way = Callable[[Samples], Samples]
Room = Callable[[int], Sequence[Way]]

SPEAKER_COUNTS = (1, 2, 3, 4)
SPEAKER_COUNT_SHARES = (0.15, 0.45, 0.3, 0.1)
TURN_S = (0.4, 4.0)
PAUSE_S = (0.0, 1.0)
OVERLAP_S = (0.1, 2.0)
# Drawn for every conversation: from polite ones to heated ones.
OVERLAP_SHARE = (0.1, 0.6)
LEVEL_DB = (-32.0, -20.0)
TURN_GAIN_DB = (-5.0, 5.0)
EDGE_S = 0.01
# up/down: a voice at up/down times its length, with the pitch and formants of another speaker.
VOICE_SPEEDS = ((7, 6), (9, 8), (12, 11), (18, 17), (1, 1), (17, 18), (11, 12), (8, 9), (6, 7))


@dataclass(frozen=True)
class Turn:
    """One speaker talks; samples from the window's start, cut to the window."""

    speaker: str
    start: int
    end: int


@dataclass(frozen=True)
class Conversation:
    """A simulated window: float32 [samples], and who talks when in it."""

    samples: Samples
    turns: tuple[Turn, ...]


def simulate(
    speakers: Mapping[str, Sequence[Samples]],
    rng: np.random.Generator,
    *,
    size: int,
    sample_rate_hz: int,
    room: Room | None = None,
) -> Conversation:
    """One window of a conversation of one to four of the speakers.

    The window opens within a conversation that began before it. A turn begins while the one
    before it goes on (a share of them drawn from `OVERLAP_SHARE`, by at most `OVERLAP_S` and never
    before that one's start) or after a pause; nobody overlaps themselves. Each speaker is played
    at a speed of their own, so that few speakers make many voices, and with `room` from a place of
    their own: it is given the number of speakers and gives each one's way to the microphone.
    """
    wanted = int(rng.choice(SPEAKER_COUNTS, p=SPEAKER_COUNT_SHARES))
    names = list(rng.permutation(sorted(speakers))[: min(wanted, len(speakers))])
    speeds = {name: VOICE_SPEEDS[int(rng.integers(len(VOICE_SPEEDS)))] for name in names}
    tracks = {name: np.zeros(size, np.float32) for name in names}
    turns: list[Turn] = []
    level_db, overlap_share = rng.uniform(*LEVEL_DB), rng.uniform(*OVERLAP_SHARE)
    start, last = -int(rng.uniform(0, TURN_S[1] / 2) * sample_rate_hz), ""
    free_from = dict.fromkeys(names, start)
    while start < size:
        others = [name for name in names if name != last] or names
        name = str(rng.choice(others))
        start = max(start, free_from[name])
        gain_db = level_db + rng.uniform(*TURN_GAIN_DB)
        speech = _speech(
            speakers[name], rng, speed=speeds[name], gain_db=gain_db, sample_rate_hz=sample_rate_hz
        )
        end = start + len(speech)
        inside = slice(max(start, 0), min(end, size))
        if inside.start < inside.stop:
            tracks[name][inside] += speech[inside.start - start : inside.stop - start]
            turns.append(Turn(name, inside.start, inside.stop))
        free_from[name], last = end, name
        overlaps = rng.random() < overlap_share
        start = _next_start(start, end, rng, overlaps=overlaps, sample_rate_hz=sample_rate_hz)
    if room is not None:
        ways = dict(zip(names, room(len(names)), strict=True))
        tracks = {name: ways[name](track) for name, track in tracks.items()}
    mix: Samples = np.sum(np.stack(list(tracks.values())), axis=0, dtype=np.float32)
    return Conversation(mix, tuple(turns))


def _next_start(
    start: int, end: int, rng: np.random.Generator, *, overlaps: bool, sample_rate_hz: int
) -> int:
    if overlaps:
        return max(start, end - int(rng.uniform(*OVERLAP_S) * sample_rate_hz))
    return end + int(rng.uniform(*PAUSE_S) * sample_rate_hz)


def _speech(
    utterances: Sequence[Samples],
    rng: np.random.Generator,
    *,
    speed: tuple[int, int],
    gain_db: float,
    sample_rate_hz: int,
) -> Samples:
    utterance = utterances[int(rng.integers(len(utterances)))]
    up, down = speed
    wanted = int(rng.uniform(*TURN_S) * sample_rate_hz)
    raw = min(len(utterance), wanted * down // up)
    offset = int(rng.integers(len(utterance) - raw + 1))
    piece = resample_poly(utterance[offset : offset + raw], up, down)[:wanted].astype(np.float32)
    length = len(piece)
    rms = float(np.sqrt(np.mean(piece**2))) + 1e-6
    edge = min(round(EDGE_S * sample_rate_hz), length // 2)
    ramp = np.linspace(0, 1, edge, endpoint=False, dtype=np.float32)
    piece[:edge] *= ramp
    piece[length - edge :] *= ramp[::-1]
    scaled: Samples = piece * np.float32(10 ** (gain_db / 20) / rms)
    return scaled
