"""Lightning's Trainer as a distillation uses it: checkpoints, logs, early stopping, devices."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from ..errors import TrainingError
from .resume import BEST, CHECKPOINTS, LAST, LOGS, AtomicCheckpoints

# Ten times the usual norm: what it cuts are the rare windows that would throw the student back.
GRADIENT_CLIP = 0.5
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Hardware:
    """Where a run computes, by the names of Lightning's Trainer, and whether TensorBoard is told.

    A run on several devices hears as many windows a step more: the batch size is that of each.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    tensorboard: bool = False

    @property
    def processes(self) -> int:
        """Processes of a run."""
        return self.devices * self.num_nodes


class Course(Protocol):
    """What a trainer must know of a run's settings."""

    @property
    def steps(self) -> int: ...
    @property
    def checkpoint_steps(self) -> int: ...
    @property
    def early_stopping(self) -> int: ...
    @property
    def precision(self) -> str: ...


def make_trainer(
    config: Course,
    folder: Path,
    *,
    hardware: Hardware,
    callbacks: list[Callback],
    choose: bool,
) -> pl.Trainer:
    """A trainer that writes checkpoints and CSV logs to a folder; `choose` keeps the best too.

    Raises TrainingError on devices, precisions and strategies that Lightning does not have here.
    """
    keep: dict[str, Any] = {
        "dirpath": folder / CHECKPOINTS,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    best: dict[str, Any] = {
        "filename": Path(BEST).stem,
        "monitor": "validation_agreement",
        "mode": "max",
    }
    used = list(callbacks)
    if config.early_stopping:
        used.append(EarlyStopping("validation_loss", patience=config.early_stopping, mode="min"))
    # The last one is written last: it holds the score of the best one, which must not be older.
    if choose:
        used.append(ModelCheckpoint(**best, **keep))
    used.append(ModelCheckpoint(filename=Path(LAST).stem, **keep))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    computed: Any = {
        "accelerator": hardware.accelerator,
        "devices": hardware.devices,
        "num_nodes": hardware.num_nodes,
        "precision": config.precision,
        "strategy": hardware.strategy,
    }
    try:
        return pl.Trainer(
            max_epochs=-(-config.steps // config.checkpoint_steps),
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            gradient_clip_val=GRADIENT_CLIP,
            callbacks=used,
            logger=_loggers(folder, hardware),
            log_every_n_steps=config.checkpoint_steps,
            plugins=[AtomicCheckpoints()],
            enable_progress_bar=False,
            enable_model_summary=False,
            **computed,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        chosen = ", ".join(f"{name} {value}" for name, value in computed.items())
        raise TrainingError(
            chosen,
            found=f"not possible here ({str(error).strip().splitlines()[0]})",
            expected="what Lightning's Trainer takes on this machine",
        ) from error


def _loggers(folder: Path, hardware: Hardware) -> list[Logger]:
    """CSV always, since the student's log is made of it; TensorBoard when asked for."""
    loggers: list[Logger] = [CSVLogger(folder, name=LOGS)]
    if hardware.tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise TrainingError(
                "--logger tensorboard",
                found="tensorboard is not installed",
                todo="Install it: pip install 'diarport[tensorboard]'.",
            )
        loggers.append(TensorBoardLogger(folder, name=TENSORBOARD))
    return loggers


def stopped_early(checkpoint: Path) -> bool:
    """Whether the run of a last checkpoint had ended by early stopping: there is nothing to do."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return any(
        name.startswith("EarlyStopping") and state["stopped_epoch"] > 0
        for name, state in saved["callbacks"].items()
    )
