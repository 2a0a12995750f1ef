"""Goldens: windows with the scores expected for them, so that a phone can check itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from export.audio import Recording, Window, cut_windows
from export.bundle import GoldenArrays
from export.types import ModelSpec

from ..inputs import WEIGHTS, window_inputs
from .reference import evaluate
from .stress import stress_windows

NUM_SPEECH = 2


def make_goldens(
    reference: nn.Module, spec: ModelSpec, recordings: Sequence[Recording]
) -> list[GoldenArrays]:
    """The two loudest windows of speech and every stress window, with float64 scores rounded once.

    Inputs are float32 [1, 1, samples], outputs float32 [1, frames, classes]; of an embedding model,
    weights [1, speakers, frames] and outputs [1, speakers, dimension].
    """
    step_s = spec.geometry.window_s
    speech = [w for each in recordings for w in cut_windows(each, spec.geometry, hop_s=step_s)]
    loudest = sorted(speech, key=_energy, reverse=True)[:NUM_SPEECH]
    windows = [*sorted(loudest, key=lambda window: window.name), *stress_windows(speech)]
    scores = evaluate(reference, windows, spec=spec, stage="goldens")
    return [
        GoldenArrays(
            name=window.name,
            inputs=window.samples.reshape(1, 1, -1),
            outputs=expected.astype(np.float32)[None],
            noise_floor=floor,
            weights=window_inputs(spec.inputs, window.samples).get(WEIGHTS),
        )
        for window, expected, floor in zip(
            windows, scores.float64, scores.noise_floors, strict=True
        )
    ]


def _energy(window: Window) -> float:
    return float(np.square(window.samples, dtype=np.float64).sum())
