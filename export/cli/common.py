"""What the commands share: option types, progress bars, output in text or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..progress import Progress, silent

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Zoo name (see `diarport models`), checkpoint file or folder, or Hugging Face id."
    ),
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option("--backend", "-b", help="Backend; can be repeated. Default: all."),
]
RecipeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        "-r",
        help="Recipe; can be repeated. Default: fp32. `diarport recipes` lists them, and those "
        "that a backend refuses with the reason.",
    ),
]
BundleRecipeOption = Annotated[
    list[str] | None,
    typer.Option("--recipe", "-r", help="Recipe; can be repeated. Default: all of the bundle."),
]
AudioOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Audio file, folder or list file (.lst); can be repeated. "
        "Default: the two-speaker recording inside pyannote.audio."
    ),
]
RttmOption = Annotated[
    Path | None, typer.Option(help="Who speaks when in the audio, as RTTM; needed for DER.")
]
WindowOption = Annotated[
    float | None,
    typer.Option("--window-s", min=0.1, help="Window in seconds. Default: as trained."),
]
UemOption = Annotated[
    Path | None, typer.Option(help="Regions of the audio that the RTTM covers, as UEM.")
]
TrialsOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder of one subfolder a speaker, to compare the equal-error rate of an embedding "
        "model on."
    ),
]
HopOption = Annotated[
    float | None,
    typer.Option("--hop-s", min=0.01, help="Step of windows in seconds. Default: half a window."),
]
CollarOption = Annotated[
    float,
    typer.Option("--collar-s", min=0.0, help="Seconds not scored around reference boundaries."),
]
SkipOverlapOption = Annotated[
    bool, typer.Option("--skip-overlap", help="Leave overlapping speech out of the DER.")
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", help="Change a parity limit: NAME=NUMBER; can be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def say(text: str, *, quiet: bool = False) -> None:
    """Print a line for people, on stderr, so that stdout stays for results."""
    if not quiet:
        typer.echo(text, err=True)


def print_json(data: Any) -> None:
    """Print a result for programs, on stdout."""
    typer.echo(json.dumps(data, indent=2, sort_keys=True, allow_nan=False))


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Progress]:
    """Progress with remaining time on stderr; silent when quiet or not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of one shape as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        numeric = isinstance(rows[0][column], int | float)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
