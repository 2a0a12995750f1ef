"""One distillation from audio to a trained student; resumable at every checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from ..calibration.trained import TrainedGrids
from ..checkpoint import LoadedModel
from ..errors import TrainingError
from ..progress import Progress, silent
from .averaging import average_weights
from .calibrate import match_share_of_speech, move_onset
from .config import DistilConfig, TrainingAudio
from .data import WINDOWS_VERSION, TrainingWindows
from .datamodule import WindowData
from .evaluate import stack_windows
from .fake_quant import QuantisedStudent, qat_recipe, quantised_student
from .objective import THRESHOLD, Objective
from .parts import front_end
from .pool import CACHE, Pool, labelled_pool, pool_labels
from .resume import (
    BEST,
    CHECKPOINTS,
    LAST,
    checkpoint_to_resume,
    disk_errors_told,
    read_logs,
)
from .start import build_student
from .student import Distillation
from .trainer import Hardware, make_trainer, stopped_early

RANGE_WINDOWS = 32
"""Training windows that the ranges of a student trained for a recipe begin with."""

Watch = Callable[[int, float], None]
"""Told after each validation: the step, and percent of the teacher's decisions that agree."""


@dataclass(frozen=True)
class TrainedStudent:
    """What training gives: the averaged student in evaluation mode, and its log.

    `step` is the step of the chosen weights: the best on the validation audio, or the last.
    `is_main` is false in all but one of the processes of a run on several devices. Of a student
    trained for a recipe, `grids` are what it was rounded to and `rounded` is the student that
    rounds.
    """

    module: nn.Module
    step: int
    log_rows: list[dict[str, str]]
    is_main: bool = True
    grids: TrainedGrids | None = None
    rounded: nn.Module | None = None


class _Steps(Callback):
    """Reports steps to a Progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._progress("training", trainer.global_step, self._total)


class _Watched(Callback):
    """Tells of the agreement that a validation found."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        agreement = trainer.callback_metrics["validation_agreement"]
        self._watch(trainer.global_step, float(agreement))


