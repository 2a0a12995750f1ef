"""What recipes are calibrated on: the command's options checked, and the record in the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..audio import find_audio, load_recording
from ..bundle import CALIBRATION, file_entry
from ..calibration.draw import DEFAULT_SECONDS, LEAST_SECONDS, draw, sample_set
from ..calibration.observers import DEFAULT_OBSERVER, known_observer
from ..calibration.ranges import Calibration, CalibrationRecord, is_calibrated
from ..errors import BundleError, RecipeError
from ..pipeline import Exporter
from ..types import Bundle, FileEntry, FrameGeometry, Recipe

CalibrationAudioOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Audio that recipes with fixed ranges are calibrated on: file, folder or list file; "
        "can be repeated. Default: the two-speaker recording inside pyannote.audio."
    ),
]
CalibrationObserverOption = Annotated[
    str | None,
    typer.Option(
        help="How ranges are taken from what was seen: minmax, percentile, entropy or mse. "
        f"Default: {DEFAULT_OBSERVER}."
    ),
]
CalibrationSecondsOption = Annotated[
    float | None,
    typer.Option(help=f"Audio to calibrate on, at most. Default: {DEFAULT_SECONDS:g}."),
]
SkipOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave this layer of the canonical model in float, in every recipe: "
        "frontend.conv1d.1, or frontend for all below it; can be repeated."
    ),
]


@dataclass(frozen=True)
class CalibrationRequest:
    """The options; None where one was not given."""

    audio: Sequence[Path] = ()
    observer: str | None = None
    seconds: float | None = None


def load_calibration(
    request: CalibrationRequest, recipes: Sequence[Recipe], *, geometry: FrameGeometry
) -> Calibration | None:
    """What the recipes are calibrated on; None when none of them is.

    Raises AudioError on audio that cannot be calibrated on, and RecipeError on options that no
    recipe asks for.
    """
    given = [
        f"--calibration-{name}"
        for name, value in vars(request).items()
        if value is not None and value != ()
    ]
    if not any(is_calibrated(recipe) for recipe in recipes):
        if given:
            raise RecipeError(
                ", ".join(given),
                found=f"no recipe with fixed ranges among {', '.join(r.name for r in recipes)}",
                expected="one that is calibrated, such as --recipe int8-static",
            )
        return None
    observer = known_observer(request.observer or DEFAULT_OBSERVER)
    seconds = request.seconds or DEFAULT_SECONDS
    if not request.audio:
        return Calibration(sample_set(geometry, seconds=seconds), observer)
    recordings = [
        load_recording(path, sample_rate_hz=geometry.sample_rate_hz)
        for path in find_audio(request.audio)
    ]
    return Calibration(draw(recordings, geometry, seconds=seconds), observer)


def write_calibration(exporter: Exporter, folder: Path) -> tuple[FileEntry, ...]:
    """Write the record of a build's calibration; nothing when no recipe was calibrated."""
    if not exporter.ranges:
        return ()
    drawn = exporter.calibration.drawn
    record = CalibrationRecord(
        sha256=drawn.sha256,
        observer=exporter.calibration.observer,
        seconds=drawn.seconds,
        windows=drawn.sources,
        ranges=exporter.ranges,
    )
    (folder / CALIBRATION).write_text(record.to_json(), encoding="utf-8")
    return (file_entry(folder, CALIBRATION),)


def verify_calibration(folder: Path, bundle: Bundle, audio: Sequence[Path]) -> None:
    """Draw from audio what a bundle says it was calibrated on, and compare.

    Raises BundleError when nothing in it was calibrated, or on other samples.
    """
    if not any(a.recipe.calibration_sha256 for a in bundle.content.artifacts):
        raise BundleError(folder, found="no recipe that was calibrated", expected="one that was")
    record = CalibrationRecord.model_validate_json((folder / CALIBRATION).read_text("utf-8"))
    geometry = bundle.content.spec.geometry
    recordings = [
        load_recording(path, sample_rate_hz=geometry.sample_rate_hz) for path in find_audio(audio)
    ]
    seconds = max(record.seconds, LEAST_SECONDS)
    drawn = draw(recordings, geometry, seconds=seconds)
    if drawn.sha256 != record.sha256:
        raise BundleError(
            folder,
            found=f"calibrated on {record.sha256[:12]} ({record.seconds:g} s)",
            expected=f"{drawn.sha256[:12]} ({drawn.seconds:g} s), drawn from the audio given",
            todo="Give the audio it was built with, or build it again.",
        )


def calibration_notes(exporter: Exporter, *, given: bool) -> tuple[str, ...]:
    """What a reader of the report must know of the calibration."""
    if not exporter.ranges:
        return ()
    drawn = exporter.calibration.drawn
    said = f"calibrated on {drawn.seconds:g} s of audio ({drawn.sha256[:12]})"
    if not given:
        said += ": the recording inside pyannote.audio, as no --calibration-audio was given"
    return (said, *drawn.notes)
