"""`diarport bench`: how fast are artifacts on this machine, beside PyTorch?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BundleError, ExitCode, ExportError, RecipeError
from .benching import BenchRequest, read_record, run_bench
from .common import (
    AudioOption,
    BackendOption,
    JsonOption,
    QuietOption,
    print_json,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from runtime_checks.timing.regression import Comparison

    from ..types import BenchRecord, LatencyReport


WIDTH_OF_FILES = 140  # columns, where the output is no terminal that tells its own


def command(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Bundles, models, or untrained students by the name of their design (sinc-4bi). "
            "Default: all models that ship."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="What the bundle was built from. Default: the zoo model it names."),
    ] = None,
    window_s: Annotated[
        list[float] | None,
        typer.Option(
            "--window-s", min=0.1, help="Window of models; can be repeated. Default: as trained."
        ),
    ] = None,
    audio: AudioOption = None,
    backend: BackendOption = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe", "-r", help="Recipe; can be repeated. Default: fp32, or all of a bundle."
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Timed too: pytorch-compile, executorch-stock; can be repeated."),
    ] = None,
    peer_limit_s: Annotated[
        float, typer.Option(min=1, help="Seconds after which making a peer is given up.")
    ] = 300,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Threads, 0 for all cores; can be repeated. Default: 1."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each candidate.")] = 100,
    repeats: Annotated[
        int, typer.Option(min=1, help="Processes that the runs are shared out among.")
    ] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="Runs of each process before those.")] = 10,
    hop_s: Annotated[
        float, typer.Option(min=0.001, help="Hop that the real-time factor divides by.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of windows and order.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write every raw sample as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the distributions.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="An older run's --out: fail where a ratio to eager has grown."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Growth of a ratio that --against lets pass.")
    ] = 0.05,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time artifacts on this machine, and PyTorch eager in the same run.

    Candidates take turns in shuffled order on the same random windows of real audio; models are
    exported for the occasion. Only the ratios to PyTorch eager compare between machines; the times
    of a phone are its own. Memory is that of a process that does nothing else.

    Examples:

    - `diarport bench`: every model that ships

    - `diarport bench bundles/sinc-1bi --threads 1 --threads 0`

    - `diarport bench sinc-1bi --window-s 2 --peer pytorch-compile --peer executorch-stock`

    - `diarport bench sinc-1bi sinc-4bi --window-s 1 --window-s 30 --html growth.html`

    - `diarport bench sinc-1bi --against yesterday.json --out today.json`
    """
    from runtime_checks.timing.protocol import available_cores
    from runtime_checks.timing.regression import compare

    peers = list(dict.fromkeys(peer or []))
    _check_options([out, html], peers=peers, runs=runs, repeats=repeats)
    before = read_record(against) if against else None
    request = BenchRequest(
        sources=sources or [],
        model=model,
        windows_s=window_s or [],
        audio=audio or [],
        backends=backend or [],
        recipes=recipe or [],
        peers=peers,
        peer_limit_s=peer_limit_s,
        threads=list(dict.fromkeys(count or available_cores() for count in threads or [1])),
        runs=runs,
        repeats=repeats,
        warmup=warmup,
        hop_s=hop_s,
        seed=seed,
    )
    with progress_bar(quiet=quiet or json) as progress:
        record = run_bench(request, progress)
    compared = compare(before, record, tolerance=tolerance) if before else None
    _report(record, compared, out=out, html=html, json=json, quiet=quiet)
    _raise_on_failure(record.reports)
    if compared and compared.slower:
        raise typer.Exit(ExitCode.PARITY_FAILED)


def _check_options(
    files: Sequence[Path | None], *, peers: Sequence[str], runs: int, repeats: int
) -> None:
    """Everything that can be wrong before anything was timed."""
    from runtime_checks.timing.peers import PEERS

    for file in files:
        if file and not file.absolute().parent.is_dir():
            raise ExportError(file, found="its folder does not exist", todo="Make it first.")
    for peer in peers:
        if peer not in PEERS:
            raise RecipeError(f"--peer {peer}", found="unknown", expected=" or ".join(PEERS))
    if repeats > runs:
        raise RecipeError(
            f"--repeats {repeats}", found=f"{runs} runs", expected="at least a run a process"
        )


