"""Simulated conversations with a reference of who speaks when: the recipe of docs/pipeline.md.

Turns are single speakers' utterances (of longer ones a piece of 15 s, or of `longest_s`), each
speaker at a level of their own (-30 to -22 dBFS, and 2 dB up or down from turn to turn), over white
noise at -65 dBFS. The next turn is another speaker's; half of the time it begins up to 4 s before
the end of the one before it, otherwise up to 1 s after. What is speech in an utterance is decided
by level: frames of 25 ms that are within 30 dB of its loud frames (95th percentile) and 8 dB above
its quiet ones (5th percentile, the noise of the recording), with pauses of up to 0.5 s counted as
speech. A conversation is drawn again until 10 to 20 % of its speech is overlapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from runtime_checks.results import Turn

RATE_HZ = 16000
LONGEST_S = 15.0
LEVEL_DBFS, TURN_DB, NOISE_DBFS = (-30.0, -22.0), 2.0, -65.0
OVERLAPS, OVERLAP_S, PAUSE_S = 0.5, (0.5, 4.0), 1.0
OVERLAP_SHARE = (0.10, 0.20)
FRAME, HOP, RANGE_DB, ABOVE_NOISE_DB, BRIDGED_S = 400, 160, 30.0, 8.0, 0.5

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Simulated:
    """float32 [samples] at 16 kHz, the turns, and how much of the speech is overlapped."""

    uri: str
    samples: Samples
    turns: tuple[Turn, ...]
    overlap: float


def read_speakers(folder: Path, names: Sequence[str]) -> dict[str, list[Samples]]:
    """Utterances of each speaker: `folder/NAME/**/*.flac`, 16 kHz."""
    found = {}
    for name in names:
        files = sorted((folder / name).rglob("*.flac"))
        if not files:
            raise SystemExit(f"{folder / name}: no .flac files of this speaker")
        found[name] = [soundfile.read(file, dtype="float32")[0] for file in files]
    return found


def simulate_many(
    speakers: Mapping[str, Sequence[Samples]],
    *,
    count: int,
    at_once: int,
    seed: int,
    longest_s: float = LONGEST_S,
) -> list[Simulated]:
    """`count` conversations of three minutes among `at_once` of the speakers, in all groups."""
    groups = list(combinations(sorted(speakers), at_once))
    made = []
    for index in range(count):
        rng = np.random.default_rng([seed, at_once, index])
        chosen = {name: speakers[name] for name in groups[index % len(groups)]}
        made.append(
            simulate(chosen, rng, uri=f"{at_once}-speakers-{index:02d}", longest_s=longest_s)
        )
    return made


def simulate(
    speakers: Mapping[str, Sequence[Samples]],
    rng: np.random.Generator,
    *,
    uri: str,
    longest_s: float = LONGEST_S,
    duration_s: float = 180.0,
) -> Simulated:
    """One conversation in which all of the speakers talk."""
    while True:
        samples, turns = _walk(speakers, rng, longest_s=longest_s, size=round(duration_s * RATE_HZ))
        overlap = overlapped(turns)
        if OVERLAP_SHARE[0] <= overlap <= OVERLAP_SHARE[1]:
            return Simulated(uri, samples, tuple(turns), overlap)


def overlapped(turns: Sequence[Turn]) -> float:
    """Share of the time with speech in which several speak."""
    count = np.zeros(round(100 * max(turn.end_s for turn in turns)) + 1, np.int64)
    for turn in turns:
        count[round(100 * turn.start_s) : round(100 * turn.end_s)] += 1
    return float((count > 1).sum() / (count > 0).sum())


def _walk(
    speakers: Mapping[str, Sequence[Samples]],
    rng: np.random.Generator,
    *,
    longest_s: float,
    size: int,
) -> tuple[Samples, list[Turn]]:
    mix = rng.standard_normal(size).astype(np.float32) * np.float32(10 ** (NOISE_DBFS / 20))
    level = {name: rng.uniform(*LEVEL_DBFS) for name in speakers}
    left: dict[str, list[int]] = {name: [] for name in speakers}
    free = dict.fromkeys(speakers, 0)
    turns, start, last = [], 0, ""
    while start < size:
        name = str(rng.choice([each for each in speakers if each != last]))
        left[name] = left[name] or [int(i) for i in rng.permutation(len(speakers[name]))]
        speech, spoken = _turn(
            speakers[name][left[name].pop()], rng, longest_s=longest_s, level_dbfs=level[name]
        )
        start = max(start, free[name])
        kept = speech[: max(0, size - start)]
        mix[start : start + len(kept)] += kept
        times = [(start + first, min(size, start + end)) for first, end in spoken]
        turns += [Turn(a / RATE_HZ, b / RATE_HZ, name) for a, b in times if a < b]
        end = free[name] = start + len(speech)
        last = name
        if rng.random() < OVERLAPS:
            start = max(start, end - round(rng.uniform(*OVERLAP_S) * RATE_HZ))
        else:
            start = end + round(rng.uniform(0, PAUSE_S) * RATE_HZ)
    return mix, turns


def _turn(
    utterance: Samples, rng: np.random.Generator, *, longest_s: float, level_dbfs: float
) -> tuple[Samples, list[tuple[int, int]]]:
    """A piece of an utterance from its first to its last speech, and the speech in it."""
    wanted = min(len(utterance), round(longest_s * RATE_HZ))
    offset = int(rng.integers(len(utterance) - wanted + 1))
    piece = utterance[offset : offset + wanted].copy()
    ramp = np.linspace(0, 1, HOP, dtype=np.float32)
    piece[:HOP] *= ramp
    piece[-HOP:] *= ramp[::-1]
    spoken = speech_in(piece, quietest_db=threshold_db(utterance))
    first, end = spoken[0][0], spoken[-1][1]
    piece = piece[first:end]
    rms = float(np.sqrt(np.mean(piece**2)))
    gain = 10 ** ((level_dbfs + rng.uniform(-TURN_DB, TURN_DB)) / 20) / max(rms, 1e-9)
    return piece * np.float32(gain), [(a - first, b - first) for a, b in spoken]


def threshold_db(utterance: Samples) -> float:
    """Level from which a frame of the utterance is speech."""
    quiet, loud = np.quantile(_levels_db(utterance), [0.05, 0.95])
    return float(max(loud - RANGE_DB, quiet + ABOVE_NOISE_DB))


def speech_in(piece: Samples, *, quietest_db: float) -> list[tuple[int, int]]:
    """Intervals of samples that are speech by their level; one at least."""
    level_db = _levels_db(piece)
    loud = np.flatnonzero(level_db >= min(quietest_db, level_db.max()))
    breaks = np.flatnonzero(np.diff(loud) * HOP > BRIDGED_S * RATE_HZ)
    firsts, lasts = loud[[0, *(breaks + 1)]], loud[[*breaks, len(loud) - 1]]
    return [(int(a) * HOP, int(b) * HOP + FRAME) for a, b in zip(firsts, lasts, strict=True)]


def _levels_db(samples: Samples) -> NDArray[np.float64]:
    sums = np.cumsum(np.concatenate([[0.0], samples.astype(np.float64) ** 2]))
    starts = np.arange(0, max(1, len(samples) - FRAME + 1), HOP)
    ends = np.minimum(starts + FRAME, len(samples))
    power = (sums[ends] - sums[starts]) / (ends - starts)
    levels: NDArray[np.float64] = 10 * np.log10(power + 1e-12)
    return levels
