"""`diarport bench`: how fast is a bundle on this machine, beside PyTorch?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BundleError, ExportError
from .common import (
    AudioOption,
    BackendOption,
    BundleRecipeOption,
    JsonOption,
    QuietOption,
    print_json,
    progress_bar,
    say,
)

if TYPE_CHECKING:
    from torch import nn

    from ..types import Artifact, Bundle, LatencyReport


WIDTH_OF_FILES = 140  # columns, where the output is no terminal that tells its own


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle directory.")],
    model: Annotated[
        str | None,
        typer.Option(help="The model it was built from. Default: the zoo model it names."),
    ] = None,
    audio: AudioOption = None,
    backend: BackendOption = None,
    recipe: BundleRecipeOption = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Threads, 0 for all cores; can be repeated. Default: 1."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each candidate.")] = 100,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before those.")] = 10,
    hop_s: Annotated[
        float, typer.Option(min=0.001, help="Hop that the real-time factor divides by.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of windows and order.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write every raw sample as JSON.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time every artifact of a bundle that runs here, and PyTorch eager in the same run.

    Candidates take turns in shuffled order on the same random windows of real audio. Only the
    ratios to PyTorch eager compare between machines; the times of a phone are its own. Memory is
    that of a process that does nothing else.

    Examples:

    - `diarport bench bundles/sinc-1bi`

    - `diarport bench bundles/mine --model pytorch_model.bin --threads 1 --threads 0 --out t.json`
    """
    from runtime_checks.timing.contenders import candidates, windows_of
    from runtime_checks.timing.processes import measure_apart
    from runtime_checks.timing.protocol import available_cores

    from ..bundle import verify_bundle
    from .bundles import chosen_artifacts, model_of_bundle
    from .inputs import audio_notes, load_audio

    if out and not out.absolute().parent.is_dir():
        raise ExportError(out, found="its folder does not exist", todo="Make it first.")
    read = verify_bundle(bundle)
    artifacts = chosen_artifacts(bundle, read, backends=backend or [], recipes=recipe or [])
    loaded = model_of_bundle(bundle, read, model)
    spec = read.content.spec
    recordings, _ = load_audio(audio, rttm=None, sample_rate_hz=spec.geometry.sample_rate_hz)
    timed = candidates(
        [(artifact, bundle.absolute() / artifact.path) for artifact in artifacts],
        spec=spec,
        load_eager=partial(load_module, loaded.source),
    )
    windows = windows_of(recordings, spec=spec, seed=seed)
    counts = dict.fromkeys(count or available_cores() for count in threads or [1])
    reports: list[LatencyReport] = []
    with progress_bar(quiet=quiet or json) as progress:
        for count in counts:
            reports += measure_apart(
                timed,
                windows,
                threads=count,
                hop_s=hop_s,
                seed=seed,
                warmup_runs=warmup,
                timed_runs=runs,
                progress=progress,
            )
    not_run = _not_run(artifacts)
    data = _record(read, reports, not_run=not_run, seed=seed, notes=audio_notes(recordings))
    if out:
        _write(out, data)
    if json:
        print_json(data)
    elif not quiet:
        _show(reports, not_run=not_run, notes=data["notes"])
    _raise_on_failure(bundle, reports)


def load_module(source: str) -> nn.Module:
    """The float model of a source; a function of its own, so that another process can call it."""
    from ..checkpoint import load_model

    return load_model(source).module


def _not_run(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Why artifacts that cannot run here were not timed."""
    from runtime_checks.runners.base import RUNNERS

    reasons = {a.path: RUNNERS[a.recipe.backend].unavailable() for a in artifacts}
    return {path: reason for path, reason in reasons.items() if reason}


def _record(
    bundle: Bundle,
    reports: Sequence[LatencyReport],
    *,
    not_run: dict[str, str],
    seed: int,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything as plain JSON data: raw samples, what follows from them, what was left out."""
    from runtime_checks.timing.statistics import derived

    return {
        "content_sha256": bundle.content_sha256,
        "model": bundle.content.spec.name,
        "seed": seed,
        "reports": [report.model_dump(mode="json") for report in reports],
        "statistics": [derived(report, reports) for report in reports],
        "not_run": not_run,
        "notes": list(notes),
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    import json

    try:
        path.write_text(json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n")
    except OSError as error:
        raise ExportError(path, found=f"cannot be written ({error.strerror})") from error


def _show(
    reports: Sequence[LatencyReport], *, not_run: dict[str, str], notes: Sequence[str]
) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    for threads in dict.fromkeys(report.threads for report in reports):
        group = [report for report in reports if report.threads == threads]
        plural = "" if threads == 1 else "s"
        title = f"{threads} thread{plural}, {group[0].device}; thermal state {group[0].thermal}"
        rows = [_row(report, group) for report in group]
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
        for index, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if index else "left", overflow="fold")
        for row in rows:
            table.add_row(*row.values())
        console.print(table)
    for path, reason in not_run.items():
        say(f"NOT_RUN {path}: {reason}")
    for note in notes:
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


def _raise_on_failure(path: Path, reports: Sequence[LatencyReport]) -> None:
    """After all was shown: a candidate that failed is an error that names it."""
    failed = {
        f"{report.candidate} with {report.threads} threads: {report.failures[0]}"
        for report in reports
        if report.failures
    }
    if failed:
        raise BundleError(
            path,
            found="; ".join(sorted(failed)),
            expected="every candidate to run",
            todo="See what is wrong with it: diarport check.",
        )