def train(
    teacher: LoadedModel,
    audio: TrainingAudio,
    config: DistilConfig,
    *,
    folder: Path,
    cache: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    watch: Watch | None = None,
    choose: bool = True,
    hardware: Hardware | None = None,
    average_with: LoadedModel | None = None,
    start: LoadedModel | None = None,
) -> TrainedStudent:
    """Train a student, with checkpoints and logs in `folder`, labelled windows in `cache`.

    Students of one teacher and audio can share a `cache` (default: a folder in `folder`).
    `watch` is told of every validation; what it raises ends the training. The weights that did best
    on the validation audio come back, or the last ones: where there is none, or with `choose` off.
    `hardware` is where it computes: on one device by default. The weights are averaged with those
    of `average_with`, a student of the same design and teacher, at the end (`averaging`). The
    student is `start`'s copy where that is given.

    With `resume`, goes on from the folder's last checkpoint (from the start where there is none);
    the outcome is that of a run that was never stopped. Raises TrainingError on a folder that
    holds another run, a loss that is not finite, or a full disk; checkpoints are kept.
    """
    if not audio.validation and (config.early_stopping or config.schedule == "plateau"):
        raise TrainingError(
            f"--schedule {config.schedule}, --early-stopping {config.early_stopping}",
            found="no validation audio to judge by",
            todo="Give --validation-audio, or train with --schedule one_cycle alone.",
        )
    _raise_on_unlabelled(config, audio)
    _raise_on_bias(teacher, audio, config)
    student, folder = build_student(config, teacher, start=start), folder.resolve()
    identity = {
        "config": config.model_dump(mode="json"),
        "teacher_sha256": teacher.sha256,
        "audio_sha256": audio.hashes(),
    }
    if start is not None:
        identity["start_sha256"] = start.sha256
    if config.qat is not None:
        student = _rounding(student, config, audio, teacher)
    last = checkpoint_to_resume(folder, identity, resume=resume)
    module = Distillation(
        student,
        teacher.module,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        average_decay=config.average_decay,
        steps=config.steps,
        schedule=config.schedule,
        objective=Objective.of(
            teacher.spec, temperature=config.temperature, overlap_weight=config.overlap_weight
        ),
        hint_weight=config.hint_weight,
        label_share=config.label_share,
        dropout=config.dropout,
    )
    module.records = identity
    choose = choose and bool(audio.validation)
    callbacks: list[Callback] = [_Steps(progress, config.steps)]
    if watch is not None:
        callbacks.append(_Watched(watch))
    trainer = make_trainer(
        config, folder, hardware=hardware or Hardware(), callbacks=callbacks, choose=choose
    )
    with disk_errors_told(folder):
        names = _pool_identity(identity, student)

        def label(windows: TrainingWindows) -> Pool:
            kept = cache or folder / CACHE
            pool = labelled_pool(
                teacher.module, student, windows, cache=kept, identity=names, progress=progress
            )
            if config.label_share == 0:
                return pool
            labels = pool_labels(
                windows, speakers=len(teacher.spec.classes), cache=kept, identity=names["labels"]
            )
            return replace(pool, labels=labels)

        data = WindowData(config, audio, teacher, pool=label if config.pool_windows else None)
        if last is None or not stopped_early(last):
            trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    chosen = folder / CHECKPOINTS / (BEST if choose else LAST)
    checkpoint = torch.load(chosen, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    finished = module.finished()
    if average_with is not None:
        average_weights(finished, average_with.module, source=average_with.source)
    _set_bias(finished, teacher, audio, config)
    rounded = finished if isinstance(finished, QuantisedStudent) else None
    return TrainedStudent(
        module=rounded.float_model() if rounded else finished,
        grids=rounded.grids() if rounded else None,
        rounded=rounded,
        step=int(checkpoint["global_step"]),
        log_rows=read_logs(folder),
        is_main=trainer.is_global_zero,
    )


def _rounding(
    student: nn.Module, config: DistilConfig, audio: TrainingAudio, teacher: LoadedModel
) -> nn.Module:
    """The student that rounds, with the ranges that it begins with."""
    windows = WindowData(config, audio, teacher, pool=None).first_windows(RANGE_WINDOWS)
    assert config.qat is not None  # noqa: S101 - asked by the caller
    return quantised_student(student, qat_recipe(config.qat), windows, steps=config.steps)


def _set_bias(
    finished: nn.Module, teacher: LoadedModel, audio: TrainingAudio, config: DistilConfig
) -> None:
    if not config.calibrate:
        if config.onset != THRESHOLD:
            move_onset(finished, config.onset)
        return
    heard = stack_windows(
        [*audio.recordings, *audio.validation],
        teacher.spec.geometry,
        hop_s=config.validation_hop_s,
    )
    match_share_of_speech(finished, teacher.module, heard)


def _raise_on_bias(teacher: LoadedModel, audio: TrainingAudio, config: DistilConfig) -> None:
    """On what the finished student's bias is to be set by and cannot."""
    if config.calibrate and not [*audio.recordings, *audio.validation]:
        raise TrainingError(
            "--calibrate",
            found="neither recordings nor validation audio to do it on",
            todo="Give --audio or --validation-audio.",
        )
    option = "--calibrate" if config.calibrate else f"--onset {config.onset:g}"
    moved = config.calibrate or config.onset != THRESHOLD
    if moved and teacher.spec.powerset_max_classes is not None:
        raise TrainingError(option, found="a powerset teacher", expected="one score a speaker")
    if config.calibrate and config.onset != THRESHOLD:
        raise TrainingError(
            f"--calibrate --onset {config.onset:g}",
            found="two ways to set the bias",
            expected="one of them",
        )


def _raise_on_unlabelled(config: DistilConfig, audio: TrainingAudio) -> None:
    unknown = sorted(r.uri for r in audio.recordings if not audio.turns.get(r.uri))
    if config.label_share > 0 and unknown:
        raise TrainingError(
            unknown[0],
            found="no turns to learn from",
            expected="who speaks when in all training recordings",
            todo="Give --rttm with turns of all of them, or train with --label-share 0.",
        )


def _pool_identity(identity: dict[str, Any], student: nn.Module) -> dict[str, dict[str, Any]]:
    """What decides a pool's scores, and its features, of all that identifies a run."""
    windows = {
        "version": WINDOWS_VERSION,
        "duration_s": float(cast(Any, student).specifications.duration),
        "seed": identity["config"]["seed"],
        "simulated_share": identity["config"]["simulated_share"],
        "audio": {k: identity["audio_sha256"][k] for k in ("recordings", "speakers")},
    }
    block, net = front_end(student), cast(Any, student)
    settings = dict(net.hparams["sincnet" if "sincnet" in net.hparams else "mfcc"])
    if "sincnet" in net.hparams:  # pyannote's networks say it here as well, ours do not
        settings["sample_rate"] = net.hparams["sample_rate"]
    tensors = {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for name, tensor in block.state_dict().items()
    }
    return {
        "scores": windows | {"teacher": identity["teacher_sha256"]},
        "features": windows | {"front_end": settings, "tensors": tensors},
        "labels": windows | {"turns": identity["audio_sha256"].get("turns", {})},
    }
