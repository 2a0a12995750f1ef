"""What a microphone, a line and a gain stage do to a window.

The teacher labels what comes out of here, so none of this needs to keep the labels of what goes
in. Every function takes its randomness from the generator it is given and from nowhere else, so
that a training window is a function of (seed, index) alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import resample_poly
from torch import nn

from ..pyannote_import import pyannote_audio

Samples = NDArray[np.float32]

UNTOUCHED_SHARE = 0.4
FILTER_SHARE, LOW_PASS_SHARE, HIGH_PASS_SHARE, NOISE_SHARE = 0.5, 0.2, 0.15, 0.5
FILTER_DB = 8.0
FILTER_KNOTS_HZ = (0.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0)
# Between a telephone's band and that of a good microphone.
HIGH_PASS_HZ, LOW_PASS_HZ = (60.0, 300.0), (3300.0, 7000.0)
NOISE_SNR_DB = (8.0, 40.0)
NOISE_DECAY = (-0.5, 2.0)
GAIN_DB = (-18.0, 6.0)
BABBLE_SNR_DB = (8.0, 30.0)
# Playing 16 kHz audio at up/down times its length: pitch and tempo of other speakers.
SPEEDS = ((8, 7), (10, 9), (16, 15), (20, 19), (20, 21), (16, 17), (10, 11), (7, 8))


def change_speed(samples: Samples, rng: np.random.Generator) -> Samples:
    """The same audio played 5 to 17 % slower or faster."""
    up, down = SPEEDS[int(rng.integers(len(SPEEDS)))]
    played: Samples = resample_poly(samples, up, down).astype(np.float32)
    return played


def add_babble(samples: Samples, babble: Samples, rng: np.random.Generator) -> Samples:
    """The window with other people's voices under it, at a random ratio of powers."""
    power = np.mean(samples**2) * 10 ** (-rng.uniform(*BABBLE_SNR_DB) / 10)
    mixed: Samples = samples + babble * np.float32(np.sqrt(power / (np.mean(babble**2) + 1e-12)))
    return mixed


def augment(samples: Samples, rng: np.random.Generator, *, sample_rate_hz: int) -> Samples:
    """A window [samples] through a random filter, band limits, noise, gain and polarity.

    All but the filter are torch-audiomentations' transforms. A share of the windows
    (`UNTOUCHED_SHARE`) stays as it is.
    """
    if rng.random() < UNTOUCHED_SHARE:
        return samples
    out = equalise(samples, rng, sample_rate_hz) if rng.random() < FILTER_SHARE else samples
    with torch.random.fork_rng(devices=[]):
        # These transforms draw from torch's own generator.
        torch.manual_seed(int(rng.integers(2**63)))
        batch = torch.from_numpy(np.ascontiguousarray(out, np.float32))[None, None]
        for transform in _transforms(sample_rate_hz):
            batch = transform(batch, sample_rate=sample_rate_hz)
    finished: Samples = np.clip(batch[0, 0].numpy(), -1, 1)
    return finished


@cache
def _transforms(sample_rate_hz: int) -> tuple[nn.Module, ...]:
    pyannote_audio()  # sets right what torchaudio, which the transforms import, may lack
    import torch_audiomentations as ta

    shared: dict[str, Any] = {"sample_rate": sample_rate_hz, "output_type": "tensor"}
    return (
        ta.LowPassFilter(*LOW_PASS_HZ, p=LOW_PASS_SHARE, **shared),
        ta.HighPassFilter(*HIGH_PASS_HZ, p=HIGH_PASS_SHARE, **shared),
        ta.AddColoredNoise(*NOISE_SNR_DB, *NOISE_DECAY, p=NOISE_SHARE, **shared),
        ta.Gain(*GAIN_DB, p=1.0, **shared),
        ta.PolarityInversion(p=0.5, **shared),
    )


def equalise(samples: Samples, rng: np.random.Generator, sample_rate_hz: int) -> Samples:
    """Gains drawn at some frequencies and straight lines between them: another microphone."""
    knots_db = rng.uniform(-FILTER_DB, FILTER_DB, len(FILTER_KNOTS_HZ))
    size = fft.next_fast_len(len(samples), real=True)
    frequencies_hz = np.linspace(0, sample_rate_hz / 2, size // 2 + 1, dtype=np.float32)
    curve_db = np.interp(frequencies_hz, FILTER_KNOTS_HZ, knots_db)
    gains = (10 ** (curve_db / 20)).astype(np.float32)
    filtered: Samples = fft.irfft(fft.rfft(samples, size) * gains, size)[: len(samples)]
    return filtered.astype(np.float32)
