"""Load and save models: zoo names, pyannote checkpoints, our own safetensors, hub ids."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .calibration.trained import TrainedGrids, read_grids
from .errors import CheckpointError, ExportError
from .models.base import MODELS
from .models.embedding import EmbeddingArchitecture
from .models.ge2e import published_config
from .pyannote_format import (
    HUB_ID,
    PIPELINE_FOLDER,
    download_checkpoint,
    first_line,
    read_pyannote,
)
from .pyannote_import import pyannote_audio
from .types import ModelSpec, Role

CHECKPOINT_FILE = "pytorch_model.bin"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CHECKPOINT_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".safetensors"}
CARD_FILE = "MODEL_CARD.md"


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with its contract and provenance.

    `source` is what the user named; `sha256` is that of the weights file. `grids` are those of a
    model that was trained to be quantised.
    """

    module: nn.Module
    spec: ModelSpec
    source: str
    sha256: str
    card: str
    licence_text: str
    grids: TrainedGrids | None = None


def zoo_dir() -> Path:
    """Folder of the models that ship with the package."""
    return Path(str(resources.files("export") / "zoo"))


def zoo_names(role: Role | None = None) -> list[str]:
    """Names of the shipped models, all or those of one role."""
    names = sorted(p.name for p in zoo_dir().iterdir() if (p / WEIGHTS_FILE).is_file())
    return names if role is None else [name for name in names if _zoo_role(name) is role]


def _zoo_role(name: str) -> Role:
    described = json.loads((zoo_dir() / name / CONFIG_FILE).read_text())
    architecture = MODELS[described["architecture"]]
    embeds = isinstance(architecture, EmbeddingArchitecture)
    return Role.EMBEDDING if embeds else Role.SEGMENTATION


def load_model(source: str | Path) -> LoadedModel:
    """Load a model by zoo name, path (checkpoint file, safetensors file, folder) or hub id.

    Raises `CheckpointError` for everything that is not a segmentation or embedding model
    of a known architecture.
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
    if HUB_ID.fullmatch(text) and path.suffix not in CHECKPOINT_SUFFIXES:
        return _load_pyannote(download_checkpoint(text), text, name=text.split("/")[1])
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
        for candidate in (folder / CHECKPOINT_FILE, folder / PIPELINE_FOLDER / CHECKPOINT_FILE):
            if candidate.is_file():
                return _load_pyannote(candidate, source)
        raise CheckpointError(
            folder, found="no model in this folder", expected=f"{WEIGHTS_FILE} or {CHECKPOINT_FILE}"
        )
    try:
        config = json.loads(config_path.read_text())
        config = published_config(config, name=weights.parent.resolve().name) or config
        described = {key: config[key] for key in ("name", "licence", "trained_on")}
        architecture = MODELS[config["architecture"]]
        module = architecture.build(config["config"])
        _load_weights(module, load_file(weights))
    except (
        ExportError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(
            weights,
            found=f"not loadable ({reason})",
            expected=f"safetensors weights that fit the {CONFIG_FILE} beside them",
        ) from error
    spec = architecture.spec(module, **described)
    return LoadedModel(
        module,
        spec,
        source,
        _sha256(weights),
        _text(folder, CARD_FILE),
        _text(folder, "LICENSE"),
        read_grids(folder),
    )


def _load_pyannote(path: Path, source: str, *, name: str | None = None) -> LoadedModel:
    checkpoint = read_pyannote(path)
    class_name = checkpoint.architecture
    if class_name not in MODELS:
        raise CheckpointError(
            path,
            found=f"unknown architecture {class_name}",
            expected=f"one of {', '.join(MODELS)}",
        )
    architecture = MODELS[class_name]
    try:
        module = architecture.build(checkpoint.config)
        _load_weights(module, checkpoint.state_dict)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            path,
            found=f"weights that do not fit {class_name} ({first_line(error)})",
            expected="a complete checkpoint",
        ) from error
    folder = path.parent
    licence = _text(folder, "LICENSE")
    spec = architecture.spec(
        module,
        name=name or (folder.absolute().name if path.name == CHECKPOINT_FILE else path.stem),
        licence=licence.splitlines()[0].strip() if licence else "unknown",
        trained_on="unknown",
    )
    card = _text(folder, CARD_FILE) or _text(folder, "README.md")
    return LoadedModel(module, spec, source, _sha256(path), card, licence)


def _load_weights(module: nn.Module, state: dict[str, Tensor]) -> None:
    module.load_state_dict(state)
    for name, value in module.state_dict().items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity")


def _text(folder: Path, name: str) -> str:
    path = folder / name
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
