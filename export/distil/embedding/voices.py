"""New voices from few speakers: another speed, and another vocal tract.

Playing faster or slower moves pitch and formants together; filtering the short-time spectrum by
the ratio of its envelope, stretched along the frequencies, to itself moves the formants alone.
The teacher embeds what comes out, so nobody has to know whom it sounds like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

Samples = NDArray[np.float32]

SPEED_PERCENT = (80, 126)
FORMANTS = (0.86, 1.16)
UNCHANGED_SHARE = 0.1

FRAME, HOP = 512, 128
ENVELOPE_COEFFICIENTS = 26
"""Of the real cepstrum: below the period of every pitch up to 600 Hz at 16 kHz."""
MOST_GAIN = 2.3  # natural logarithm: 20 dB


@dataclass(frozen=True)
class Voice:
    """Played in `percent` of the time; formants moved up by the factor `formants`."""

    percent: int = 100
    formants: float = 1.0


def draw_voice(rng: np.random.Generator) -> Voice:
    """A random voice; a share of them is the speaker's own."""
    if rng.random() < UNCHANGED_SHARE:
        return Voice()
    low, high = np.log(FORMANTS)
    return Voice(int(rng.integers(*SPEED_PERCENT)), float(np.exp(rng.uniform(low, high))))


def speak(samples: Samples, voice: Voice) -> Samples:
    """The utterance in another voice, float32 [samples * percent / 100]."""
    out = samples
    if voice.percent != 100:
        out = resample_poly(out, voice.percent, 100).astype(np.float32)
    return out if voice.formants == 1 else move_formants(out, voice.formants)


def move_formants(samples: Samples, factor: float) -> Samples:
    """Spectral envelopes stretched by a factor along the frequencies; pitch and time stay."""
    window = np.sqrt(np.hanning(FRAME + 1)[:-1])
    count = -(-len(samples) // HOP) + FRAME // HOP
    padded = np.zeros((count - 1) * HOP + FRAME)
    padded[FRAME - HOP : FRAME - HOP + len(samples)] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP] * window
    spectra = np.fft.rfft(frames)
    envelope = _log_envelopes(np.log(np.abs(spectra) + 1e-5))
    bins = np.arange(envelope.shape[1])
    places = np.minimum(bins / factor, bins[-1])
    below = np.minimum(places.astype(int), bins[-1] - 1)
    share = places - below
    moved = envelope[:, below] * (1 - share) + envelope[:, below + 1] * share
    gains = np.exp(np.clip(moved - envelope, -MOST_GAIN, MOST_GAIN))
    shaped = np.fft.irfft(spectra * gains) * window
    out = np.zeros_like(padded)
    for offset in range(0, FRAME, HOP):
        out[offset:][: (count - offset // HOP) * HOP].reshape(-1, HOP)[:] += shaped[
            : count - offset // HOP, offset : offset + HOP
        ]
    # Four squared windows overlap everywhere, and add up to two.
    kept: Samples = (out[FRAME - HOP :][: len(samples)] / 2).astype(np.float32)
    return kept


def _log_envelopes(log_magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    cepstra = np.fft.irfft(log_magnitudes)
    cepstra[:, ENVELOPE_COEFFICIENTS : FRAME - ENVELOPE_COEFFICIENTS + 1] = 0
    envelopes: NDArray[np.float64] = np.fft.rfft(cepstra).real
    return envelopes
