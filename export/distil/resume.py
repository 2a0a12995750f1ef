"""Checkpoints and logs of a run: going on with the right one, and saying how after a failure."""

from __future__ import annotations

import csv
import errno
import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from safetensors import SafetensorError

from ..errors import TrainingError
from ..types import Value
from .config import DistilConfig

CHECKPOINTS = "checkpoints"
AFTER_TRAINING = {"calibrate", "onset"}
LAST, BEST = "last.ckpt", "best.ckpt"
LOGS = "logs"
# What safetensors (Rust) and torch.save (C++ streams) say of a failed write, without an errno.
FULL_DISK = ("os error 28", "No space left", "iostream error", "inline_container")


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints written beside their place and then moved there.

    Lightning's own go through the system's temporary folder: on another disk the last step is a
    copy, and a run killed in it would leave half a checkpoint in place of a whole one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, or leave the one that is there."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            partial.write_bytes(content.getbuffer())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def disk_errors_told(folder: Path) -> Iterator[None]:
    """Turn a full disk or an interruption by the user into a TrainingError that says how to go on.

    Lightning ends the process on an interruption; its exit code would say that parity failed.
    """
    go_on = "go on with --resume; the last whole checkpoint is kept."
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not full and not any(sign in str(error) for sign in FULL_DISK):
            raise
        raise TrainingError(
            folder, found="the disk is full", todo=f"Free some space and {go_on}"
        ) from error
    except (KeyboardInterrupt, SystemExit) as error:
        raise TrainingError(folder, found="interrupted", todo=go_on.capitalize()) from error


def checkpoint_to_resume(
    folder: Path,
    identity: dict[str, Any],
    *,
    resume: bool,
    settings: type[Value] = DistilConfig,
) -> Path | None:
    """The last checkpoint of the same run; None where there is none yet.

    Raises TrainingError on checkpoints that another run wrote, or when not asked to resume.
    """
    last = folder / CHECKPOINTS / LAST
    if not last.is_file():
        return None
    if not resume:
        raise TrainingError(
            folder,
            found="holds the checkpoints of a run",
            todo="Go on with it by --resume, or choose another --out.",
        )
    try:
        found = torch.load(last, map_location="cpu", weights_only=True)["diarport"]
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise TrainingError(
            last,
            found="not a checkpoint of a distillation",
            todo="Choose another --out.",
        ) from error
    differing = _differences(found, identity, settings)
    if differing:
        raise TrainingError(
            last,
            found=f"the checkpoint of another run: {', '.join(differing)} differ",
            expected="the same teacher, audio and settings",
            todo="Repeat the settings that the run began with, or choose another --out.",
        )
    return last


def _differences(
    found: dict[str, Any], expected: dict[str, Any], settings: type[Value]
) -> list[str]:
    # What an older run did not know of yet was as it is by default. What is done to the finished
    # weights may be done anew.
    known = settings.model_construct(**found.pop("config")).model_dump(mode="json")
    plain = {**known, **found}
    wanted = {**expected["config"], **{k: v for k, v in expected.items() if k != "config"}}
    trained = (plain.keys() | wanted.keys()) - AFTER_TRAINING
    return sorted(k for k in trained if plain.get(k) != wanted.get(k))


def read_logs(folder: Path) -> list[dict[str, str]]:
    """One row a checkpoint from the CSV logs of a run and of its resumptions.

    What a killed run logged after its last checkpoint was computed again after it: later rows
    of a step replace earlier ones.
    """
    rows: dict[int, dict[str, str]] = {}
    logs = (folder / LOGS).glob("version_*/metrics.csv")
    for path in sorted(logs, key=lambda p: int(p.parent.name.removeprefix("version_"))):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                filled = {k: v for k, v in row.items() if v}
                rows.setdefault(int(row["step"]), {}).update(filled)
    return [rows[step] for step in sorted(rows)]
