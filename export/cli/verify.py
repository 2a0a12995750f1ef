"""`diarport verify`: is a bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, QuietOption, print_json, say


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    calibration_audio: Annotated[
        list[Path] | None,
        typer.Option(help="Audio that it should have been calibrated on; can be repeated."),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Hash every file of a bundle again and compare with its manifest.

    Exits with 2 and the list of all differences when a file is changed, missing or unlisted, or
    when recipes were calibrated on other audio than the bundle's record, or the audio given, says.

    Examples:

    - `diarport verify out/sinc-1bi`

    - `diarport verify out/sinc-1bi --calibration-audio train/`
    """
    from ..bundle import verify_bundle
    from .calibrating import verify_calibration

    read = verify_bundle(bundle)
    if calibration_audio:
        verify_calibration(bundle, read, calibration_audio)
    if json:
        print_json(
            {
                "content_sha256": read.content_sha256,
                "artifacts": {a.path: a.sha256 for a in read.content.artifacts},
                "parity": {p.artifact_path: p.verdict.value for p in read.content.parity},
            }
        )
        return
    say(
        f"{bundle}: all files match, content {read.content_sha256[:16]}, "
        f"{len(read.content.artifacts)} artifacts",
        quiet=quiet,
    )
