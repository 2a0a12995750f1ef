"""Utterances by speaker: cut from meetings by who speaks when, and parts kept for trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ...audio import Recording
from ...errors import TrainingError
from ..labels import Turns
from .pool import SHORTEST_S


def spoken_alone(
    recordings: Sequence[Recording], turns: Mapping[str, Turns]
) -> dict[str, list[Recording]]:
    """The stretches of recordings in which one speaker talks and nobody else, by speaker.

    `turns` are in samples, by uri. Stretches shorter than `SHORTEST_S` are left out; one name is
    one person in all recordings.
    """
    found: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        rate, size = recording.sample_rate_hz, len(recording.samples)
        for start, end, speaker in _alone(turns.get(recording.uri, ()), size=size):
            if end - start >= SHORTEST_S * rate:
                uri = f"{recording.uri}-{start / rate:07.2f}"
                samples = recording.samples[start:end]
                found[speaker].append(Recording(uri, recording.path, samples, rate, ()))
    return dict(found)


def _alone(turns: Turns, *, size: int) -> list[tuple[int, int, str]]:
    edges = sorted({0, size, *(t.start for t in turns), *(t.end for t in turns)})
    runs: list[tuple[int, int, str]] = []
    for start, end in pairwise(edges):
        who = {t.speaker for t in turns if t.start < end and t.end > start}
        if len(who) != 1 or end > size:
            continue
        (speaker,) = who
        if runs and runs[-1][1:] == (start, speaker):
            runs[-1] = (runs[-1][0], end, speaker)
        else:
            runs.append((start, end, speaker))
    return runs


def hold_out(
    speakers: Mapping[str, Sequence[Recording]], names: Sequence[str]
) -> tuple[dict[str, Sequence[Recording]], dict[str, Sequence[Recording]]]:
    """Speakers to train on, and those kept for trials; raises TrainingError on a name that is
    none, or when nobody is left."""
    unknown = sorted(set(names) - set(speakers))
    if unknown:
        raise TrainingError(
            "--hold-out",
            found=f"no speaker {', '.join(unknown)}",
            expected=f"some of {', '.join(sorted(speakers))}",
        )
    kept = {name: speakers[name] for name in sorted(set(names))}
    trained = {name: spoken for name, spoken in speakers.items() if name not in kept}
    if len(trained) < 2:
        raise TrainingError(
            "distill-embedding",
            found=f"{len(trained)} speakers to train on",
            expected="at least two",
            todo="Give more by --speakers or --audio with --rttm, or hold fewer out.",
        )
    return trained, kept
