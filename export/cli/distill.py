"""`diarport distill`: a small student that says what its teacher says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import JsonOption, QuietOption, print_json, print_table, say
from .progress_lines import progress_lines

if TYPE_CHECKING:
    from ..distil.record import TrainingRecord


def command(
    teacher: Annotated[
        str, typer.Option("--teacher", "-t", help="Zoo name, checkpoint or Hugging Face id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write.")],
    student: Annotated[
        str, typer.Option("--student", "-s", help="Student, such as sinc-1bi or sinc-2uni-2lin.")
    ] = "sinc-1bi",
    audio: Annotated[
        list[Path] | None,
        typer.Option(help="Audio to train on: file, folder or list; can be repeated. No labels."),
    ] = None,
    rttm: Annotated[
        Path | None, typer.Option(help="Who speaks when in that audio, for --label-share.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Protocol of pyannote.database: its train, development and test audio as well."
        ),
    ] = None,
    database: Annotated[
        Path | None, typer.Option(help="The database.yml that describes the protocol.")
    ] = None,
    simulate_from: Annotated[
        Path | None,
        typer.Option(help="Folder of one subfolder a speaker: conversations are simulated of it."),
    ] = None,
    simulated_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of simulated windows, when there are both.")
    ] = 0.5,
    validation_audio: Annotated[
        list[Path] | None,
        typer.Option(help="Audio to choose the best weights on; can be repeated."),
    ] = None,
    validation_rttm: Annotated[
        Path | None, typer.Option(help="Who speaks when in it, for the DER in the model card.")
    ] = None,
    test_audio: Annotated[
        list[Path] | None,
        typer.Option(help="Audio that is only measured, at the end; can be repeated."),
    ] = None,
    test_rttm: Annotated[Path | None, typer.Option(help="Who speaks when in that.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows a step.")] = 32,
    pool_windows: Annotated[
        int,
        typer.Option(
            min=0,
            help="Windows that the teacher labels once; the student keeps its front-end. "
            "0: new windows in every step, and a front-end that is trained too (slower).",
        ),
    ] = 4800,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of labelled windows, to share among runs. Default: in OUT."),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Largest learning rate.")] = 4e-3,
    weight_decay: Annotated[float, typer.Option(min=0, help="Weight decay of AdamW.")] = 1e-2,
    average_decay: Annotated[
        float, typer.Option(min=0, help="Decay of the moving average that is kept as the weights.")
    ] = 0.995,
    temperature: Annotated[
        float, typer.Option(help="Of a powerset teacher's softmax, and its student's.")
    ] = 1.0,
    hint_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the loss on hidden features; no pool then.")
    ] = 0.0,
    label_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the loss on who really talks, by --rttm."),
    ] = 0.0,
    overlap_weight: Annotated[
        float,
        typer.Option(min=0, help="How much more each further speaker lets a frame weigh."),
    ] = 0.0,
    schedule: Annotated[
        str,
        typer.Option(
            help="one_cycle over all steps, or plateau: halved after 5 validations without gain."
        ),
    ] = "one_cycle",
    early_stopping: Annotated[
        int,
        typer.Option(min=0, help="Stop after so many validations without gain. 0: never."),
    ] = 0,
    dropout: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the recurrent features a step leaves out."),
    ] = 0.0,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Train this model on (zoo name, checkpoint, folder) instead of a new --student."
        ),
    ] = None,
    qat: Annotated[
        str | None,
        typer.Option(help="Round in training what this recipe will round: int8-qat."),
    ] = None,
    average_with: Annotated[
        Path | None,
        typer.Option(
            help="Model folder of a student of the same design and teacher: the finished weights "
            "are the mean of both."
        ),
    ] = None,
    onset: Annotated[
        float,
        typer.Option(help="Shift the finished student's scores: this one becomes 0.5."),
    ] = 0.5,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Let the student say speech as often as its teacher, at the end."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and windows.")] = 0,
    checkpoint_steps: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints (and validations).")
    ] = 100,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, ... (Lightning's).")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Devices of each machine.")] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    precision: Annotated[
        str, typer.Option(help="32-true, bf16-mixed, 16-mixed, ... (Lightning's).")
    ] = "32-true",
    strategy: Annotated[str, typer.Option(help="auto, ddp, ... (Lightning's).")] = "auto",
    logger: Annotated[
        str, typer.Option(help="csv, or tensorboard: that beside it (needs tensorboard).")
    ] = "csv",
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
        Path | None,
        typer.Option(help="Licence of the student; the teacher's is appended. Default: its alone."),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a small student to give the scores of a larger teacher.

    No labels are needed, but a share of the loss can be theirs. A killed run goes on with --resume
    and the same options and gives what it would have given. OUT is then a model folder for every
    other command, and its pytorch_model.bin one for pyannote.audio.

    Examples:

    - `diarport distill --teacher pytorch_model.bin --audio meetings/ --out students/mine`

    - `diarport distill -t pytorch_model.bin -s sinc-2bi --audio train.lst --simulate-from
      speakers/ --validation-audio dev/ --validation-rttm dev.rttm --steps 5000 --out students/big`

    - `diarport distill -t pytorch_model.bin --protocol AMI.SpeakerDiarization.mini --database
      database.yml --schedule plateau --early-stopping 15 --learning-rate 1e-4 --out students/ami`

    - `diarport distill -t pytorch_model.bin --audio meetings/ --accelerator gpu --devices 4
      --strategy ddp --precision bf16-mixed --out students/fast`

    - `diarport distill -t pytorch_model.bin --start-from sinc-1bi --qat int8-qat --audio meetings/
      --pool-windows 512 --steps 300 --learning-rate 2e-4 --out students/int8`

    - `diarport distill -t pytorch_model.bin --audio meetings/ --out students/mine --resume`
    """
    from .distilling import DistillRequest, Measured, run_distill

    settings = {
        "student": student,
        "steps": steps,
        "batch_size": batch_size,
        "pool_windows": pool_windows,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "average_decay": average_decay,
        "temperature": temperature,
        "hint_weight": hint_weight,
        "label_share": label_share,
        "overlap_weight": overlap_weight,
        "schedule": schedule,
        "early_stopping": early_stopping,
        "precision": precision,
        "dropout": dropout,
        "onset": onset,
        "calibrate": calibrate,
        "qat": qat,
        "simulated_share": simulated_share,
        "checkpoint_steps": checkpoint_steps,
        "seed": seed,
    }
    request = DistillRequest(
        teacher=teacher,
        out=out,
        settings=settings,
        audio=audio or [],
        rttm=rttm,
        protocol=protocol,
        database=database,
        hardware={
            "accelerator": accelerator,
            "devices": devices,
            "num_nodes": num_nodes,
            "strategy": strategy,
        },
        logger=logger,
        simulate_from=simulate_from,
        validation=Measured("validation", validation_audio or [], validation_rttm),
        test=Measured("test", test_audio or [], test_rttm),
        cache=cache,
        threads=threads,
        resume=resume,
        average_with=average_with,
        start_from=start_from,
        credits=credit or [],
        notes=note or [],
        licence_file=licence_file,
    )
    with progress_lines(quiet=quiet or json) as progress:
        record = run_distill(request, progress)
    if record is None:
        return  # one of several processes, and not the one that writes
    if json:
        print_json(record.model_dump(mode="json"))
    elif not quiet:
        _print(record, out)


def _print(record: TrainingRecord, out: Path) -> None:
    rows = [
        {
            "part": f.split,
            "audio": f"{f.audio_s:.0f} s",
            "agreement": f"{f.agreement.decisions_percent:.2f} %",
            "window DER": f"{f.student_der.pooled:.2f} %" if f.student_der else "no reference",
            "teacher's": f"{f.teacher_der.pooled:.2f} %" if f.teacher_der else "no reference",
        }
        for f in record.figures
    ]
    if rows:
        print_table(f"{record.config.student}, {record.parameters:,} parameters", rows)
    say(f"wrote {out}: weights of step {record.chosen_step}, card, record, log")
