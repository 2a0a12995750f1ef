"""Read pyannote.audio's checkpoint files without running what is in them.

A checkpoint is a pickle. Nothing is unpickled but tensors and an allow-list of the plain classes
that pyannote checkpoints hold; any other class is refused by its name.
"""

from __future__ import annotations

import io
import pickle
import re
import socket
import warnings
import zipfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from .errors import CheckpointError
from .pyannote_import import pyannote_audio

PIPELINE_FOLDER = "segmentation"  # where a whole pipeline keeps its segmentation model
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
EMBEDDINGS = ("XVectorSincNet", "WeSpeakerResNet34")
TRAINING_ONLY = ("loss_func", "validation_")  # weights of a loss are of no use outside training


@dataclass(frozen=True)
class PyannoteCheckpoint:
    """Class name, plain configuration (as `Architecture.build` takes it) and weights."""

    architecture: str
    config: dict[str, Any]
    state_dict: dict[str, Tensor]


def read_pyannote(path: Path) -> PyannoteCheckpoint:
    """Read a checkpoint file; raises `CheckpointError` unless it is a whole pyannote checkpoint."""
    checkpoint = _unpickle(path)
    try:
        checkpoint = dict(checkpoint)
        described = checkpoint["pyannote.audio"]
        class_name = str(described["architecture"]["class"])
        specifications = described["specifications"]
        hparams = dict(checkpoint["hyper_parameters"])
        state = dict(checkpoint["state_dict"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            path, found="a file without pyannote's fields", expected="a pyannote.audio checkpoint"
        ) from error
    return PyannoteCheckpoint(
        class_name,
        {key: value for key, value in hparams.items() if key != "task"}
        | (
            {}  # what an embedding model was trained to tell apart says nothing of what it gives
            if class_name in EMBEDDINGS
            else {"specifications": _plain_specifications(path, specifications)}
        ),
        {key: value for key, value in state.items() if not key.startswith(TRAINING_ONLY)},
    )


def download_checkpoint(hub_id: str) -> Path:
    """Checkpoint of a model, or of a pipeline's segmentation model, from the Hugging Face hub.

    Raises `CheckpointError` in one line whatever the hub client fails with.
    """
    pyannote_audio()
    from huggingface_hub import constants
    from pyannote.audio.utils.hf_hub import AssetFileName, download_from_hf_hub

    if not _resolves(constants.ENDPOINT):
        # The client would try for half a minute and tell of every try; its cache still serves.
        constants.HF_HUB_OFFLINE = True
    errors: list[Exception] = []
    for subfolder in (None, PIPELINE_FOLDER):
        try:
            with redirect_stdout(io.StringIO()):  # a page of advice on gated repositories
                found = download_from_hf_hub(hub_id, AssetFileName.Model, subfolder=subfolder)
        except Exception as error:
            # The hub client has a dozen error types of its own; all of them mean: no file.
            errors.append(error)
        else:
            return Path(found)
    raise CheckpointError(
        hub_id,
        found=f"cannot be had from the Hugging Face hub ({first_line(errors[0])})",
        todo="Check the name, the network and, for a gated model, HF_TOKEN; or give the path of a "
        "downloaded checkpoint.",
    ) from errors[0]


def _resolves(url: str) -> bool:
    """Whether the name in a URL is known here, which it is not without a network."""
    parts = urlsplit(url)
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 443)
    except OSError:
        return False
    return True


def first_line(error: BaseException) -> str:
    """An error in one short line, with what a heading is followed by."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])[:200]


def _plain_specifications(path: Path, specifications: Any) -> dict[str, Any]:
    from pyannote.audio.core.task import Problem, Specifications

    powerset = getattr(specifications, "powerset_max_classes", None)
    scores_speakers = isinstance(specifications, Specifications) and (
        specifications.problem
        in (Problem.BINARY_CLASSIFICATION, Problem.MULTI_LABEL_CLASSIFICATION)
        if powerset is None
        else specifications.problem is Problem.MONO_LABEL_CLASSIFICATION
    )
    if not scores_speakers:
        kind = getattr(getattr(specifications, "problem", None), "name", None)
        raise CheckpointError(
            path,
            found=f"a model of {kind or type(specifications).__name__}",
            expected="one segmentation task with multi-label or powerset classes",
        )
    return {
        "window_s": float(specifications.duration),
        "classes": list(specifications.classes),
        "powerset_max_classes": powerset,
        "permutation_invariant": bool(specifications.permutation_invariant),
    }


def _unpickle(path: Path) -> Any:
    pyannote_audio()
    from lightning.fabric.utilities.data import AttributeDict
    from pyannote.audio.core import model, task

    allowed: list[Any] = [
        model.Introspection,
        task.Specifications,
        task.Problem,
        task.Resolution,
        torch.torch_version.TorchVersion,
        AttributeDict,
    ]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickles that torch.save did not write
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # On a file of another kind the restricted unpickler fails in whatever way the bytes
        # mislead it (KeyError, IndexError, UnicodeDecodeError, ...).
        raise CheckpointError(
            path,
            found=f"not loadable ({_why_not_loadable(path, error)})",
            expected="a complete pyannote.audio checkpoint",
            todo="Download it again, or check that it is the file you meant.",
        ) from error


def _why_not_loadable(path: Path, error: Exception) -> str:
    unsafe = re.search(r"GLOBAL (\S+)", str(error))
    if unsafe:
        return f"it would run code of {unsafe[1]}, which is not on the allow-list"
    if isinstance(error, OSError):
        return first_line(error)
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "the file is empty"
    if start == b"PK\x03\x04":
        whole = zipfile.is_zipfile(path)
        return first_line(error) if whole else "the file is truncated"
    if start[:1] == pickle.PROTO:
        return "a pickle that holds more than tensors and plain values, or is truncated"
    return f"neither an archive nor a pickle: it starts with {start!r}"
