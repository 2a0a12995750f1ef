"""A pool of utterances in many voices, with the teacher's embedding of each, cached on disk.

Each is a function of (seed, index). What the student hears has been played in a room, through
another microphone, where the teacher heard it clean: the student learns whose voice it is, not
where it was recorded. The teacher hears up to six seconds, the student later a part of them.

The cache is files of `SHARD` utterances each, named by what decides their content, so a run that
was killed goes on with the next file, and a larger pool begins with the files of a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...models.fbank import Fbank
from ...progress import Progress, silent
from ..augment import equalise
from ..pool import hash_of
from ..rooms import play_in_room, room_responses
from .voices import borrow_mouth, draw_voice, speak

Samples = NDArray[np.float32]

# Count up when the same seed gives other utterances: what was cached for the old ones is then left.
VERSION = 4
SHARD = 256
BATCH = 16
LONGEST_S, SHORTEST_S = 6.0, 1.5
ROOM_SHARE, MICROPHONE_SHARE = 0.4, 0.6
BORROWED_SHARE, BORROWED = 0.7, (0.3, 1.0)
LEVEL = 0.05  # root mean square, -26 dBFS
PAUSE = 1e-4  # of the loudest frame's power: what is 40 dB below it is no speech
QUIETEST = 1e-10


@dataclass(frozen=True)
class VoicePool:
    """`features` are logarithms of mel energies, float16 [utterances, bands, frames], of which the
    first `lengths` are speech; `targets` float32 [utterances, dimension] are the teacher's."""

    features: Tensor
    lengths: Tensor
    targets: Tensor


class Voices:
    """The endless seeded sequence of utterances in voices of their own.

    Speakers are drawn by the root of how long they talk: who talks little in a meeting is heard
    less often than who reads a book, but not as much less.
    """

    def __init__(
        self, speakers: Mapping[str, Sequence[Samples]], *, seed: int, sample_rate_hz: int
    ) -> None:
        self._speakers = [list(speakers[name]) for name in sorted(speakers)]
        talked = np.sqrt([sum(len(u) for u in spoken) for spoken in self._speakers])
        self._shares = talked / talked.sum()
        self._seed, self.sample_rate_hz = seed, sample_rate_hz

    def __getitem__(self, index: int) -> tuple[Samples, Samples]:
        """The utterance as the teacher and as the student hears it, of one length."""
        rng = np.random.default_rng([self._seed, index, VERSION])
        utterances = self._speakers[int(rng.choice(len(self._speakers), p=self._shares))]
        longest = int(LONGEST_S * self.sample_rate_hz)
        piece = _piece(utterances, rng, longest=longest)
        if rng.random() < BORROWED_SHARE:
            others = self._speakers[int(rng.integers(len(self._speakers)))]
            other = _piece(others, rng, longest=longest)
            piece = borrow_mouth(piece, other, rng.uniform(*BORROWED))
        clean = speak(piece, draw_voice(rng), sample_rate_hz=self.sample_rate_hz)[:longest]
        clean = clean * np.float32(LEVEL / (np.sqrt(np.mean(clean**2)) + 1e-6))
        heard = clean
        if rng.random() < ROOM_SHARE:
            (response,) = room_responses(rng, sources=1, sample_rate_hz=self.sample_rate_hz)
            heard = play_in_room(heard, response)
        if rng.random() < MICROPHONE_SHARE:
            heard = equalise(heard, rng, self.sample_rate_hz)
        return clean, heard


def _piece(utterances: Sequence[Samples], rng: np.random.Generator, *, longest: int) -> Samples:
    """At most so many samples of one of the utterances."""
    utterance = utterances[int(rng.integers(len(utterances)))]
    start = int(rng.integers(max(len(utterance) - longest, 0) + 1))
    return utterance[start : start + longest]


def build_pool(
    teacher: nn.Module,
    voices: Voices,
    fbank: Fbank,
    *,
    count: int,
    cache: Path,
    identity: dict[str, Any],
    progress: Progress = silent,
) -> VoicePool:
    """`count` utterances; `identity` is all that decides them, the teacher's answers and features.

    What the cache has under that name is not computed again, a damaged file is.
    """
    name = hash_of(identity | {"version": VERSION})
    shards = []
    for first in range(0, count, SHARD):
        size = min(SHARD, count - first)
        path = cache / f"voices-{name}-{first:06d}-{size:04d}.safetensors"
        shard = _read(path)
        if shard is None:
            span = range(first, first + size)
            shard = _compute(teacher, voices, fbank, span=span, total=count, progress=progress)
            _write(path, shard)
        shards.append(shard)
    joined = {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]}
    return VoicePool(**joined)


@torch.inference_mode()
def _compute(
    teacher: nn.Module,
    voices: Voices,
    fbank: Fbank,
    *,
    span: range,
    total: int,
    progress: Progress,
) -> dict[str, Tensor]:
    frames = fbank.num_frames(int(LONGEST_S * voices.sample_rate_hz))
    made: dict[str, list[Tensor]] = {"features": [], "lengths": [], "targets": []}
    for start in span[::BATCH]:
        stop = min(start + BATCH, span.stop)
        pairs = [voices[index] for index in range(start, stop)]
        made["targets"].append(embed(teacher, [clean for clean, _ in pairs]))
        for _, heard in pairs:
            energies = fbank(torch.from_numpy(heard)[None, None])[0].t()
            features = torch.log(energies + QUIETEST).half()
            missing = frames - features.shape[1]
            made["features"].append(nn.functional.pad(features, (0, missing))[None])
            made["lengths"].append(torch.tensor([features.shape[1]]))
        progress("embedding voices", stop, total)
    return {key: torch.cat(parts).contiguous() for key, parts in made.items()}


def embed(teacher: nn.Module, utterances: Sequence[Samples]) -> Tensor:
    """The teacher's embeddings of utterances, their pauses left out, [utterances, dimension] of
    length one."""
    net: Any = teacher
    step = int(net.frames["frame_step_samples"])
    size = max(int(net.smallest_samples), *(len(u) for u in utterances)) // step * step
    waveforms = torch.zeros(len(utterances), 1, size)
    weights = torch.zeros(len(utterances), 1, size // step)
    for index, samples in enumerate(utterances):
        kept = torch.from_numpy(samples[:size])
        waveforms[index, 0, : len(kept)] = kept
        power = waveforms[index, 0].reshape(-1, step).square().mean(1)
        weights[index, 0] = (power > PAUSE * power.max()).float()
    embeddings = teacher(waveforms, weights)[:, 0]
    unit: Tensor = nn.functional.normalize(embeddings, dim=1)
    return unit


def _write(path: Path, values: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        save_file(values, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Tensor] | None:
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError:
        return None
