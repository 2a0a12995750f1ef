"""Errors that reach the user: the file, what was found, what was expected, what to do."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of every command. They are part of the interface and never change meaning.

    PARITY_FAILED means that an artifact breaks a promise: of parity, or of its budget.
    """

    OK = 0
    PARITY_FAILED = 1
    BAD_INPUT = 2
    BACKEND_UNAVAILABLE = 3


class ExportError(Exception):
    """Base of all errors that are reported without a traceback.

    Parameters: `what` names the thing (usually a file); `found` and `expected` say what is wrong
    with it; `todo` says what the user can do.
    """

    exit_code = ExitCode.BAD_INPUT

    def __init__(
        self, what: str | Path, *, found: str, expected: str | None = None, todo: str | None = None
    ) -> None:
        self.what, self.found, self.expected, self.todo = str(what), found, expected, todo
        parts = [f"{what}: {found}"]
        if expected:
            parts.append(f"expected {expected}")
        message = "; ".join(parts)
        super().__init__(f"{message}. {todo}" if todo else message)


class CheckpointError(ExportError):
    """A model that is missing, truncated, not a checkpoint, or of an unknown architecture."""


class AudioError(ExportError):
    """Audio that is missing, empty, not audio, not finite, or without the reference it needs."""


class BundleError(ExportError):
    """A bundle that is missing a file, was changed, or is of an unknown schema."""


class RecipeError(ExportError):
    """A recipe that is unknown, or that a backend does not support."""


class TrainingError(ExportError):
    """A distillation that cannot start or go on."""


class DivergedError(TrainingError):
    """A distillation whose loss is not finite any more."""


class BackendUnavailableError(ExportError):
    """A backend that was asked for by name and cannot run on this machine."""

    exit_code = ExitCode.BACKEND_UNAVAILABLE


class ParityError(ExportError):
    """At least one artifact does not compute what the reference computes."""

    exit_code = ExitCode.PARITY_FAILED


class BudgetError(ExportError):
    """At least one artifact computes outside its delegates, or is larger than it may be."""

    exit_code = ExitCode.PARITY_FAILED
