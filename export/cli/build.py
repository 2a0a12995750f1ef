"""`diarport build`: checkpoint in, parity-checked bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .calibrating import (
    CalibrationAudioOption,
    CalibrationObserverOption,
    CalibrationRequest,
    CalibrationSecondsOption,
    SkipOption,
)
from .common import (
    AudioOption,
    BackendOption,
    CollarOption,
    HopOption,
    JsonOption,
    LimitOption,
    ModelArgument,
    QuietOption,
    RecipeOption,
    RttmOption,
    SkipOverlapOption,
    TrialsOption,
    UemOption,
    WindowOption,
    print_json,
    progress_bar,
    say,
)


def command(
    model: ModelArgument = "sinc-1bi",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Bundle directory. Default: bundles/MODEL."),
    ] = None,
    audio: AudioOption = None,
    rttm: RttmOption = None,
    uem: UemOption = None,
    trials: TrialsOption = None,
    backend: BackendOption = None,
    recipe: RecipeOption = None,
    window_s: WindowOption = None,
    hop_s: HopOption = None,
    dynamic_length: Annotated[
        bool,
        typer.Option(
            "--dynamic-length", help="Take any number of samples, where a backend supports it."
        ),
    ] = False,
    length_s: Annotated[
        list[float] | None,
        typer.Option(
            help="Take windows of this length too, where a backend prepares for several; can be "
            "repeated."
        ),
    ] = None,
    streaming: Annotated[
        bool,
        typer.Option(
            "--streaming",
            help="Make stateful artifacts too, that take a hop of new audio and go on where they "
            "stopped: of students with MFCC whose LSTMs only look back.",
        ),
    ] = False,
    streaming_hop_s: Annotated[
        float | None,
        typer.Option(min=0.02, help="Longest hop of stateful artifacts, in seconds. Default: 0.5."),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(help="Carry a whole pipeline: build this embedding model into the bundle."),
    ] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(
            help="Parameters of the pipeline, as JSON. Default: the embedding model's own."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="Accept a fallback of this operator; 'size': any size; 'slower', 'larger': what "
            "breaks a recipe's promise beside fp32. Can be repeated."
        ),
    ] = None,
    skip: SkipOption = None,
    calibration_audio: CalibrationAudioOption = None,
    calibration_observer: CalibrationObserverOption = None,
    calibration_seconds: CalibrationSecondsOption = None,
    limit: LimitOption = None,
    collar_s: CollarOption = 0.0,
    skip_overlap: SkipOverlapOption = False,
    runs: Annotated[
        int, typer.Option(min=0, help="Timed runs of each artifact for the report; 0: no timing.")
    ] = 50,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export a segmentation model, prove that the artifacts compute the same, write a bundle.

    Without --audio it uses the two-speaker recording inside pyannote.audio. A bundle whose parity
    fails goes to OUT.failed and leaves OUT as it was; the exit code is then 1. So it is, and
    nothing is written, when an operator falls back to the runtime's portable kernels or a file is
    larger than its weights explain. What a recipe makes smaller is compared with fp32 of the same
    backend, built and timed for it: slower or larger than promised fails as parity does.

    Examples:

    - `diarport build`

    - `diarport build pytorch_model.bin --audio meetings/ --rttm meetings.rttm --out bundles/mine`

    - `diarport build sinc-1bi --backend onnx_ort --recipe fp32 --recipe fp16 --window-s 2`

    - `diarport build sinc-1bi -b onnx_ort -r int8-static --calibration-audio train/`
    """
    from runtime_checks.der import DerSettings

    from ..models.running import HOP_S
    from .building import BuildRequest, run_build
    from .evidence import parity_record
    from .guarding import show_comparisons
    from .presenting import artifact_rows, exit_code, parse_limits, show_result

    request = BuildRequest(
        model=model,
        out=out,
        audio=audio or [],
        rttm=rttm,
        uem=uem,
        trials=trials,
        backends=backend or [],
        recipes=recipe or [],
        window_s=window_s,
        hop_s=hop_s,
        dynamic_length=dynamic_length,
        allow=allow or [],
        limits=parse_limits(limit),
        der_settings=DerSettings(collar_s=collar_s, skip_overlap=skip_overlap),
        runs=runs,
        lengths_s=tuple(length_s or ()),
        streaming_hop_s=streaming_hop_s or (HOP_S if streaming else None),
        skip=tuple(skip or ()),
        embedding=embedding,
        parameters=parameters,
        calibration=CalibrationRequest(
            audio=tuple(calibration_audio or ()),
            observer=calibration_observer,
            seconds=calibration_seconds,
        ),
    )
    with progress_bar(quiet=quiet or json) as progress:
        result = run_build(request, progress)
    artifacts, measured = result.bundle.content.artifacts, result.measured
    if json:
        print_json(
            {
                "bundle": str(result.folder),
                "content_sha256": result.bundle.content_sha256,
                "verdict": result.verdict.value,
                "artifacts": artifact_rows(artifacts, measured.checked, measured.latencies),
                "left_out": list(result.left_out),
                "parity": parity_record(measured.checked).model_dump(mode="json"),
                "guard_rails": [each.model_dump(mode="json") for each in measured.comparisons],
            }
        )
    else:
        show_result(artifacts, measured.checked, latencies=measured.latencies, quiet=quiet)
        show_comparisons(measured.comparisons, quiet=quiet)
        for line in result.left_out:
            say(f"note: {line}", quiet=quiet)
        say(f"wrote {result.folder} (open {result.folder / 'report.html'})", quiet=quiet)
    raise typer.Exit(exit_code(result.verdict))
