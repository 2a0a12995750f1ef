"""What a room, a microphone and a gain stage do to a window.

The teacher labels what comes out of here, so none of this needs to keep the labels of what goes
in. Every function takes its randomness from the generator it is given and from nowhere else, so
that a training window is a function of (seed, index) alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import resample_poly

Samples = NDArray[np.float32]

UNTOUCHED_SHARE = 0.4
FILTER_SHARE, BAND_SHARE, REVERB_SHARE, NOISE_SHARE = 0.5, 0.25, 0.25, 0.5
FILTER_DB = 8.0
FILTER_KNOTS_HZ = (0.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0)
# Between a telephone's band and that of a good microphone.
BAND_LOW_HZ, BAND_HIGH_HZ, BAND_ORDER = (20.0, 300.0), (3300.0, 7500.0), 12
T60_S = (0.1, 0.7)
DIRECT_TO_REVERB_DB = (-3.0, 15.0)
NOISE_SNR_DB = (8.0, 40.0)
NOISE_TILT = (0.0, 2.0)
GAIN_DB = (-18.0, 6.0)
# Playing 16 kHz audio at up/down times its length: pitch and tempo of other speakers.
SPEEDS = ((10, 9), (20, 19), (20, 21), (10, 11))


def change_speed(samples: Samples, rng: np.random.Generator) -> Samples:
    """The same audio played 5 or 10 % slower or faster."""
    up, down = SPEEDS[int(rng.integers(len(SPEEDS)))]
    played: Samples = resample_poly(samples, up, down).astype(np.float32)
    return played


def augment(samples: Samples, rng: np.random.Generator, *, sample_rate_hz: int) -> Samples:
    """A window [samples] through a random filter, room, noise, gain and polarity.

    A share of the windows (`UNTOUCHED_SHARE`) stays as it is.
    """
    if rng.random() < UNTOUCHED_SHARE:
        return samples
    response = np.ones(1, np.float32)
    size = len(samples)
    fft_size = fft.next_fast_len(size + round(T60_S[1] * sample_rate_hz), real=True)
    frequencies = np.linspace(0, sample_rate_hz / 2, fft_size // 2 + 1, dtype=np.float32)
    if rng.random() < FILTER_SHARE:
        response = response * _filter(frequencies, rng)
    if rng.random() < BAND_SHARE:
        response = response * _band(frequencies, rng)
    if rng.random() < REVERB_SHARE:
        response = response * fft.rfft(_room(rng, sample_rate_hz=sample_rate_hz), fft_size)
    out = samples
    if response.size > 1:
        out = fft.irfft(fft.rfft(samples, fft_size) * response, fft_size)[:size]
    if rng.random() < NOISE_SHARE:
        out = out + _noise(out, rng)
    gain = 10 ** (rng.uniform(*GAIN_DB) / 20) * rng.choice((-1, 1))
    finished: Samples = np.clip(out * gain, -1, 1).astype(np.float32)
    return finished


def _filter(frequencies_hz: Samples, rng: np.random.Generator) -> Samples:
    knots_db = rng.uniform(-FILTER_DB, FILTER_DB, len(FILTER_KNOTS_HZ))
    curve_db = np.interp(frequencies_hz, FILTER_KNOTS_HZ, knots_db)
    gains: Samples = (10 ** (curve_db / 20)).astype(np.float32)
    return gains


def _band(frequencies_hz: Samples, rng: np.random.Generator) -> Samples:
    """Gains of a band-pass with Butterworth slopes, without their phase."""
    low_hz, high_hz = rng.uniform(*BAND_LOW_HZ), rng.uniform(*BAND_HIGH_HZ)
    below = (low_hz / np.maximum(frequencies_hz, 1.0)) ** BAND_ORDER
    above = (frequencies_hz / high_hz) ** (2 * BAND_ORDER)
    gains: Samples = (1 / np.sqrt((1 + below) * (1 + above))).astype(np.float32)
    return gains


def _room(rng: np.random.Generator, *, sample_rate_hz: int) -> Samples:
    """Impulse response: a direct path and noise that decays by 60 dB in a random time."""
    t60_s = rng.uniform(*T60_S)
    time_s = np.arange(round(t60_s * sample_rate_hz), dtype=np.float32) / sample_rate_hz
    tail = rng.standard_normal(len(time_s)).astype(np.float32) * np.exp(-6.9 * time_s / t60_s)
    tail[0] = 0
    energy = 10 ** (-rng.uniform(*DIRECT_TO_REVERB_DB) / 10)
    response: Samples = (tail * np.sqrt(energy / np.sum(tail**2))).astype(np.float32)
    response[0] = 1
    return response


def _noise(samples: Samples, rng: np.random.Generator) -> Samples:
    """Noise whose power falls with frequency to a random exponent, at a random ratio."""
    size = len(samples)
    spectrum = fft.rfft(rng.standard_normal(size, dtype=np.float32))
    spectrum *= np.arange(1, len(spectrum) + 1, dtype=np.float32) ** (-rng.uniform(*NOISE_TILT) / 2)
    noise = fft.irfft(spectrum, size)
    power = np.mean(samples**2) * 10 ** (-rng.uniform(*NOISE_SNR_DB) / 10)
    scaled: Samples = (noise * np.sqrt(power / np.mean(noise**2))).astype(np.float32)
    return scaled
