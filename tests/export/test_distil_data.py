"""Training windows: simulated conversations, augmentation, reading audio."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.distil.augment import augment, change_speed
from export.distil.conversations import OVERLAP_S, PAUSE_S, TURN_S, simulate
from export.distil.data import Samples, TrainingWindows, load_speakers, load_training_audio
from export.errors import AudioError
from export.types import FrameGeometry

RATE = 16000
SIZE = 5 * RATE
GEOMETRY = FrameGeometry(
    sample_rate_hz=RATE,
    window_samples=SIZE,
    num_frames=293,
    frame_step_samples=270,
    receptive_field_samples=991,
)


def tone(hertz: float, *, seconds: float) -> Samples:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


SPEAKERS = {
    "low": [tone(200, seconds=1.5), tone(220, seconds=6)],
    "middle": [tone(500, seconds=3)],
    "high": [tone(1100, seconds=0.3)],
}


def windows(seed: int = 0, *, share: float = 0.5, first: int = 0) -> TrainingWindows:
    recordings = [tone(300, seconds=5), tone(700, seconds=9)]
    return TrainingWindows(
        recordings,
        SPEAKERS,
        geometry=GEOMETRY,
        seed=seed,
        simulated_share=share,
        first=first,
        count=8,
    )


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3]))
@settings(max_examples=50, deadline=None)
def test_conversations_keep_to_their_bounds(seed: int, speakers: int) -> None:
    chosen = dict(list(SPEAKERS.items())[:speakers])
    made = simulate(chosen, np.random.default_rng(seed), size=SIZE, sample_rate_hz=RATE)
    assert made.samples.shape == (SIZE,) and made.samples.dtype == np.float32
    assert made.turns
    silent = np.ones(SIZE, bool)
    for turn in made.turns:
        assert turn.speaker in chosen
        assert 0 <= turn.start < turn.end <= SIZE
        assert turn.end - turn.start <= TURN_S[1] * RATE
        silent[turn.start : turn.end] = False
    assert not made.samples[silent].any()
    inner = np.flatnonzero(np.diff(np.concatenate([[0], silent.astype(int), [0]])))
    assert (np.diff(inner)[::2] <= PAUSE_S[1] * RATE + 1).all()
    for before, after in pairwise(made.turns):
        assert after.start >= before.start
        assert before.end - after.start <= OVERLAP_S[1] * RATE
    for name in chosen:
        own = [t for t in made.turns if t.speaker == name]
        assert all(b.start >= a.end for a, b in pairwise(own))


def test_conversations_hold_overlaps_and_pauses() -> None:
    rng = np.random.default_rng(0)
    made = [simulate(SPEAKERS, rng, size=SIZE, sample_rate_hz=RATE) for _ in range(40)]
    talking = np.zeros((40, SIZE), int)
    for row, conversation in zip(talking, made, strict=True):
        for turn in conversation.turns:
            row[turn.start : turn.end] += 1
    assert 0.02 < np.mean(talking > 1) < 0.5
    assert 0.02 < np.mean(talking == 0) < 0.5
    assert {t.speaker for c in made for t in c.turns} == set(SPEAKERS)


def test_windows_are_a_function_of_seed_and_index() -> None:
    every = [windows()[i] for i in range(8)]
    assert all(w.shape == (1, SIZE) and w.dtype == torch.float32 for w in every)
    assert all(torch.isfinite(w).all() for w in every)
    later = windows(first=5)
    assert torch.equal(later[0], every[5]) and torch.equal(later[2], every[7])
    assert not torch.equal(windows(seed=1)[0], every[0])
    assert len({w.numpy().tobytes() for w in every}) == 8


def test_share_of_simulated_windows() -> None:
    spoken, heard = windows(share=1.0), windows(share=0.0)
    for index in range(4):
        assert not torch.equal(spoken[index], heard[index])
    only_speakers = TrainingWindows(
        [], SPEAKERS, geometry=GEOMETRY, seed=0, simulated_share=0.0, first=0, count=8
    )
    assert torch.equal(only_speakers[3], spoken[3])


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_augmentation_gives_finite_samples_in_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for samples in (tone(440, seconds=1), np.zeros(RATE, np.float32)):
        out = augment(samples, rng, sample_rate_hz=RATE)
        assert out.shape == samples.shape and out.dtype == np.float32
        assert np.isfinite(out).all() and np.abs(out).max() <= 1


def test_augmentation_reaches_past_gain() -> None:
    rng = np.random.default_rng(3)
    samples = tone(440, seconds=1)
    likeness = []
    for _ in range(30):
        out = augment(samples, rng, sample_rate_hz=RATE)
        likeness.append(abs(float(np.corrcoef(samples, out)[0, 1])))
    assert max(likeness) > 0.999
    assert min(likeness) < 0.95


def test_speed_changes_length_and_pitch_together() -> None:
    rng = np.random.default_rng(0)
    samples = tone(1000, seconds=1)
    lengths = set()
    for _ in range(60):
        played = change_speed(samples, rng)
        lengths.add(len(played))
        peak_hz = np.argmax(np.abs(np.fft.rfft(played))) * RATE / len(played)
        assert peak_hz == pytest.approx(1000 * len(samples) / len(played), abs=3)
    assert len(lengths) == 8


def write(path: Path, samples: Samples) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)
    return path


def test_audio_shorter_than_a_window_is_named(tmp_path: Path) -> None:
    short = write(tmp_path / "short.wav", 0.5 * tone(300, seconds=1.25))
    with pytest.raises(AudioError, match=r"short\.wav.*1\.25 s.*shorter than a window.*5 s"):
        load_training_audio([short], GEOMETRY)


def test_speakers_are_subfolders(tmp_path: Path) -> None:
    for name in ("anna", "bert"):
        for part in (1, 2):
            write(tmp_path / name / f"{name}-{part}.wav", 0.5 * tone(300, seconds=0.5 * part))
    (tmp_path / "README").mkdir()
    speakers = load_speakers(tmp_path, sample_rate_hz=RATE)
    assert {k: [r.uri for r in v] for k, v in speakers.items()} == {
        "anna": ["anna-1", "anna-2"],
        "bert": ["bert-1", "bert-2"],
    }


def test_one_speaker_is_not_enough(tmp_path: Path) -> None:
    write(tmp_path / "anna" / "a.wav", 0.5 * tone(300, seconds=1))
    with pytest.raises(AudioError, match="1 subfolders with audio; expected at least two"):
        load_speakers(tmp_path, sample_rate_hz=RATE)
