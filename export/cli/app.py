"""The command `diarport`: one module a command, composed here."""

from __future__ import annotations

import sys

import typer

from ..errors import ExportError
from .bench import command as bench
from .build import command as build
from .check import command as check
from .diarize import command as diarize
from .distill import command as distill
from .distill_embedding import command as distill_embedding
from .doctor import command as doctor
from .models import command as models
from .pareto import command as pareto
from .recipes import command as recipes
from .search import command as search
from .sensitivity import command as sensitivity
from .verify import command as verify

EXIT_CODES = (
    "Exit codes: 0 pass, 1 parity or a budget failed, 2 bad input or usage, "
    "3 a backend that was asked for by name is unavailable."
)

app = typer.Typer(
    name="diarport",
    help="Export speaker diarization networks to phones and prove that they still work there.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for command in (
    build,
    check,
    verify,
    diarize,
    bench,
    pareto,
    sensitivity,
    distill,
    distill_embedding,
    search,
    models,
    recipes,
    doctor,
):
    app.command(command.__module__.rsplit(".", 1)[1].replace("_", "-"))(command)


def main() -> None:
    """Run the command line; expected errors become one message and a stable exit code."""
    try:
        app()
    except ExportError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
