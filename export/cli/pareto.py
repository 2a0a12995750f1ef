"""`diarport pareto`: which models, backends and recipes are worth shipping?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ExportError
from .common import (
    AudioOption,
    BackendOption,
    CollarOption,
    HopOption,
    JsonOption,
    QuietOption,
    RttmOption,
    SkipOverlapOption,
    UemOption,
    print_json,
    print_table,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from runtime_checks.pareto import ParetoRecord


def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Bundles, folders of bundles, or models, which are built. Default: all that ship."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The page with the plot and the table.")
    ] = Path("pareto.html"),
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    bundles: Annotated[Path, typer.Option(help="Folder for the bundles of models.")] = Path(
        "bundles"
    ),
    baseline: Annotated[
        str,
        typer.Option(
            help="Model whose PyTorch eager time is 1: any model, or a student's name, untrained."
        ),
    ] = "sinc-4bi-2lin",
    audio: AudioOption = None,
    rttm: RttmOption = None,
    uem: UemOption = None,
    backend: BackendOption = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", "-r", help="Recipe; can be repeated. Default: all."),
    ] = None,
    hop_s: HopOption = None,
    collar_s: CollarOption = 0.0,
    skip_overlap: SkipOverlapOption = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the timed runs.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each artifact.")] = 50,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Plot diarization error, size and time of every model, backend and recipe.

    All artifacts are measured on the same audio, and timed in turns in one run; times are ratios to
    PyTorch eager of the baseline in that run. Marked are those that no other one beats in all
    three. What cannot run here is listed with its reason.

    Examples:

    - `diarport pareto`

    - `diarport pareto bundles/ --audio meetings/ --rttm meetings.rttm --out meetings.html`

    - `diarport pareto sinc-1bi students/mine --baseline pytorch_model.bin --markdown pareto.md`
    """
    from runtime_checks.der import DerSettings
    from runtime_checks.report.pareto_page import markdown_table, write_pareto_html

    from .comparing import ParetoRequest, run_pareto

    for path in filter(None, (out, markdown)):
        if not path.absolute().parent.is_dir():
            raise ExportError(path, found="its folder does not exist", todo="Make it first.")
    request = ParetoRequest(
        sources=sources or [],
        bundles=bundles,
        baseline=baseline,
        audio=audio or [],
        rttm=rttm,
        uem=uem,
        backends=backend or [],
        recipes=recipe or [],
        hop_s=hop_s,
        der_settings=DerSettings(collar_s=collar_s, skip_overlap=skip_overlap),
        threads=threads,
        runs=runs,
    )
    with progress_bar(quiet=quiet or json) as progress:
        record = run_pareto(request, progress)
    write_pareto_html(out, record)
    if markdown:
        markdown.write_text(markdown_table(record), encoding="utf-8")
    if json:
        print_json(record.model_dump(mode="json"))
    elif not quiet:
        _show(record)
        say(f"wrote {out}")


def _show(record: ParetoRecord) -> None:
    from runtime_checks.report.pareto_page import figures

    rows = [{"": "*" if point.non_dominated else "", **figures(point)} for point in record.points]
    print_table(f"* nothing beats it; time 1 is PyTorch eager of {record.baseline}", rows)
    for point in record.points:
        for reason in point.reasons:
            say(f"{point.verdict.value} {point.name}: {reason}")
    for note in record.notes:
        say(f"note: {note}")
