"""The licence and the model card of a bundle, or what stands where a model has none."""

from __future__ import annotations

from pathlib import Path

from ..bundle import file_entry
from ..checkpoint import LoadedModel
from ..types import FileEntry

CARD, LICENCE = "MODEL_CARD.md", "LICENSE"


def write_texts(folder: Path, model: LoadedModel) -> tuple[FileEntry, ...]:
    """Write both into a bundle."""
    (folder / LICENCE).write_text(model.licence_text or _no_licence(model), encoding="utf-8")
    (folder / CARD).write_text(model.card or _no_card(model), encoding="utf-8")
    return file_entry(folder, CARD), file_entry(folder, LICENCE)


def portable_name(model: LoadedModel) -> str:
    """A zoo name or hub id as it was given; of a path only the last part, which is the same on
    every machine."""
    path = Path(model.source)
    return path.name if path.exists() else model.source


def _no_licence(model: LoadedModel) -> str:
    return (
        f"No licence file was found beside {portable_name(model)}.\n"
        "Ask whoever trained it before you ship this bundle.\n"
    )


def _no_card(model: LoadedModel) -> str:
    return f"# {model.spec.name}\n\nNo model card was found beside {portable_name(model)}.\n"
