"""Registries of what can be plugged in. One plug-in is one file; a duplicate name raises."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from .errors import ExportError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Named plug-ins of one kind, found by importing every module of a package once.

    Raises `ExportError` on an unknown name and `ValueError` on a duplicate registration.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self._package = kind, package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str, entry: T) -> None:
        """Register an entry under a name that is not taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[type], type]:
        """Class decorator: register one instance of the class."""

        def decorate(cls: type) -> type:
            self.add(name, cls())
            return cls

        return decorate

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self._package)
        for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            importlib.import_module(f"{self._package}.{module}")
        self._loaded = True

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._load()
        try:
            return self._entries[name]
        except KeyError:
            raise ExportError(
                name, found=f"no such {self.kind}", expected=f"one of {', '.join(self)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load()
        return len(self._entries)
