"""Where a bundle is written: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from .errors import BundleError

MANIFEST = "bundle.json"
PROBE_BYTES = 4_000_000


class BundleWriter:
    """Builds a bundle beside its target and moves it there in the end.

    A run that is killed leaves the old bundle or none: the new one comes into place by a rename;
    an old one that was just moved aside is moved back by whoever touches the bundle next. What
    dead runs left behind is removed. Raises `BundleError` rather than replacing a directory that
    is no bundle.
    """

    def __init__(self, target: Path) -> None:
        self._target = target.absolute()
        self.folder = self._target

    def __enter__(self) -> Self:
        target = self._target
        recover(target)
        _make_way(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{_hidden(target, 'tmp')}{os.getpid()}-"
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        self.folder.chmod(0o755)
        return self

    def commit(self, target: Path | None = None) -> None:
        """Put the finished bundle in place of the old one, or in another place beside it."""
        target = (target or self._target).absolute()
        _make_way(target)
        old = None
        if target.exists():
            old = target.with_name(f"{_hidden(target, 'old')}{os.getpid()}")
            target.rename(old)
        self.folder.rename(target)
        if old:
            shutil.rmtree(old)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.folder == self._target or not self.folder.exists():
            return
        # Exporters tell of a full disk each in their own words, if at all: ask the disk.
        full = _refusal(self.folder) if isinstance(error, Exception) else None
        shutil.rmtree(self.folder)
        if full:
            raise BundleError(
                self._target,
                found=f"cannot be written ({full})",
                todo="Free some space or choose another --out; nothing was left behind.",
            ) from error


def _refusal(folder: Path) -> str | None:
    """Why a file of a few megabytes cannot be written, or None when it can."""
    probe = folder / ".probe"
    try:
        probe.write_bytes(b"\0" * PROBE_BYTES)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _make_way(target: Path) -> None:
    """Refuse to replace what is no bundle; an empty directory is removed."""
    if not target.exists() or (target / MANIFEST).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise BundleError(
            target,
            found="something that is not a bundle",
            expected="a bundle to replace, or a path that is free",
            todo="Choose another --out.",
        )
    target.rmdir()


def _hidden(target: Path, kind: str) -> str:
    return f".{target.name}.{kind}-"


def recover(target: Path) -> None:
    """Undo what a killed run left: a bundle moved aside comes back, half-written ones go."""
    if not target.parent.is_dir():
        return
    for kind in ("old", "tmp"):
        prefix = _hidden(target, kind)
        for path in sorted(p for p in target.parent.iterdir() if p.name.startswith(prefix)):
            if is_running(int(path.name.removeprefix(prefix).partition("-")[0])):
                continue
            if kind == "old" and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
