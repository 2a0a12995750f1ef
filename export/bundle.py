"""Bundles: a directory of hashed files under one manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from .bundle_place import MANIFEST, recover
from .errors import BundleError
from .types import SCHEMA_VERSION, Bundle, BundleContent, FileEntry, Golden

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class GoldenArrays:
    """A golden before it is written: float32 input [1, 1, samples] and expected scores; of an
    embedding model weights [1, speakers, frames] and expected embeddings."""

    name: str
    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]
    noise_floor: float
    weights: NDArray[np.float32] | None = None


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a directory's relative paths and file hashes in sorted order."""
    if path.is_dir():
        tree = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            tree.update(f"{file.relative_to(path).as_posix()}\0{hash_path(file)}\n".encode())
        return tree.hexdigest()
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a directory."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def file_entry(root: Path, path: str) -> FileEntry:
    """Manifest entry of a file inside a bundle directory."""
    return FileEntry(path=path, sha256=hash_path(root / path), size_bytes=size_of(root / path))


def write_goldens(root: Path, goldens: Sequence[GoldenArrays]) -> tuple[Golden, ...]:
    """Write inputs and expected outputs as raw little-endian float32 under `goldens/`."""
    folder = root / "goldens"
    folder.mkdir()
    written = []
    for index, golden in enumerate(goldens):
        stem = f"goldens/{index:02d}"
        entries: dict[str, object] = {}
        arrays = {"input": golden.inputs, "output": golden.outputs, "weights": golden.weights}
        for kind, array in arrays.items():
            if array is None:
                continue
            path = f"{stem}.{kind}.f32"
            (root / path).write_bytes(np.ascontiguousarray(array, "<f4").tobytes())
            entries |= {
                f"{kind}_path": path,
                f"{kind}_sha256": hash_path(root / path),
                f"{kind}_shape": array.shape,
            }
        written.append(
            Golden.model_validate(
                {"name": golden.name, "noise_floor": golden.noise_floor} | entries
            )
        )
    return tuple(written)


def read_golden(root: Path, golden: Golden) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Input and expected output of a golden."""
    inputs = np.fromfile(root / golden.input_path, "<f4").reshape(golden.input_shape)
    outputs = np.fromfile(root / golden.output_path, "<f4").reshape(golden.output_shape)
    return inputs, outputs


def content_sha256(content: BundleContent) -> str:
    """Hash of everything in a bundle that does not change from run to run."""
    return hashlib.sha256(content.to_json().encode()).hexdigest()


def write_manifest(root: Path, content: BundleContent, *, evidence: Sequence[str]) -> Bundle:
    """Write `bundle.json` over the files already in the directory."""
    bundle = Bundle(
        schema_version=SCHEMA_VERSION,
        content=content,
        content_sha256=content_sha256(content),
        evidence=tuple(file_entry(root, path) for path in evidence),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    (root / MANIFEST).write_text(bundle.to_json(), encoding="utf-8")
    return bundle


def read_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest; raises `BundleError` when there is none that this version knows."""
    recover(path)
    manifest = path / MANIFEST
    if not path.is_dir():
        raise BundleError(path, found="no such directory", expected="a bundle")
    if not manifest.is_file():
        raise BundleError(path, found=f"no {MANIFEST} in it", expected="a bundle")
    try:
        text = manifest.read_text(encoding="utf-8")
        schema = json.loads(text)["schema_version"]
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError(
            manifest, found="not a manifest", expected="JSON with a schema_version"
        ) from error
    if schema != SCHEMA_VERSION:
        raise BundleError(
            manifest,
            found=f"schema version {schema}",
            expected=f"schema version {SCHEMA_VERSION}",
            todo="Use the diarport that wrote it, or build it again.",
        )
    try:
        return Bundle.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            manifest, found=f"{where}: {first['msg']}", expected="a manifest of this schema"
        ) from error


def verify_bundle(path: Path) -> Bundle:
    """Re-hash a whole bundle; raises one `BundleError` that lists all that is wrong."""
    bundle = read_bundle(path)
    content = bundle.content
    listed = {entry.path: entry.sha256 for entry in (*content.files, *bundle.evidence)}
    listed |= {artifact.path: artifact.sha256 for artifact in content.artifacts}
    for golden in content.goldens:
        listed |= {
            golden.input_path: golden.input_sha256,
            golden.output_path: golden.output_sha256,
        }
        if golden.weights_path and golden.weights_sha256:
            listed[golden.weights_path] = golden.weights_sha256
    wrong = []
    if content_sha256(content) != bundle.content_sha256:
        wrong.append(f"{MANIFEST}: its content does not match its content_sha256")
    for name, expected in sorted(listed.items()):
        file = path / name
        if not file.exists():
            wrong.append(f"{name}: missing")
        elif (found := hash_path(file)) != expected:
            wrong.append(f"{name}: hash {found[:12]}, expected {expected[:12]}")
    wrong += [f"{name}: not in the manifest" for name in _unlisted(path, set(listed))]
    if content.pipeline is not None and (path / content.pipeline.embedding_path).is_dir():
        inner = verify_bundle(path / content.pipeline.embedding_path)
        if inner.content_sha256 != content.pipeline.embedding_content_sha256:
            wrong.append(f"{content.pipeline.embedding_path}: not the embedding it was built with")
    wrong += _calibrated_otherwise(path, content)
    if wrong:
        raise BundleError(
            path,
            found="; ".join(wrong),
            expected=f"the files that {MANIFEST} lists",
            todo="Copy or build the bundle again.",
        )
    return bundle


def _calibrated_otherwise(root: Path, content: BundleContent) -> list[str]:
    """Artifacts whose recipe names other audio than the record of the calibration."""
    named = {a.path: sha for a in content.artifacts if (sha := a.recipe.calibration_sha256)}
    try:
        record = json.loads((root / CALIBRATION).read_text("utf-8")) if named else {}
        found = str(record.get("sha256"))
    except (OSError, ValueError, AttributeError):
        found = "nothing"
    return [
        f"{path}: calibrated on {sha256[:12]}, {CALIBRATION} is of {found[:12]}"
        for path, sha256 in named.items()
        if sha256 != found
    ]


def _unlisted(root: Path, listed: set[str]) -> list[str]:
    unlisted = []
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        relative = file.relative_to(root)
        names = {relative.as_posix(), *(p.as_posix() for p in relative.parents)}
        if relative.as_posix() != MANIFEST and not names & listed:
            unlisted.append(relative.as_posix())
    return unlisted
