"""What a recipe promises, and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .timing import TimeRatio
from .values import SCHEMA_VERSION, Value


class Promises(Value):
    """What a recipe promises at most, beside the fp32 artifact of the same backend: ratios of bytes
    and of median times. None promises nothing."""

    size: float | None = Field(default=None, gt=0)
    time: float | None = Field(default=None, gt=0)


class FloatComparison(Value):
    """A smaller artifact beside the fp32 artifact of the same backend and the same build.

    `time` is None where `untimed` says why. `findings` are sentences by the name that allows each:
    `larger` or `slower` than promised, or than fp32 where nothing is promised. `broken` names those
    that a promise excludes and that are not `allowed`.
    """

    artifact_path: str
    size_bytes: int
    float_size_bytes: int
    time: TimeRatio | None
    untimed: str | None
    promises: Promises
    findings: dict[str, str]
    allowed: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def size_ratio(self) -> float:
        """Bytes over the fp32 artifact's."""
        return self.size_bytes / self.float_size_bytes


class GuardRecord(Value):
    """`guard_rails.json`: every smaller artifact of a build beside fp32."""

    schema_version: Literal[1] = SCHEMA_VERSION
    comparisons: tuple[FloatComparison, ...]