def _compare(
    before: BenchRecord | None, now: BenchRecord, *, tolerance: float
) -> Comparison | None:
    from runtime_checks.timing.regression import compare

    return compare(before, now, tolerance=tolerance) if before else None


def _report(
    record: BenchRecord,
    compared: Comparison | None,
    *,
    out: Path | None,
    html: Path | None,
    json: bool,
    quiet: bool,
) -> None:
    """Write, print or show."""
    from runtime_checks.report.bench_page import write_bench_html
    from runtime_checks.timing.statistics import derived

    if out:
        _write(out, record.model_dump_json(indent=2) + "\n")
    if html:
        try:
            write_bench_html(html, record, compared)
        except OSError as error:
            raise ExportError(html, found=f"cannot be written ({error.strerror})") from error
    if json:
        data = record.model_dump(mode="json")
        data["statistics"] = [derived(report, record.reports) for report in record.reports]
        data["comparison"] = asdict(compared) if compared else None
        print_json(data)
    elif not quiet:
        show(record, compared)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ExportError(path, found=f"cannot be written ({error.strerror})") from error


def show(record: BenchRecord, compared: Comparison | None) -> None:
    """Tables: one for each model, window and number of threads."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from runtime_checks.timing.statistics import comparable

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    groups: dict[object, list[LatencyReport]] = {}
    for report in record.reports:
        groups.setdefault(comparable(report), []).append(report)
    for group in groups.values():
        rows = [_row(report, group) for report in group]
        table = Table(title=_title(group[0]), title_justify="left", title_style="bold", box=SIMPLE)
        for index, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if index else "left", overflow="fold")
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
    for name, reason in record.not_run.items():
        say(f"NOT_RUN {name}: {reason}")
    for note in record.notes:
        say(f"note: {note}")
    if compared:
        _show_comparison(compared)


def _title(report: LatencyReport) -> str:
    plural = "" if report.threads == 1 else "s"
    return (
        f"{report.model}, {report.window_s:g} s, {report.threads} thread{plural}, "
        f"{report.device}; thermal state {report.thermal}"
    )


def _show_comparison(compared: Comparison) -> None:
    from .common import print_table

    rows = [
        {
            "candidate": change.name,
            "before": change.before,
            "now": change.now,
            "change": f"{change.change - 1:+.1%} ({change.low - 1:+.1%} to {change.high - 1:+.1%})",
            "verdict": change.verdict.value,
        }
        for change in compared.changes
    ]
    if rows:
        print_table("Ratio to eager against the older run", rows)
    else:
        say("nothing that the older run has was timed")
    for name in compared.only_before:
        say(f"not in this run: {name}")
    for note in compared.notes:
        say(f"note: {note}")


def _row(report: LatencyReport, group: Sequence[LatencyReport]) -> dict[str, str]:
    from runtime_checks.timing.statistics import find_baseline, ratio, summarise

    summary, baseline = summarise(report), find_baseline(report, group)
    share = ratio(report, baseline) if baseline else None
    figures = ["", "", "", "", ""]
    if summary:
        every, kept = summary.all, summary.without_outliers
        figures = [f"{every.p50_ms:.2f}", f"{every.p95_ms:.2f}", f"{every.cv:.1%}"]
        figures += [f"{kept.cv:.1%}", f"{every.real_time_factor:.3g}"]
    names = ("p50 ms", "p95 ms", "CV", "without outliers", "RTF")
    return {
        "candidate": report.candidate,
        **dict(zip(names, figures, strict=True)),
        "of eager": f"{share.value:.2f} ({share.low:.2f}-{share.high:.2f})" if share else "",
        "load ms": f"{report.load_ms:.0f}" if report.load_ms else "",
        "first ms": f"{report.first_ms:.1f}" if report.first_ms else "",
        "memory MB": f"{report.peak_rss_bytes / 1e6:.0f}" if report.peak_rss_bytes else "",
    }


def _raise_on_failure(reports: Sequence[LatencyReport]) -> None:
    """After all was shown: a candidate that failed is an error that names it."""
    failed = {
        f"{report.candidate} with {report.threads} threads: {report.failures[0]}"
        for report in reports
        if report.failures
    }
    if failed:
        raise BundleError(
            "bench",
            found="; ".join(sorted(failed)),
            expected="every candidate to run",
            todo="See what is wrong with it: diarport check.",
        )
