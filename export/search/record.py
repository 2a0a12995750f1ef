"""What a search has found, as it is written to disk."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Literal

from pydantic import JsonValue

from ..types import SCHEMA_VERSION, Value

if TYPE_CHECKING:
    from optuna import Study

REASON, STUDENT, FOLD_DERS = "reason", "student", "fold_der_percent"


class Tried(Value):
    """One trial. Objectives are None for one that was given up or failed (`reason`).

    `der_percent` is the geometric mean of `fold_der_percent`; `time_ratio` and `size_bytes` are
    those of the exported student.
    """

    number: int
    state: str
    student: str
    settings: dict[str, JsonValue]
    der_percent: float | None
    fold_der_percent: tuple[float, ...]
    time_ratio: float | None
    size_bytes: int | None
    agreement: dict[str, float]
    reason: str
    non_dominated: bool


class SearchRecord(Value):
    """`search.json`: the study as it stood, with what decides the meaning of its values."""

    schema_version: Literal[1] = SCHEMA_VERSION
    study: str
    identity: dict[str, JsonValue]
    trials: tuple[Tried, ...]


def record_of(study: Study, identity: dict[str, Any]) -> SearchRecord:
    """All trials of a study, running and waiting ones too; the best are Optuna's best_trials."""
    best = {trial.number for trial in study.best_trials}
    return SearchRecord(
        study=study.study_name,
        identity=identity,
        trials=tuple(_tried(trial, best) for trial in study.get_trials(deepcopy=False)),
    )


def _tried(trial: Any, best: set[int]) -> Tried:
    known = trial.user_attrs
    return Tried(
        number=trial.number,
        state=trial.state.name,
        student=known.get(STUDENT, ""),
        settings=dict(trial.params),
        der_percent=trial.values[0] if trial.values else None,
        fold_der_percent=tuple(known.get(FOLD_DERS, ())),
        time_ratio=known.get("time_ratio"),
        size_bytes=known.get("size_bytes"),
        agreement=known.get("agreement", {}),
        reason=known.get(REASON, ""),
        non_dominated=trial.number in best,
    )


def distill_command(tried: Tried, *, teacher: str, steps: int) -> str:
    """How to train a found student on all audio."""
    options: dict[str, Any] = {"teacher": teacher, "student": tried.student, "steps": steps}
    for name in ("batch_size", "learning_rate", "weight_decay", "average_decay"):
        if name in tried.settings:
            value = tried.settings[name]
            options[name] = f"{value:.4g}" if isinstance(value, float) else value
    words = [f"--{name.replace('_', '-')} {shlex.quote(str(v))}" for name, v in options.items()]
    return " ".join(["diarport distill", *words, "--audio AUDIO --out OUT"])
