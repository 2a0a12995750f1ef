"""`diarport distill-embedding`: a small network whose embeddings are its teacher's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, QuietOption, print_json, print_table, say


def command(
    teacher: Annotated[
        str, typer.Option("--teacher", "-t", help="Embedding model: folder, checkpoint, zoo name.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write.")],
    speakers: Annotated[Path, typer.Option(help="Folder of one subfolder of audio a speaker.")],
    student: Annotated[str, typer.Option("--student", "-s", help="cnn4 or resnet10.")] = "cnn4",
    hold_out: Annotated[
        list[str] | None,
        typer.Option(help="A speaker to keep for trials alone; can be repeated."),
    ] = None,
    audio: Annotated[
        list[Path] | None,
        typer.Option(help="Meetings to take speakers from too, with --rttm; can be repeated."),
    ] = None,
    rttm: Annotated[Path | None, typer.Option(help="Who speaks when in these.")] = None,
    voices: Annotated[
        int, typer.Option(min=8, help="Utterances in voices of their own that the teacher embeds.")
    ] = 4096,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 3000,
    batch_size: Annotated[int, typer.Option(min=2, help="Windows a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 3e-3,
    label_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the loss on who is whom.")
    ] = 1.0,
    mse_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the squared distance of embeddings.")
    ] = 1.0,
    cosine_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the cosine of embeddings.")
    ] = 1.0,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of embedded utterances, to share among runs. Default: in OUT."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="32-true or bf16-mixed (Lightning's).")
    ] = "32-true",
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and voices.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT, if any.")
    ] = False,
    credit: Annotated[
        list[str] | None,
        typer.Option(help="A source of the audio and its licence, for the card; can be repeated."),
    ] = None,
    note: Annotated[
        list[str] | None, typer.Option(help="A remark for the card's limits; can be repeated.")
    ] = None,
    licence_file: Annotated[
        Path | None, typer.Option(help="Licence of the student. Default: the teacher's.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a small student to give the speaker embeddings of a larger teacher.

    No labels are needed but whose utterance each is. Speakers held out give the trials whose
    equal-error rate is told in the end. A killed run goes on with --resume and the same options.

    Examples:

    - `diarport distill-embedding --teacher ge2e/ --speakers librispeech/ --out students/cnn4`

    - `diarport distill-embedding -t ge2e/ -s resnet10 --speakers librispeech/ --hold-out 1998
      --hold-out 2033 --audio ami/train --rttm ami/train.rttm --out students/resnet10`
    """
    from .distilling_embedding import EmbeddingRequest, run_distill_embedding
    from .progress_lines import progress_lines

    settings = {
        "student": student,
        "voices": voices,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "label_weight": label_weight,
        "mse_weight": mse_weight,
        "cosine_weight": cosine_weight,
        "precision": precision,
        "checkpoint_steps": checkpoint_steps,
        "seed": seed,
    }
    request = EmbeddingRequest(
        teacher=teacher,
        out=out,
        settings=settings,
        speakers=speakers,
        hold_out=hold_out or [],
        audio=audio or [],
        rttm=rttm,
        cache=cache,
        threads=threads,
        resume=resume,
        credits=credit or [],
        notes=note or [],
        licence_file=licence_file,
    )
    with progress_lines(quiet=quiet or json) as progress:
        record = run_distill_embedding(request, progress)
    if json:
        print_json(record.model_dump(mode="json"))
        return
    rows = [
        {"model": name, "equal-error rate": f"{score.eer:.2f} %"}
        | {f"minDCF {prior}": f"{cost:.3f}" for prior, cost in score.min_dcf.items()}
        for name, score in sorted(record.figures.items())
    ]
    if rows and not quiet:
        print_table(f"{record.config.student}, {record.parameters:,} parameters", rows)
    say(f"wrote {out}: weights, card, record, log", quiet=quiet)
