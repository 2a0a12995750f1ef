"""Training windows: each one is a function of (seed, index), so a resumed run sees the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..audio import AUDIO_SUFFIXES, Recording, find_audio, load_recording
from ..errors import AudioError
from ..progress import Progress, silent
from ..types import FrameGeometry
from .augment import SPEEDS, add_babble, augment, change_speed
from .conversations import Way, simulate
from .rooms import play_in_room, room_responses

Samples = NDArray[np.float32]

# Count up when the same seed gives other windows: labels cached for the old ones are then left.
WINDOWS_VERSION = 3
SPEED_SHARE = 0.5
SPLICE_SHARE = 0.25
MIX_SHARE = 0.4
MIX_DB = (-10.0, 6.0)
ROOM_SHARE = {"simulated": 0.7, "real": 0.2}
BABBLE_SHARE = 0.2
BABBLE_VOICES = (3, 8)


class TrainingWindows(Dataset[Tensor]):
    """Windows `first` to `first + count` of the endless seeded sequence of training windows.

    Each is float32 [1, samples]. A share `simulated_share` of them are simulated conversations
    of `speakers`; the others are cut from `recordings` at random places, some of them spliced or
    mixed with another place.
    """

    def __init__(
        self,
        recordings: Sequence[Samples],
        speakers: Mapping[str, Sequence[Samples]],
        *,
        geometry: FrameGeometry,
        seed: int,
        simulated_share: float,
        first: int,
        count: int,
    ) -> None:
        self._recordings, self._speakers = recordings, speakers
        self._size, self._rate = geometry.window_samples, geometry.sample_rate_hz
        self._seed, self._first, self._count = seed, first, count
        shares = {(True, True): simulated_share, (True, False): 0.0, (False, True): 1.0}
        self._simulated_share = shares[bool(recordings), bool(speakers)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng([self._seed, self._first + index])
        simulated = rng.random() < self._simulated_share
        samples = self._simulated(rng) if simulated else self._real(rng)
        samples = change_speed(samples, rng) if rng.random() < SPEED_SHARE else samples
        samples = np.ascontiguousarray(samples[: self._size])
        if rng.random() < BABBLE_SHARE:
            samples = add_babble(samples, self._babble(rng), rng)
        return torch.from_numpy(augment(samples, rng, sample_rate_hz=self._rate)).unsqueeze(0)

    def _longer(self) -> int:
        """Samples that still fill a window when played fastest."""
        return 1 + max(-(-self._size * down // up) for up, down in SPEEDS)

    def _simulated(self, rng: np.random.Generator) -> Samples:
        """A conversation, most often in a room."""

        def room(places: int) -> list[Way]:
            responses = room_responses(rng, sources=places, sample_rate_hz=self._rate)
            return [partial(play_in_room, response=response) for response in responses]

        return simulate(
            self._speakers,
            rng,
            size=self._longer(),
            sample_rate_hz=self._rate,
            room=room if rng.random() < ROOM_SHARE["simulated"] else None,
        ).samples

    def _real(self, rng: np.random.Generator) -> Samples:
        """A place of a recording; spliced, talked over and moved to another room at random."""
        samples = self._cut(rng)
        if rng.random() < SPLICE_SHARE:
            at = int(rng.integers(len(samples)))
            samples[at:] = self._cut(rng)[at:]
        if rng.random() < MIX_SHARE:
            over = self._speakers and rng.random() < self._simulated_share
            other = self._simulated(rng) if over else self._cut(rng)
            level = np.sqrt((np.mean(samples**2) + 1e-9) / (np.mean(other**2) + 1e-9))
            samples += other * np.float32(level * 10 ** (rng.uniform(*MIX_DB) / 20))
        if rng.random() < ROOM_SHARE["real"]:
            response = room_responses(rng, sources=1, sample_rate_hz=self._rate)[0]
            samples = play_in_room(samples, response)
        return samples

    def _babble(self, rng: np.random.Generator) -> Samples:
        """Several voices at once that nobody follows, [samples of a window]."""
        voices = [u for utterances in self._speakers.values() for u in utterances]
        voices = voices or list(self._recordings)
        babble = np.zeros(self._size, np.float32)
        for _ in range(int(rng.integers(*BABBLE_VOICES))):
            voice = voices[int(rng.integers(len(voices)))]
            offset = int(rng.integers(len(voice)))
            babble += np.resize(np.roll(voice, -offset), self._size)
        return babble

    def _cut(self, rng: np.random.Generator) -> Samples:
        """A copy of a random place of a random recording, the longer ones more often."""
        lengths = np.array([len(recording) for recording in self._recordings], np.float64)
        recording = self._recordings[int(rng.choice(len(lengths), p=lengths / lengths.sum()))]
        size = self._longer()
        if len(recording) < size:
            # As long as a window at least (checked on loading): the rest is the end, backwards.
            recording = np.concatenate([recording, recording[::-1]])
        offset = int(rng.integers(len(recording) - size + 1))
        return recording[offset : offset + size].copy()


def load_training_audio(
    sources: Sequence[Path], geometry: FrameGeometry, *, progress: Progress = silent
) -> list[Recording]:
    """Recordings at the model's rate; raises `AudioError` on one shorter than a window."""
    recordings = []
    paths = find_audio(sources)
    for done, path in enumerate(paths, 1):
        recording = load_recording(path, sample_rate_hz=geometry.sample_rate_hz)
        if len(recording.samples) < geometry.window_samples:
            raise AudioError(
                path,
                found=f"{recording.duration_s:.2f} s of audio, shorter than a window",
                expected=f"at least {geometry.window_s:g} s",
                todo="Leave it out, or join it to other audio.",
            )
        recordings.append(recording)
        progress("reading audio", done, len(paths))
    return recordings


def load_speakers(
    folder: Path, *, sample_rate_hz: int, progress: Progress = silent
) -> dict[str, list[Recording]]:
    """Utterances by speaker: every subfolder with audio in it is one speaker.

    Raises `AudioError` when the folder holds fewer than two speakers.
    """
    if not folder.is_dir():
        raise AudioError(folder, found="no such folder", expected="one subfolder a speaker")
    paths = {
        sub.name: [p for p in sorted(sub.rglob("*")) if p.suffix.lower() in AUDIO_SUFFIXES]
        for sub in sorted(folder.iterdir())
        if sub.is_dir()
    }
    paths = {name: files for name, files in paths.items() if files}
    if len(paths) < 2:
        raise AudioError(
            folder,
            found=f"{len(paths)} subfolders with audio",
            expected="at least two, one a speaker, each with that speaker's utterances",
        )
    speakers: dict[str, list[Recording]] = {}
    for done, (name, files) in enumerate(paths.items(), 1):
        speakers[name] = [load_recording(p, sample_rate_hz=sample_rate_hz) for p in files]
        progress("reading speakers", done, len(paths))
    return speakers


def audio_sha256(recordings: Sequence[Recording]) -> dict[str, str]:
    """Hash of each recording's samples (float32, little-endian) as training hears them."""
    return {
        recording.uri: hashlib.sha256(recording.samples.astype("<f4").tobytes()).hexdigest()
        for recording in recordings
    }
