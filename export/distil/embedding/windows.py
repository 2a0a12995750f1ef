"""Training windows put together of a pool's utterances: who is to be told apart from whom.

Everything is done to mel energies, which add up where voices do: a window is a hundred times
cheaper than one of waveforms, and so is a step. A window holds one to three voices, each in parts
of its utterance, one after the other or over each other, at levels of their own, over noise. The
weights of a voice are those that a segmentation would give: frames where it talks alone, all of
them or a stretch, seldom also those where others talk too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from .pool import VoicePool

Floats = NDArray[np.float32]

VOICES = 3
VOICE_COUNT_SHARES = (0.35, 0.4, 0.25)
TURN_FRAMES = (60, 350)
PAUSE_FRAMES = (0, 80)
OVERLAP_SHARE, OVERLAP_FRAMES = 0.3, (10, 150)
LEVEL_DB = (-6.0, 6.0)
MICROPHONE_KNOTS, MICROPHONE_DB = 7, 5.0
NOISE_SHARE, NOISE_SNR_DB, NOISE_TILT_DB = 0.7, (3.0, 30.0), (-25.0, 5.0)
BABBLE_SHARE, BABBLE_SNR_DB, BABBLE_VOICES = 0.2, (6.0, 20.0), (2, 5)
STRETCH_SHARE, OVERLAPPED_TOO_SHARE = 0.5, 0.15
SHORTEST_STRETCH = 6  # of the student's frames: half a second
DRAWS = 2


class VoiceWindows(Dataset[dict[str, Tensor]]):
    """Windows `first` to `first + count` of an endless seeded sequence over a pool.

    Each has `features` float32 [bands, frames], energies before any normalisation, `weights`
    [VOICES, frames / pooled] and `voices` [VOICES], the utterances' places in the pool; -1 where a
    window has fewer voices.
    """

    def __init__(
        self, pool: VoicePool, *, frames: int, pooled: int, seed: int, first: int, count: int
    ) -> None:
        self._pool, self._frames, self._pooled = pool, frames, pooled
        self._seed, self._first, self._count = seed, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self._seed, self._first + index, DRAWS])
        count = 1 + int(rng.choice(VOICES, p=VOICE_COUNT_SHARES))
        size = len(self._pool.targets)
        chosen = rng.choice(size, count, replace=False)
        energies, active = self._conversation([int(i) for i in chosen], rng)
        energies = self._noisy(energies, rng)
        weights = np.zeros((VOICES, -(-self._frames // self._pooled)), np.float32)
        voices = np.full(VOICES, -1)
        for place, item in enumerate(chosen):
            found = _weights(active, place, rng, pooled=self._pooled)
            if found is not None:
                weights[place], voices[place] = found, item
        return {
            "features": torch.from_numpy(energies),
            "weights": torch.from_numpy(weights),
            "voices": torch.from_numpy(voices),
        }

    def _energies(self, item: int) -> Floats:
        length = int(self._pool.lengths[item])
        energies: Floats = np.exp(self._pool.features[item, :, :length].numpy().astype(np.float32))
        return energies

    def _conversation(
        self, chosen: list[int], rng: np.random.Generator
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Energies [bands, frames] and who talks in which frame [voices, frames]."""
        total = np.zeros((self._pool.features.shape[1], self._frames), np.float32)
        active = np.zeros((len(chosen), self._frames), bool)
        spoken = [self._energies(item) * _microphone(rng, bands=len(total)) for item in chosen]
        at, speaker = -int(rng.integers(TURN_FRAMES[0])), int(rng.integers(len(chosen)))
        while at < self._frames:
            voice = spoken[speaker]
            wanted = min(int(rng.integers(*TURN_FRAMES)), voice.shape[1])
            offset = int(rng.integers(voice.shape[1] - wanted + 1))
            start, end = max(at, 0), min(at + wanted, self._frames)
            if start < end:
                total[:, start:end] += voice[:, offset + start - at : offset + end - at]
                active[speaker, start:end] = True
            at += wanted
            if rng.random() < OVERLAP_SHARE and len(chosen) > 1:
                at -= min(int(rng.integers(*OVERLAP_FRAMES)), wanted - 1)
            else:
                at += int(rng.integers(*PAUSE_FRAMES))
            speaker = (speaker + 1 + int(rng.integers(max(len(chosen) - 1, 1)))) % len(chosen)
        return total, active

    def _noisy(self, energies: Floats, rng: np.random.Generator) -> Floats:
        """Over stationary noise of a random slope, and over other voices."""
        bands, power = energies.shape[0], float(energies.mean())
        if rng.random() < BABBLE_SHARE:
            babble = np.zeros_like(energies)
            for item in rng.integers(
                len(self._pool.targets), size=int(rng.integers(*BABBLE_VOICES))
            ):
                voice = self._energies(int(item))
                babble += np.resize(voice.T, (self._frames, bands)).T
            energies = energies + babble * _scale(power, babble, rng.uniform(*BABBLE_SNR_DB))
        if rng.random() < NOISE_SHARE:
            slope = np.linspace(0, rng.uniform(*NOISE_TILT_DB), bands)
            shape = (10 ** ((slope + rng.normal(0, 2, bands)) / 10)).astype(np.float32)
            noise = shape[:, None] * rng.gamma(2.0, 0.5, energies.shape).astype(np.float32)
            energies = energies + noise * _scale(power, noise, rng.uniform(*NOISE_SNR_DB))
        return energies


def _microphone(rng: np.random.Generator, *, bands: int) -> Floats:
    """Gains [bands, 1] of a level, and of a microphone that no other window has: in few recordings,
    what a microphone does tells speakers apart better than their voices do."""
    places = np.linspace(0, bands - 1, MICROPHONE_KNOTS)
    curve_db = np.interp(np.arange(bands), places, rng.normal(0, MICROPHONE_DB, MICROPHONE_KNOTS))
    gains: Floats = 10 ** ((curve_db + rng.uniform(*LEVEL_DB))[:, None] / 10)
    return gains.astype(np.float32)


def _scale(power: float, noise: Floats, snr_db: float) -> np.float32:
    return np.float32(power * 10 ** (-snr_db / 10) / (float(noise.mean()) + 1e-12))


def _weights(
    active: NDArray[np.bool_], place: int, rng: np.random.Generator, *, pooled: int
) -> Floats | None:
    """Weights of one voice by the student's frames, or None where it has too few."""
    others = np.delete(active, place, axis=0).any(axis=0)
    counted = active[place] if rng.random() < OVERLAPPED_TOO_SHARE else active[place] & ~others
    missing = -len(counted) % pooled
    share = np.pad(counted, (0, missing)).reshape(-1, pooled).mean(axis=1).astype(np.float32)
    if rng.random() < STRETCH_SHARE:
        length = int(rng.integers(SHORTEST_STRETCH, len(share) + 1))
        start = int(rng.integers(len(share) - length + 1))
        share[:start] = 0
        share[start + length :] = 0
    if share.sum() < SHORTEST_STRETCH - 1:
        return None
    sharpness = rng.uniform(0.5, 3.0)
    weights: Floats = (share**sharpness * rng.uniform(0.3, 1.0)).astype(np.float32)
    return weights


def batch_targets(batch: dict[str, Any], targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which (window, voice) of a batch count, bool [batch, VOICES], and the targets of those."""
    counted = batch["voices"] >= 0
    return counted, targets[batch["voices"][counted]]
