"""What a search may vary: the student's architecture, and how it is distilled.

The two groups are those of Grebenkin and Bondarenko, "Size Matters: Optimal Amount of Speech Data
for Student Hyperparameter Tuning in ASR Knowledge Distillation".
"""

from __future__ import annotations

import tomllib
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, model_validator

from ..errors import TrainingError
from ..models.students import student_design
from ..types import Value

if TYPE_CHECKING:
    from optuna import Trial

FrontEnd = Annotated[str, Field(pattern="^(sinc|mfcc[0-9]+)$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Range(Value):
    """From `low` to `high`, both included; equal ends fix the value."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class SearchSpace(Value):
    """Choices of each design question and ranges of each setting; one choice fixes it.

    Learning rate and weight decay are drawn on a logarithmic scale.
    """

    front_ends: tuple[FrontEnd, ...] = Field(("sinc", "mfcc80", "mfcc120", "mfcc150"), min_length=1)
    layers: tuple[int, ...] = Field((1, 2, 3, 4), min_length=1)
    directions: tuple[str, ...] = Field(("bi", "uni"), min_length=1)
    cells: tuple[str, ...] = Field(("lstm", "gru"), min_length=1)
    linear_layers: tuple[int, ...] = Field((1, 2), min_length=1)
    learning_rate: Range = Range(low=5e-4, high=1e-2)
    weight_decay: Range = Range(low=1e-4, high=1e-1)
    average_decay: Range = Range(low=0.98, high=0.998)
    batch_sizes: tuple[int, ...] = Field((16, 32), min_length=1)

    @model_validator(mode="after")
    def _positive(self) -> SearchSpace:
        for name in ("learning_rate", "weight_decay"):
            if getattr(self, name).low <= 0:
                raise ValueError(f"{name} starts at {getattr(self, name).low}, not above 0")
        return self

    def students(self) -> list[str]:
        """Names of all students that a trial may draw."""
        choices = (self.front_ends, self.layers, self.directions, self.cells, self.linear_layers)
        return [student_name(*choice) for choice in product(*choices)]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Settings of one trial, as DistilConfig takes them."""
        student = student_name(
            trial.suggest_categorical("front_end", self.front_ends),
            trial.suggest_categorical("layers", self.layers),
            trial.suggest_categorical("direction", self.directions),
            trial.suggest_categorical("cell", self.cells),
            trial.suggest_categorical("linear_layers", self.linear_layers),
        )
        settings: dict[str, Any] = {
            "student": student,
            "batch_size": trial.suggest_categorical("batch_size", self.batch_sizes),
        }
        for name in ("learning_rate", "weight_decay", "average_decay"):
            wanted: Range = getattr(self, name)
            logarithmic = name != "average_decay"
            settings[name] = trial.suggest_float(name, wanted.low, wanted.high, log=logarithmic)
        return settings


def student_name(front_end: str, layers: int, direction: str, cell: str, linear: int) -> str:
    """A student's name: `mfcc80-1uni-gru`, `sinc-2bi-2lin`."""
    name = f"{front_end}-{layers}{direction}"
    name += "" if linear == 1 else f"-{linear}lin"
    return name if cell == "lstm" else f"{name}-{cell}"


def read_space(path: Path | None) -> SearchSpace:
    """A space from a TOML file; what it leaves out, and all without a file, is the default's.

    Raises TrainingError on a file that is missing, no TOML, or asks for what there is not.
    """
    given: dict[str, Any] = {}
    if path is not None:
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise TrainingError(
                path, found=f"not readable ({error})", expected="a search space in TOML"
            ) from error
    try:
        space = SearchSpace(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "space"
        raise TrainingError(
            path or "space",
            found=f"{where}: {first['msg']}",
            expected=f"some of {', '.join(SearchSpace.model_fields)}",
        ) from error
    for name in space.students():
        student_design(name)  # one that there is not raises here, and not after hours
    return space
