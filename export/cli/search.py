"""`diarport search`: which student, distilled how, is worth training for long?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import JsonOption, QuietOption, print_json, print_table, say

if TYPE_CHECKING:
    from ..search.record import SearchRecord


def command(
    teacher: Annotated[
        str, typer.Option("--teacher", "-t", help="Zoo name, checkpoint or Hugging Face id.")
    ],
    audio: Annotated[
        list[Path], typer.Option(help="Audio to train and measure on; can be repeated.")
    ],
    rttm: Annotated[
        Path, typer.Option(help="Who speaks when in it: for the DER, and to part the speakers.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for search.json and unfinished trials.")
    ],
    simulate_from: Annotated[
        Path | None,
        typer.Option(help="Folder of one subfolder a speaker: conversations are simulated of it."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where the study is: a database's URL (sqlite:///FILE, mysql, postgresql) or "
            "journal://FILE; machines that name the same one share the work. "
            "Default: a database in OUT."
        ),
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the study in it.")] = "search",
    trials: Annotated[int, typer.Option(min=1, help="Trials of the study, in all.")] = 50,
    startup: Annotated[
        int,
        typer.Option(
            min=1, help="Random trials before the search learns, and to compare with to give up."
        ),
    ] = 8,
    folds: Annotated[int, typer.Option(min=2, help="Folds that share no speaker.")] = 4,
    space: Annotated[
        Path | None, typer.Option(help="What is varied, as TOML. Default: the whole family.")
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", "-b", help="Backend of the exported student.")
    ] = "onnx_ort",
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="Its recipe.")] = "fp32",
    baseline: Annotated[
        str,
        typer.Option(
            help="Model whose PyTorch eager time is 1: any model, or a student's name, untrained."
        ),
    ] = "sinc-4bi-2lin",
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each fold.")] = 400,
    pool_windows: Annotated[
        int, typer.Option(min=0, help="Windows that the teacher labels once a fold; see distill.")
    ] = 1600,
    simulated_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of simulated windows, when there are both.")
    ] = 0.5,
    checkpoint_steps: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints, where trials may be given up.")
    ] = 100,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each student.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of trials, weights and windows.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search students and training settings for low error, short time and small size together.

    A trial trains one student for each fold, exports it and measures the DER of the file on
    recordings whose speakers it never heard; the geometric mean of the folds counts. Time is the
    exported file's, of PyTorch eager of the baseline. A trial that learns less than most of those
    that are as small and as fast is given up.

    The same command goes on with a study, on this machine or another. A trial that was killed is
    begun again from its last checkpoint by the next run on its machine.

    Examples:

    - `diarport search -t pytorch_model.bin --audio train.lst --rttm train.rttm --out search`

    - `diarport search -t pytorch_model.bin --audio train.lst --rttm train.rttm --out search
      --storage postgresql://host/studies --study students --trials 200 --space space.toml`
    """
    from .progress_lines import progress_lines
    from .search_inputs import SearchRequest
    from .searching import run_search

    request = SearchRequest(
        teacher=teacher,
        audio=audio,
        rttm=rttm,
        simulate_from=simulate_from,
        out=out,
        storage=storage,
        study=study,
        trials=trials,
        startup=startup,
        folds=folds,
        space=space,
        backend=backend,
        recipe=recipe,
        baseline=baseline,
        settings={
            "steps": steps,
            "pool_windows": pool_windows,
            "simulated_share": simulated_share,
            "checkpoint_steps": checkpoint_steps,
            "seed": seed,
        },
        runs=runs,
        threads=threads,
    )
    with progress_lines(quiet=quiet or json) as progress:
        record = run_search(request, progress)
    if json:
        print_json(record.model_dump(mode="json"))
    elif not quiet:
        _show(record, teacher=teacher, steps=steps)
        say(f"wrote {out / 'search.json'}")


def _show(record: SearchRecord, *, teacher: str, steps: int) -> None:
    from ..search.record import distill_command

    rows = [
        {
            "": "*" if tried.non_dominated else "",
            "trial": tried.number,
            "student": tried.student,
            "DER": "" if tried.der_percent is None else f"{tried.der_percent:.2f} %",
            "time": "" if tried.time_ratio is None else f"{tried.time_ratio:.3f}",
            "size MB": "" if tried.size_bytes is None else f"{tried.size_bytes / 1e6:.2f}",
            "state": tried.state.lower(),
        }
        for tried in record.trials
    ]
    print_table(f"{record.study}: * nothing beats it", rows)
    for tried in record.trials:
        if tried.reason:
            say(f"trial {tried.number} was given up: {tried.reason}")
    for tried in record.trials:
        if tried.non_dominated:
            say(f"to train {tried.student}: {distill_command(tried, teacher=teacher, steps=steps)}")
