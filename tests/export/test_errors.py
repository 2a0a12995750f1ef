"""Errors that users see: what they say and the exit code they carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from export import errors
from export.errors import (
    BackendUnavailableError,
    BudgetError,
    ExitCode,
    ExportError,
    ParityError,
)


def subclasses(cls: type[ExportError]) -> list[type[ExportError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in subclasses(child))]


def test_exit_codes_never_change() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "PARITY_FAILED": 1,
        "BAD_INPUT": 2,
        "BACKEND_UNAVAILABLE": 3,
    }


@pytest.mark.parametrize("cls", subclasses(ExportError), ids=lambda cls: cls.__name__)
def test_every_error_has_the_exit_code_of_its_kind(cls: type[ExportError]) -> None:
    expected = {
        ParityError: ExitCode.PARITY_FAILED,
        BudgetError: ExitCode.PARITY_FAILED,
        BackendUnavailableError: ExitCode.BACKEND_UNAVAILABLE,
    }.get(cls, ExitCode.BAD_INPUT)
    assert cls("x", found="y").exit_code is expected
    assert cls.__module__ == errors.__name__


def test_a_message_names_what_was_found_expected_and_to_do() -> None:
    path = Path("model.bin")
    assert str(ExportError(path, found="empty")) == "model.bin: empty"
    error = ExportError(path, found="empty", expected="weights", todo="Download it again.")
    assert str(error) == "model.bin: empty; expected weights. Download it again."
    assert (error.what, error.found, error.expected, error.todo) == (
        "model.bin",
        "empty",
        "weights",
        "Download it again.",
    )
    assert str(ExportError("a", found="b", todo="Do c.")) == "a: b. Do c."
