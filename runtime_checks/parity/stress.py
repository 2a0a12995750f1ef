"""Windows that are not clean speech: what a phone's microphone gives and test sets do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from export.audio import Window

QUIET_DBFS = -60.0
PREFIX = "stress:"


def stress_windows(windows: Sequence[Window]) -> list[Window]:
    """Digital silence, clipping, a DC offset, white noise, quiet speech, a short recording.

    Those with speech are made of the loudest of the given windows, which must not be empty; quiet
    speech also of the one of median loudness, since now and then a model turns rounding into
    another answer there and nothing can be judged. All are float32 in [-1, 1] and the same every
    time.
    """
    by_energy = sorted(windows, key=lambda window: float(np.square(window.samples).sum()))
    speech, typical = by_energy[-1].samples, by_energy[len(by_energy) // 2].samples
    size = len(speech)
    peak = max(float(np.abs(speech).max()), 1e-12)
    noise = np.random.default_rng(0).standard_normal(size) * 0.1
    offset = 0.5 + 0.5 * speech / peak
    half = np.where(np.arange(size) < size // 2, speech, 0.0)
    made = {
        "digital-silence": (np.zeros(size), size),
        "full-scale-clipping": (np.clip(speech * (20 / peak), -1, 1), size),
        "dc-offset": (offset, size),
        "white-noise": (np.clip(noise, -1, 1), size),
        "quiet-speech": (_quiet(speech), size),
        "quiet-typical-speech": (_quiet(typical), size),
        "short-padded": (half, size // 2),
    }
    return [
        Window(f"{PREFIX}{name}", 0.0, samples.astype(np.float32), valid)
        for name, (samples, valid) in made.items()
    ]


def _quiet(speech: NDArray[np.float32]) -> NDArray[np.float64]:
    rms = max(float(np.sqrt(np.mean(np.square(speech, dtype=np.float64)))), 1e-12)
    quiet: NDArray[np.float64] = np.clip(speech * (10 ** (QUIET_DBFS / 20) / rms), -1, 1)
    return quiet
