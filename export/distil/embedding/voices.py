"""New voices from few speakers: another speed, and another vocal tract.

Playing faster or slower moves pitch and formants together; filtering the short-time spectrum by
the ratio of its envelope, stretched along the frequencies, to itself moves the formants alone.
The teacher embeds what comes out, so nobody has to know whom it sounds like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import resample_poly
from scipy.spatial.distance import cdist

Samples = NDArray[np.float32]

SPEED_PERCENT = (68, 150)
FORMANTS = (0.78, 1.3)
FORMANT_KNOTS_HZ = (500.0, 1500.0, 3500.0)
FORMANT_SPREAD = 0.1
UNCHANGED_SHARE = 0.1

FRAME, HOP = 512, 128
ENVELOPE_COEFFICIENTS = 26
"""Of the real cepstrum: below the period of every pitch up to 600 Hz at 16 kHz."""
MOST_GAIN = 2.3  # natural logarithm: 20 dB
WINDOW = np.sqrt(np.hanning(FRAME + 1)[:-1])
LIKE_BINS, LIKE_FRAMES, QUIET_SHARE = 4, 7, 0.4


@dataclass(frozen=True)
class Voice:
    """Played in `percent` of the time; formants moved up by the factors `formants` at
    `FORMANT_KNOTS_HZ`: throats and mouths differ in more than their length."""

    percent: int = 100
    formants: tuple[float, ...] = (1.0, 1.0, 1.0)


def draw_voice(rng: np.random.Generator) -> Voice:
    """A random voice; a share of them is the speaker's own."""
    if rng.random() < UNCHANGED_SHARE:
        return Voice()
    low, high = np.log(FORMANTS)
    factors = np.exp(rng.uniform(low, high) + rng.normal(0, FORMANT_SPREAD, len(FORMANT_KNOTS_HZ)))
    return Voice(int(rng.integers(*SPEED_PERCENT)), tuple(float(factor) for factor in factors))


def speak(samples: Samples, voice: Voice, *, sample_rate_hz: int) -> Samples:
    """The utterance in another voice, float32 [samples * percent / 100]."""
    out = samples
    if voice.percent != 100:
        out = resample_poly(out, voice.percent, 100).astype(np.float32)
    if voice == Voice(voice.percent):
        return out
    return move_formants(out, voice.formants, sample_rate_hz=sample_rate_hz)


def move_formants(samples: Samples, factors: tuple[float, ...], *, sample_rate_hz: int) -> Samples:
    """Spectral envelopes stretched along the frequencies by factors at `FORMANT_KNOTS_HZ`; pitch
    and time stay."""
    spectra = _spectra(samples)
    envelope = _log_envelopes(np.log(np.abs(spectra) + 1e-5))
    bins = np.arange(envelope.shape[1])
    factor = np.interp(bins * sample_rate_hz / FRAME, FORMANT_KNOTS_HZ, factors)
    places = np.minimum(bins / factor, bins[-1])
    below = np.minimum(places.astype(int), bins[-1] - 1)
    share = places - below
    moved = envelope[:, below] * (1 - share) + envelope[:, below + 1] * share
    return _shaped(spectra, moved - envelope, size=len(samples))


def borrow_mouth(samples: Samples, other: Samples, share: float) -> Samples:
    """Spectral envelopes moved by `share` towards those with which another speaker says the like.

    A frame's like is the other speaker's whose envelope differs least from it, both without their
    speakers' means and levels; moves are averaged over `LIKE_FRAMES`. Pitch, time and level stay.
    """
    spectra = _spectra(samples)
    mine = _log_envelopes(np.log(np.abs(spectra) + 1e-5))
    theirs = _log_envelopes(np.log(np.abs(_spectra(other)) + 1e-5))
    level = theirs.mean(axis=1)
    theirs = theirs[level > np.quantile(level, QUIET_SHARE)]
    mine, theirs = (each - each.mean(axis=1, keepdims=True) for each in (mine, theirs))
    distances = cdist(
        (mine - mine.mean(axis=0))[:, ::LIKE_BINS],
        (theirs - theirs.mean(axis=0))[::LIKE_BINS, ::LIKE_BINS],
        "sqeuclidean",
    )
    wanted = theirs[LIKE_BINS * distances.argmin(axis=1)]
    move = uniform_filter1d(wanted - mine, LIKE_FRAMES, axis=0)
    return _shaped(spectra, share * move, size=len(samples))


def _spectra(samples: Samples) -> NDArray[np.complex128]:
    """Of frames that overlap by three quarters, [frames, bins]."""
    count = -(-len(samples) // HOP) + FRAME // HOP
    padded = np.zeros((count - 1) * HOP + FRAME)
    padded[FRAME - HOP : FRAME - HOP + len(samples)] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    spectra: NDArray[np.complex128] = np.fft.rfft(frames * WINDOW)
    return spectra


def _shaped(
    spectra: NDArray[np.complex128], log_gains: NDArray[np.float64], *, size: int
) -> Samples:
    """The samples [size] of spectra with gains, which are limited."""
    gains = np.exp(np.clip(log_gains, -MOST_GAIN, MOST_GAIN))
    frames = np.fft.irfft(spectra * gains) * WINDOW
    count = len(frames)
    out = np.zeros((count - 1) * HOP + FRAME)
    for offset in range(0, FRAME, HOP):
        out[offset:][: (count - offset // HOP) * HOP].reshape(-1, HOP)[:] += frames[
            : count - offset // HOP, offset : offset + HOP
        ]
    # Four squared windows overlap everywhere, and add up to two.
    kept: Samples = (out[FRAME - HOP :][:size] / 2).astype(np.float32)
    return kept


def _log_envelopes(log_magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    cepstra = np.fft.irfft(log_magnitudes)
    cepstra[:, ENVELOPE_COEFFICIENTS : FRAME - ENVELOPE_COEFFICIENTS + 1] = 0
    envelopes: NDArray[np.float64] = np.fft.rfft(cepstra).real
    return envelopes
