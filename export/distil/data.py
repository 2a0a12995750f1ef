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
from .labels import Turns, cut_turns, frame_labels, mirrored, spliced, stretched
from .rooms import play_in_room, room_responses

Samples = NDArray[np.float32]

# Count up when the same seed gives other windows: labels cached for the old ones are then left.
WINDOWS_VERSION = 4
SPEED_SHARE = 0.4
SPLICE_SHARE = 0.25
MIX_SHARE = 0.25
MIX_DB = (-12.0, 6.0)
ROOM_SHARE = {"simulated": 0.3, "real": 0.1}
BABBLE_SHARE = 0.1
BABBLE_VOICES = (3, 8)


class LabelledWindows(Dataset[dict[str, Tensor]]):
    """Training windows with who talks in them."""

    def __init__(self, windows: TrainingWindows, *, speakers: int) -> None:
        self._windows, self._speakers = windows, speakers

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        waveform, labels = self._windows.labelled(index, speakers=self._speakers)
        return {"waveforms": waveform, "labels": labels}


class TrainingWindows(Dataset[Tensor]):
    """Windows `first` to `first + count` of the endless seeded sequence of training windows.

    Each is float32 [1, samples]. A share `simulated_share` of them are simulated conversations
    of `speakers`; the others are cut from `recordings` at random places, some of them spliced or
    mixed with another place.

    With the `turns` of each recording, `labelled` tells who talks in a window.
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
        turns: Sequence[Turns] | None = None,
    ) -> None:
        self._recordings, self._speakers = recordings, speakers
        self._geometry, self._turns = geometry, turns or [()] * len(recordings)
        self._size, self._rate = geometry.window_samples, geometry.sample_rate_hz
        self._seed, self._first, self._count = seed, first, count
        shares = {(True, True): simulated_share, (True, False): 0.0, (False, True): 1.0}
        self._simulated_share = shares[bool(recordings), bool(speakers)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensor:
        return self._window(index)[0]

    def labelled(self, index: int, *, speakers: int) -> tuple[Tensor, Tensor]:
        """A window, and who talks in it, float32 [frames, speakers]."""
        waveform, turns = self._window(index)
        return waveform, frame_labels(turns, self._geometry, speakers=speakers)

    def _window(self, index: int) -> tuple[Tensor, Turns]:
        rng = np.random.default_rng([self._seed, self._first + index])
        simulated = rng.random() < self._simulated_share
        samples, turns = self._simulated(rng) if simulated else self._real(rng)
        if rng.random() < SPEED_SHARE:
            before, samples = len(samples), change_speed(samples, rng)
            turns = stretched(turns, before=before, after=len(samples))
        samples = np.ascontiguousarray(samples[: self._size])
        if rng.random() < BABBLE_SHARE:
            samples = add_babble(samples, self._babble(rng), rng)
        samples = augment(samples, rng, sample_rate_hz=self._rate)
        return torch.from_numpy(samples).unsqueeze(0), turns

    def _longer(self) -> int:
        """Samples that still fill a window when played fastest."""
        return 1 + max(-(-self._size * down // up) for up, down in SPEEDS)

    def _simulated(self, rng: np.random.Generator) -> tuple[Samples, Turns]:
        """A conversation, most often in a room."""

        def room(places: int) -> list[Way]:
            responses = room_responses(rng, sources=places, sample_rate_hz=self._rate)
            return [partial(play_in_room, response=response) for response in responses]

        made = simulate(
            self._speakers,
            rng,
            size=self._longer(),
            sample_rate_hz=self._rate,
            room=room if rng.random() < ROOM_SHARE["simulated"] else None,
        )
        return made.samples, made.turns

    def _real(self, rng: np.random.Generator) -> tuple[Samples, Turns]:
        """A place of a recording; spliced, talked over and moved to another room at random."""
        samples, turns = self._cut(rng)
        if rng.random() < SPLICE_SHARE:
            at = int(rng.integers(len(samples)))
            other, others = self._cut(rng)
            samples[at:] = other[at:]
            turns = spliced(turns, others, at=at, size=len(samples))
        if rng.random() < MIX_SHARE:
            over = self._speakers and rng.random() < self._simulated_share
            other, others = self._simulated(rng) if over else self._cut(rng)
            turns = (*turns, *others)
            level = np.sqrt((np.mean(samples**2) + 1e-9) / (np.mean(other**2) + 1e-9))
            samples += other * np.float32(level * 10 ** (rng.uniform(*MIX_DB) / 20))
        if rng.random() < ROOM_SHARE["real"]:
            response = room_responses(rng, sources=1, sample_rate_hz=self._rate)[0]
            samples = play_in_room(samples, response)
        return samples, turns

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

    def _cut(self, rng: np.random.Generator) -> tuple[Samples, Turns]:
        """A copy of a random place of a random recording, the longer ones more often."""
        lengths = np.array([len(recording) for recording in self._recordings], np.float64)
        chosen = int(rng.choice(len(lengths), p=lengths / lengths.sum()))
        recording, turns = self._recordings[chosen], self._turns[chosen]
        size = self._longer()
        if len(recording) < size:
            # As long as a window at least (checked on loading): the rest is the end, backwards.
            turns = mirrored(turns, size=len(recording))
            recording = np.concatenate([recording, recording[::-1]])
        offset = int(rng.integers(len(recording) - size + 1))
        samples = recording[offset : offset + size].copy()
        return samples, cut_turns(turns, start=offset, size=size)


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
