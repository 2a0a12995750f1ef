"""`diarport diarize`: who spoke when, in a file, a pipe or a microphone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import QuietOption, say


def command(
    audio: Annotated[
        str, typer.Argument(help="Audio file of any length, or - for a WAV on stdin.")
    ] = "-",
    bundle: Annotated[
        Path | None,
        typer.Option(help="A bundle with a pipeline. Default: the models that ship."),
    ] = None,
    segmentation: Annotated[
        str | None,
        typer.Option(help="Without a bundle: the segmentation. Default: sinc-2bi."),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="Without a bundle: the embedding model.")
    ] = None,
    parameters: Annotated[
        Path | None, typer.Option(help="Without a bundle: parameters of the pipeline, as JSON.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="Backend of a bundle's artifacts.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Recipe of a bundle's artifacts.")
    ] = None,
    online: Annotated[
        bool,
        typer.Option("--online", help="Decide while listening, and never change a decision."),
    ] = False,
    windowed: Annotated[
        bool,
        typer.Option(
            "--windowed", help="Online: score whole windows, even where a stateful artifact is."
        ),
    ] = False,
    microphone: Annotated[
        bool, typer.Option("--microphone", help="Listen to the microphone until Ctrl-C.")
    ] = False,
    speakers: Annotated[
        int | None, typer.Option(min=1, help="How many speakers there are, if that is known.")
    ] = None,
    min_speakers: Annotated[int, typer.Option(min=1, help="At least so many speakers.")] = 1,
    max_speakers: Annotated[
        int | None, typer.Option(min=1, help="At most so many speakers.")
    ] = None,
    latency_s: Annotated[
        float | None,
        typer.Option(help="Online: seconds to wait before deciding, from a hop to a window."),
    ] = None,
    hop_s: Annotated[
        float | None, typer.Option(min=0.05, help="Step of windows in seconds.")
    ] = None,
    rttm: Annotated[Path | None, typer.Option(help="Write turns as RTTM.")] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Write JSON lines: online a line a hop with its times, else a turn."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the turns as SVG.")] = None,
    play: Annotated[
        bool, typer.Option("--play", help="Play the audio meanwhile (extra `microphone`).")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    quiet: QuietOption = False,
) -> None:
    """Say who spoke when, from exported artifacts, in constant memory online.

    Without --rttm or --json, turns are printed as RTTM. The whole file is heard before voices are
    compared; with --online turns come as they are decided. Where the audio breaks off or Ctrl-C is
    pressed, what was heard is still decided and written.

    Examples:

    - `diarport diarize meeting.wav --rttm meeting.rttm --plot meeting.svg`

    - `diarport diarize - --online --latency-s 1 --json decisions.jsonl`

    - `diarport diarize call.flac --bundle bundles/mine --speakers 2`
    """
    from .diarizing import bundle_pipeline, model_pipeline
    from .diarizing_run import Request, changed, run

    request = Request(
        audio=audio,
        microphone=microphone,
        online=online or microphone,
        play=play,
        speakers=speakers,
        min_speakers=min_speakers,
        max_speakers=max_speakers,
        rttm=rttm,
        json=json,
        plot=plot,
        quiet=quiet,
    )
    request.check()
    stateful = request.online and not windowed
    if bundle is not None:
        if segmentation or embedding or parameters:
            raise typer.BadParameter("a bundle brings its own models and parameters")
        pipeline = bundle_pipeline(
            bundle, backend=backend, recipe=recipe, threads=threads, stateful=stateful
        )
    else:
        if backend or recipe:
            raise typer.BadParameter("name a bundle whose artifacts these are (--bundle)")
        pipeline = model_pipeline(
            segmentation, embedding, parameters=parameters, threads=threads, stateful=stateful
        )
    say(f"with {pipeline.said}", quiet=quiet)
    run(request, changed(pipeline, request, latency_s=latency_s, hop_s=hop_s))
