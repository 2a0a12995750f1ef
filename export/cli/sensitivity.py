"""`diarport sensitivity`: which layers does lower precision hurt?"""

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
    ModelArgument,
    QuietOption,
    RttmOption,
    SkipOverlapOption,
    UemOption,
    WindowOption,
    print_json,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from runtime_checks.sensitivity import LayerLoss, SensitivityRecord

BAR = 10  # characters of the longest bar
EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
WIDTH_OF_FILES = 140  # columns, where the output is no terminal that tells its own


def command(
    model: ModelArgument = "sinc-1bi",
    method: Annotated[
        str | None,
        typer.Option(
            help="What is lowered: int8-weights, int8-dynamic (inputs too), int8-static (inputs "
            "and outputs, ranges from calibration). Default: the recipe's, or int8-weights."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Round as this recipe, and tell what it skips."),
    ] = None,
    backend: BackendOption = None,
    audio: AudioOption = None,
    rttm: RttmOption = None,
    uem: UemOption = None,
    calibration_audio: Annotated[
        list[Path] | None,
        typer.Option(
            help="What int8-static finds its ranges on; can be repeated. Default: the "
            "two-speaker recording inside pyannote.audio."
        ),
    ] = None,
    window_s: WindowOption = None,
    hop_s: HopOption = None,
    collar_s: CollarOption = 0.0,
    skip_overlap: SkipOverlapOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the record as JSON.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the chart.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Lower one layer at a time and measure what is lost on real audio.

    Score differences, decision flips and, with a reference, the change of DER of each layer:
    weights in int8, a scale a row, and activations where the method says so, emulated in PyTorch.
    The layers are those that `--skip` of a build takes. Choose on training or development
    audio, and report on the rest.

    Examples:

    - `diarport sensitivity`

    - `diarport sensitivity pytorch_model.bin --method int8-static --audio dev/ --rttm dev.rttm`

    - `diarport sensitivity sinc-2bi --recipe int8-dynamic -b executorch_xnnpack --html layers.html`
    """
    from runtime_checks.der import DerSettings
    from runtime_checks.report.sensitivity_page import write_sensitivity_html

    from .sensing import SensitivityRequest, run_sensitivity

    for path in filter(None, (out, html)):
        if not path.absolute().parent.is_dir():
            raise ExportError(path, found="its folder does not exist", todo="Make it first.")
    request = SensitivityRequest(
        model=model,
        method=method,
        recipe=recipe,
        backends=backend or [],
        audio=audio or [],
        rttm=rttm,
        uem=uem,
        calibration_audio=calibration_audio or [],
        window_s=window_s,
        hop_s=hop_s,
        der_settings=DerSettings(collar_s=collar_s, skip_overlap=skip_overlap),
    )
    with progress_bar(quiet=quiet or json) as progress:
        record = run_sensitivity(request, progress)
    if out:
        out.write_text(record.to_json(), encoding="utf-8")
    if html:
        write_sensitivity_html(html, record)
    if json:
        print_json(record.model_dump(mode="json"))
    elif not quiet:
        _show(record)
        for path in filter(None, (out, html)):
            say(f"wrote {path}")


def _show(record: SensitivityRecord) -> None:
    """A bar chart of decision flips with the figures, and what the recipe gains."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from runtime_checks.sensitivity import gains, rows_of

    rows = rows_of(record)
    most = max(row.loss.decision_flips for row in rows)
    title = f"{record.model}: {record.lowered}, one layer at a time; * is kept in float"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("layer", "decisions", "flipped", "max-abs", "mean-abs", "delta DER"):
        numeric = name in {"flipped", "max-abs", "mean-abs"}
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for index, row in enumerate(rows):
        if index == len(record.layers):
            table.add_section()
        table.add_row(*_cells(row, most))
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_OF_FILES)
    console.print(table)
    say(gains(record))
    swapped = [f"{row.layer} in {n}" for row in rows if (n := row.loss.speaker_swaps)]
    if swapped:
        say(f"windows whose speakers were swapped, not lost: {', '.join(swapped)}")
    if record.der:
        say(f"DER: {record.der}")
    for note in record.notes:
        say(f"note: {note}")


def _cells(row: LayerLoss, most: float) -> list[str]:
    found, style = row.loss, "green" if row.kept else "cyan"
    eighths = round(8 * BAR * found.decision_flips / most) if most else 0
    bar = "█" * (eighths // 8) + EIGHTHS[eighths % 8]
    der = "" if found.delta_der is None else f"{found.delta_der:+.2f}"
    if found.delta_der_interval:
        der += f" ({found.delta_der_interval.low:+.2f} to {found.delta_der_interval.high:+.2f})"
    return [
        f"{row.layer} *" if row.kept else row.layer,
        f"[{style}]{bar}[/]",
        f"{found.decision_flips:.2f} %",
        f"{found.max_abs:.1e}",
        f"{found.mean_abs:.1e}",
        der,
    ]
