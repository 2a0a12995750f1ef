"""Stress windows hold what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from export.audio import Window, cut_windows, load_recording
from export.checkpoint import LoadedModel
from export.pyannote_import import sample_recording
from runtime_checks.parity.stress import stress_windows


@pytest.fixture(scope="module")
def speech_windows(zoo_model: LoadedModel) -> list[Window]:
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    return cut_windows(recording, zoo_model.spec.geometry, hop_s=5.0)


@pytest.fixture(scope="module")
def stress(speech_windows: list[Window]) -> dict[str, Window]:
    return {window.uri: window for window in stress_windows(speech_windows)}


def rms_dbfs(window: Window) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(window.samples, dtype=np.float64)))))


def test_every_window_is_a_model_input_in_range(stress: dict[str, Window]) -> None:
    assert len(stress) == 7
    for window in stress.values():
        assert window.samples.dtype == np.float32
        assert window.samples.shape == (80000,)
        assert np.abs(window.samples).max() <= 1


def test_windows_are_what_their_names_say(stress: dict[str, Window]) -> None:
    assert not stress["stress:digital-silence"].samples.any()
    clipped = np.abs(stress["stress:full-scale-clipping"].samples)
    assert 0.01 < (clipped == 1).mean() < 0.9
    assert stress["stress:dc-offset"].samples.mean() == pytest.approx(0.5, abs=0.01)
    assert stress["stress:dc-offset"].samples.std() > 0.01
    assert rms_dbfs(stress["stress:white-noise"]) == pytest.approx(-20, abs=0.1)
    assert rms_dbfs(stress["stress:quiet-speech"]) == pytest.approx(-60, abs=0.1)
    assert rms_dbfs(stress["stress:quiet-typical-speech"]) == pytest.approx(-60, abs=0.1)
    short = stress["stress:short-padded"]
    assert short.valid_samples == 40000
    assert short.samples[:40000].any() and not short.samples[40000:].any()


def test_they_are_the_same_every_time(
    stress: dict[str, Window], speech_windows: list[Window]
) -> None:
    for window in stress_windows(speech_windows):
        assert np.array_equal(window.samples, stress[window.uri].samples)


def test_a_silent_recording_still_makes_all_of_them() -> None:
    silent = Window("nothing", 0.0, np.zeros(16000, np.float32), 16000)
    made = stress_windows([silent])
    assert len(made) == 7
    assert all(np.isfinite(window.samples).all() for window in made)
