"""Load and save models: zoo names, pyannote checkpoints, our own safetensors, hub ids.

Nothing is unpickled but tensors and an allow-list of plain classes that pyannote checkpoints hold.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .errors import CheckpointError
from .models.base import MODELS
from .pyannote_import import pyannote_audio
from .types import ModelSpec

CHECKPOINT_FILE = "pytorch_model.bin"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "MODEL_CARD.md"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its contract and provenance.

    `source` is what the user named; `sha256` is that of the weights file.
    """

    module: nn.Module
    spec: ModelSpec
    source: str
    sha256: str
    card: str
    licence_text: str


def zoo_dir() -> Path:
    """Folder of the models that ship with the package."""
    return Path(str(resources.files("export") / "zoo"))


def zoo_names() -> list[str]:
    """Names of the shipped models."""
    return sorted(p.name for p in zoo_dir().iterdir() if (p / WEIGHTS_FILE).is_file())


def load_model(source: str | Path) -> LoadedModel:
    """Load a model by zoo name, path (checkpoint file, safetensors file, folder) or hub id.

    Raises `CheckpointError` for everything that is not a segmentation model of a known
    architecture.
    """
    text = str(source)
    if text in zoo_names():
        return _load_folder(zoo_dir() / text, text)
    path = Path(text)
    if path.is_dir():
        return _load_folder(path, text)
    if path.is_file():
        if path.suffix == ".safetensors":
            return _load_folder(path.parent, text, weights=path)
        return _load_pyannote(path, text)
    if HUB_ID.fullmatch(text) and not path.suffix:
        return _load_pyannote(_download(text), text)
    raise CheckpointError(
        text,
        found="no such file or zoo model",
        expected=f"a checkpoint, a folder, a hub id or one of {', '.join(zoo_names())}",
    )


def with_window(model: LoadedModel, window_s: float | None) -> LoadedModel:
    """The same model with the contract of another window length (None keeps its own)."""
    if window_s is None:
        return model
    architecture = MODELS[model.spec.architecture]
    spec = architecture.with_window(model.module, model.spec, window_s)
    return LoadedModel(**{**vars(model), "spec": spec})


def save_model(folder: Path, module: nn.Module, spec: ModelSpec, *, source: str) -> None:
    """Write `model.safetensors`, `config.json` and a pyannote checkpoint into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().contiguous() for k, v in sorted(module.state_dict().items())}
    save_file(state, folder / WEIGHTS_FILE)
    architecture = MODELS[spec.architecture]
    config = {
        "architecture": spec.architecture,
        "name": spec.name,
        "licence": spec.licence,
        "trained_on": spec.trained_on,
        "source": source,
        "config": architecture.config(module),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_pyannote(path: Path, module: nn.Module) -> None:
    """Write a checkpoint that `pyannote.audio.Model.from_pretrained` loads."""
    pyannote_audio()
    import lightning
    from pyannote.audio import __version__

    net: Any = module
    specifications = net.specifications
    checkpoint = {
        "state_dict": net.state_dict(),
        "hyper_parameters": dict(net.hparams),
        "pytorch-lightning_version": lightning.__version__,
        "pyannote.audio": {
            "versions": {"pyannote.audio": __version__, "torch": torch.__version__},
            "architecture": {
                "module": type(net).__module__,
                "class": type(net).__name__,
            },
            "specifications": specifications,
        },
    }
    torch.save(checkpoint, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_folder(folder: Path, source: str, weights: Path | None = None) -> LoadedModel:
    weights = weights or folder / WEIGHTS_FILE
    config_path = folder / CONFIG_FILE
    if not weights.is_file():
        for candidate in (folder / CHECKPOINT_FILE, folder / "segmentation" / CHECKPOINT_FILE):
            if candidate.is_file():
                return _load_pyannote(candidate, source)
        raise CheckpointError(
            folder, found="no model in this folder", expected=f"{WEIGHTS_FILE} or {CHECKPOINT_FILE}"
        )
    try:
        config = json.loads(config_path.read_text())
        architecture = MODELS[config["architecture"]]
        module = architecture.build(config["config"])
        module.load_state_dict(load_file(weights))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            weights,
            found=f"not loadable ({_first_line(error)})",
            expected=f"safetensors weights that fit the {CONFIG_FILE} beside them",
        ) from error
    spec = architecture.spec(
        module,
        name=config["name"],
        licence=config["licence"],
        trained_on=config["trained_on"],
    )
    return LoadedModel(
        module, spec, source, _sha256(weights), _text(folder, CARD_FILE), _text(folder, "LICENSE")
    )


def _load_pyannote(path: Path, source: str) -> LoadedModel:
    checkpoint = _unpickle(path)
    try:
        described = checkpoint["pyannote.audio"]
        class_name = described["architecture"]["class"]
        specifications = described["specifications"]
        hparams = checkpoint["hyper_parameters"]
        state = checkpoint["state_dict"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            path, found="a file without pyannote's fields", expected="a pyannote.audio checkpoint"
        ) from error
    if class_name not in MODELS:
        raise CheckpointError(
            path,
            found=f"unknown architecture {class_name}",
            expected=f"one of {', '.join(MODELS)}",
        )
    architecture = MODELS[class_name]
    config = {k: v for k, v in hparams.items() if k != "task"} | {
        "specifications": {
            "window_s": float(specifications.duration),
            "classes": list(specifications.classes),
            "powerset_max_classes": specifications.powerset_max_classes,
        },
    }
    try:
        module = architecture.build(config)
        # A loss with weights of its own is of no use outside training.
        kept = {k: v for k, v in state.items() if not k.startswith(("loss_func", "validation_"))}
        module.load_state_dict(kept)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(
            path,
            found=f"weights that do not fit {class_name} ({_first_line(error)})",
            expected="a complete checkpoint",
        ) from error
    folder = path.parent
    name = folder.name if path.name == CHECKPOINT_FILE else path.stem
    licence = _text(folder, "LICENSE")
    spec = architecture.spec(
        module,
        name=name,
        licence=licence.splitlines()[0].strip() if licence else "unknown",
        trained_on="unknown",
    )
    card = _text(folder, CARD_FILE) or _text(folder, "README.md")
    return LoadedModel(module, spec, source, _sha256(path), card, licence)


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
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = _first_line(error)
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        if unsafe:
            reason = f"it would run code of {unsafe[1]}, which is not on the allow-list"
        raise CheckpointError(
            path,
            found=f"not loadable ({reason})",
            expected="a complete pyannote.audio checkpoint",
            todo="Download it again, or check that it is the file you meant.",
        ) from error


def _download(hub_id: str) -> Path:
    pyannote_audio()
    from pyannote.audio.utils.hf_hub import AssetFileName, download_from_hf_hub

    try:
        found = download_from_hf_hub(hub_id, AssetFileName.Model)
    except Exception as error:
        # The hub client has a dozen error types of its own; all of them mean: no file.
        raise CheckpointError(
            hub_id,
            found=f"cannot be had from the Hugging Face hub ({_first_line(error)})",
            todo="Check the name and the network, or give the path of a downloaded checkpoint.",
        ) from error
    if found is None:
        raise CheckpointError(hub_id, found=f"no {CHECKPOINT_FILE} in this hub repository")
    return Path(found)


def _text(folder: Path, name: str) -> str:
    path = folder / name
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
