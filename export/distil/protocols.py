"""Training, development and test audio as a protocol of pyannote.database names it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AudioError

SUBSETS = ("train", "development", "test")


@dataclass(frozen=True)
class ProtocolPart:
    """Audio of one subset; its reference as files, None where the protocol gives none."""

    audio: tuple[Path, ...]
    rttm: Path | None
    uem: Path | None


def read_protocol(name: str, *, database: Path | None, folder: Path) -> dict[str, ProtocolPart]:
    """The subsets of a protocol, such as `AMI.SpeakerDiarization.mini`; one it lacks is empty.

    `database` is the database.yml that describes it (default: those that pyannote.database finds
    by itself). References are written to `folder` as RTTM and UEM, under the audio files' names.
    Raises AudioError on a protocol that cannot be found or read, or without training audio.
    """
    from pyannote.database import FileFinder, registry
    from pyannote.database.registry import Registry

    known = registry
    try:
        if database is not None:
            known = Registry()
            known.load_database(database)
        protocol = known.get_protocol(name, preprocessors={"audio": FileFinder(registry=known)})
        folder.mkdir(parents=True, exist_ok=True)
        parts = {subset: _part(protocol, subset, folder) for subset in SUBSETS}
    except AudioError:
        raise
    except Exception as error:  # whatever its loaders raise on what a user has written
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        where = database or "the databases that pyannote.database knows"
        raise AudioError(
            name,
            found=f"not readable ({reason})",
            expected=f"a protocol of {where}",
            todo="Give the database.yml that describes it: --database.",
        ) from error
    if not parts["train"].audio:
        raise AudioError(name, found="an empty protocol", expected="training audio in it")
    return parts


def _part(protocol: Any, subset: str, folder: Path) -> ProtocolPart:
    try:
        files = list(getattr(protocol, subset)())
    except (AttributeError, NotImplementedError):
        files = []
    audio = tuple(Path(file["audio"]) for file in files)
    stems = [path.stem for path in audio]
    turns = [
        f"SPEAKER {stem} 1 {segment.start:.3f} {segment.duration:.3f} <NA> <NA> {label} <NA> <NA>"
        for stem, file in zip(stems, files, strict=True)
        for segment, _, label in _annotation(file)
    ]
    scored = [
        f"{stem} 1 {segment.start:.3f} {segment.end:.3f}"
        for stem, file in zip(stems, files, strict=True)
        for segment in (file.get("annotated", None) or ())
    ]
    return ProtocolPart(
        audio, _lines(folder / f"{subset}.rttm", turns), _lines(folder / f"{subset}.uem", scored)
    )


def _annotation(file: Any) -> Iterable[tuple[Any, Any, str]]:
    annotation = file.get("annotation", None)
    return annotation.itertracks(yield_label=True) if annotation is not None else ()


def _lines(path: Path, lines: list[str]) -> Path | None:
    if not lines:
        return None
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
