"""Calibration: what is drawn from audio, the ranges observers give, and what cannot be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from export.audio import Recording, load_recording
from export.bundle import content_sha256, hash_path, read_bundle
from export.calibration.draw import AUDIBLE, draw, sample_set
from export.calibration.observers import OBSERVERS, STEPS, observe
from export.calibration.ranges import (
    Calibration,
    CalibrationRecord,
    LayerRanges,
    Ranges,
    calibrated_recipe,
)
from export.errors import AudioError, RecipeError
from export.pyannote_import import sample_recording
from export.types import FrameGeometry, Precision, Recipe

RATE = 16000
WINDOW = 2 * RATE
GEOMETRY = FrameGeometry(
    sample_rate_hz=RATE,
    window_samples=WINDOW,
    num_frames=115,
    frame_step_samples=270,
    receptive_field_samples=991,
)
Floats = NDArray[np.float32]


def recording(samples: Floats, *, name: str = "made", notes: tuple[str, ...] = ()) -> Recording:
    return Recording(name, Path(f"{name}.wav"), samples.astype(np.float32), RATE, notes)


def loud(seconds: float, *, seed: int = 0) -> Floats:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (0.1 * noise).astype(np.float32)


def test_windows_come_evenly_from_all_recordings_and_at_most_as_many_as_asked_for() -> None:
    first, second = recording(loud(20), name="a"), recording(loud(20, seed=1), name="b")
    drawn = draw([first, second], GEOMETRY, seconds=12)
    assert drawn.windows.shape == (6, WINDOW)
    assert drawn.seconds == 12
    assert [name.partition("@")[0] for name in drawn.sources] == ["a"] * 3 + ["b"] * 3
    assert draw([first, second], GEOMETRY).seconds == 40
    np.testing.assert_array_equal(drawn.windows[0], first.samples[:WINDOW])
    np.testing.assert_array_equal(drawn.windows[-1], second.samples[-WINDOW:])


def test_silent_windows_and_unfinished_ones_are_left_out() -> None:
    samples = np.concatenate([loud(8), np.zeros(4 * RATE, np.float32), loud(9)])
    drawn = draw([recording(samples)], GEOMETRY)
    assert drawn.sources == tuple(f"made@{start:.2f}s" for start in (0, 2, 4, 6, 12, 14, 16, 18))
    assert (np.sqrt((drawn.windows**2).mean(axis=1)) > AUDIBLE).all()


def test_the_hash_is_of_samples_and_not_of_names() -> None:
    samples = loud(12)
    drawn = draw([recording(samples, name="a")], GEOMETRY)
    assert drawn.sha256 == draw([recording(samples, name="b")], GEOMETRY).sha256
    samples[100] += 1e-3
    assert drawn.sha256 != draw([recording(samples, name="a")], GEOMETRY).sha256


def test_the_default_is_the_recording_in_pyannote_audio() -> None:
    samples = load_recording(sample_recording()[0], sample_rate_hz=RATE).samples
    drawn = sample_set(GEOMETRY)
    assert drawn.seconds == 30
    np.testing.assert_array_equal(drawn.windows.ravel(), samples[: 15 * WINDOW])


def test_what_was_converted_is_told() -> None:
    drawn = draw([recording(loud(12), notes=("resampled from 8000 Hz to 16000 Hz",))], GEOMETRY)
    assert drawn.notes == ("calibration: made: resampled from 8000 Hz to 16000 Hz",)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.zeros(20 * RATE, np.float32), "silence: 10 windows below -70 dBFS"),
        (loud(1.5), "1.50 s; expected calibration audio of at least a window (2 s)"),
        (loud(6), "6.0 s of audible whole windows to calibrate on; expected at least 10 s"),
    ],
)
def test_audio_that_tells_no_ranges_is_refused(samples: Floats, expected: str) -> None:
    with pytest.raises(AudioError) as raised:
        draw([recording(samples)], GEOMETRY)
    assert expected in str(raised.value)


def test_too_few_seconds_are_refused() -> None:
    with pytest.raises(AudioError, match="5 s asked for; expected at least 10"):
        draw([recording(loud(20))], GEOMETRY, seconds=5)


def tailed(outlier: float) -> Floats:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    values[0] = outlier
    return values


def test_minmax_holds_everything_and_percentile_all_but_the_tails() -> None:
    values = tailed(50)
    assert observe(values, "minmax") == (float(values.min()), 50.0)
    low, high = observe(values, "percentile")
    outside = ((values < low) | (values > high)).mean()
    assert 1e-4 < outside < 3e-4
    assert 3.5 < high < 4.5


@pytest.mark.parametrize("observer", ["mse", "entropy"])
def test_an_outlier_is_clipped_where_that_costs_less_than_coarse_steps(observer: str) -> None:
    values = tailed(50)
    assert 3 < observe(values, observer)[1] < 45


def test_mse_has_the_least_error() -> None:
    values = tailed(12)
    errors = {
        name: error(values, *observe(values, name)) for name in OBSERVERS if name != "entropy"
    }
    assert min(errors, key=errors.__getitem__) == "mse"


def error(values: Floats, low: float, high: float) -> float:
    step = (high - low) / STEPS
    rounded = np.clip(np.round((values - low) / step), 0, STEPS) * step + low
    return float(((rounded - values) ** 2).mean())


@given(
    values=arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e3, 1e3, width=32)),
    observer=st.sampled_from(["minmax", "percentile", "mse"]),
)
@settings(max_examples=40, deadline=None)
def test_ranges_hold_zero_and_are_within_what_was_seen(values: Floats, observer: str) -> None:
    low, high = observe(values, observer)
    assert min(0.0, float(values.min())) - 1e-3 <= low <= 0 <= high
    assert high <= max(0.0, float(values.max())) + 1e-3


@pytest.mark.parametrize("observer", sorted(OBSERVERS))
def test_a_tensor_of_zeros_has_a_range(observer: str) -> None:
    assert observe(np.zeros(100, np.float32), observer) == (0, 0)


def test_what_is_no_observer_or_not_finite_is_refused() -> None:
    with pytest.raises(RecipeError, match="expected one of minmax, percentile, entropy, mse"):
        observe(np.ones(3, np.float32), "median")
    with pytest.raises(RecipeError, match="not finite"):
        observe(np.array([1, np.nan], np.float32), "minmax")


def test_a_calibrated_recipe_names_audio_length_and_observer() -> None:
    recipe = Recipe(
        name="int8-static",
        backend="onnx_ort",
        weight_precision=Precision.INT8,
        activation_precision=Precision.INT8,
        options={"calibrated": True},
    )
    drawn = draw([recording(loud(12))], GEOMETRY)
    made = calibrated_recipe(recipe, Calibration(drawn, "mse"))
    assert made.calibration_sha256 == drawn.sha256
    assert made.options["calibration"] == {"observer": "mse", "seconds": 12.0}
    assert recipe.calibration_sha256 is None


def test_ranges_round_trip_through_json() -> None:
    ranges = Ranges(
        layers={"a": LayerRanges(inputs=(-1.5, 2), outputs=(0, 3), weight_scales=(0.1, 0.2))}
    )
    assert Ranges.model_validate_json(ranges.to_json()) == ranges


Run = Callable[..., tuple[int, str]]
STATIC = ("build", "sinc-1bi", "-b", "onnx_ort", "-r", "int8-static", "--runs", "0")


@pytest.mark.parametrize(
    ("samples", "rate", "expected"),
    [
        (np.zeros(30 * RATE), RATE, "calibration.wav: silence: 6 windows below -70 dBFS"),
        (loud(3), RATE, "calibration.wav: 3.00 s; expected calibration audio of at least a window"),
    ],
)
def test_the_command_refuses_audio_to_calibrate_on(
    diarport: Run, tmp_path: Path, samples: Floats, rate: int, expected: str
) -> None:
    path = tmp_path / "calibration.wav"
    soundfile.write(path, samples, rate)
    code, said = diarport(*STATIC, "--out", tmp_path / "out", "--calibration-audio", path)
    assert code == 2
    assert expected in said
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_what_is_not_audio(diarport: Run, tmp_path: Path) -> None:
    path = tmp_path / "calibration.wav"
    path.write_text("no audio")
    code, said = diarport(*STATIC, "--calibration-audio", path)
    assert code == 2
    assert "calibration.wav: not audio" in said


def test_the_command_refuses_options_that_no_recipe_asks_for(diarport: Run) -> None:
    code, said = diarport("build", "sinc-1bi", "-b", "onnx_ort", "--calibration-observer", "mse")
    assert code == 2
    assert "--calibration-observer: no recipe with fixed ranges among fp32" in said


def test_the_command_refuses_an_observer_and_a_layer_that_do_not_exist(diarport: Run) -> None:
    code, said = diarport(*STATIC, "--calibration-observer", "median")
    assert (code, "expected one of minmax, percentile, entropy, mse" in said) == (2, True)
    code, said = diarport(*STATIC, "--skip", "frontend.conv1d.7")
    assert code == 2
    assert "--skip frontend.conv1d.7: the model has no such layer; expected one of " in said
    assert "frontend.conv1d.2, recurrent.0, linear.0, classifier" in said


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of int8-static, calibrated on half of the recording in pyannote.audio."""
    folder = tmp_path_factory.mktemp("calibrated")
    samples = load_recording(sample_recording()[0], sample_rate_hz=RATE).samples
    soundfile.write(folder / "speech.wav", samples[::2][: 10 * RATE], RATE // 2)
    command = [*STATIC, "--window-s", "2", "--calibration-audio", str(folder / "speech.wav")]
    ran = subprocess.run(
        [sys.executable, "-m", "export.cli.app", *command, "--out", str(folder / "bundle")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return folder


def test_a_bundle_tells_what_it_was_calibrated_on(built: Path) -> None:
    record = CalibrationRecord.model_validate_json((built / "bundle/calibration.json").read_text())
    recipe = read_bundle(built / "bundle").content.artifacts[0].recipe
    assert recipe.calibration_sha256 == record.sha256
    assert recipe.options["calibration"] == {"observer": "percentile", "seconds": 20.0}
    assert record.windows[:2] == ("speech@0.00s", "speech@2.00s")
    assert set(record.ranges["segmentation.int8-static.onnx"].layers) == {"frontend.conv1d.2"}
    notes = json.loads((built / "bundle/parity.json").read_text())["notes"]
    assert "calibration: speech: resampled from 8000 Hz to 16000 Hz" in notes


def test_verify_compares_the_calibration(diarport: Run, built: Path) -> None:
    code, _ = diarport(
        "verify", built / "bundle", "--calibration-audio", built / "speech.wav", "-q"
    )
    assert code == 0
    code, said = diarport("verify", built / "bundle", "--calibration-audio", sample_recording()[0])
    assert code == 2
    assert "drawn from the audio given" in said


def test_verify_refuses_a_bundle_whose_record_is_of_other_audio(
    diarport: Run, built: Path, tmp_path: Path
) -> None:
    forged = tmp_path / "bundle"
    shutil.copytree(built / "bundle", forged)
    path, manifest = forged / "calibration.json", json.loads((forged / "bundle.json").read_text())
    path.write_text(path.read_text().replace(read_hash(forged), "0" * 64))
    for entry in manifest["content"]["files"]:
        if entry["path"] == path.name:
            entry["sha256"] = hash_path(path)
    (forged / "bundle.json").write_text(json.dumps(manifest))
    manifest["content_sha256"] = content_sha256(read_bundle(forged).content)
    (forged / "bundle.json").write_text(json.dumps(manifest))
    code, said = diarport("verify", forged)
    assert code == 2
    assert "calibration.json is of 000000000000" in said


def read_hash(folder: Path) -> str:
    sha256 = read_bundle(folder).content.artifacts[0].recipe.calibration_sha256
    assert sha256 is not None
    return sha256
