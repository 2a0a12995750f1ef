"""When a trial is given up: a median rule for several objectives.

Optuna reports and prunes in studies of one objective only (`Trial.report` raises in others). Size
and time of a student are known before it is trained, so what is left to learn is one objective:
a trial is given up when it does worse than most of those that are at least as small and as fast.
What could still be the smallest or the fastest is never given up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Course:
    """What is known of a trial while it runs.

    `agreement` is percent of the teacher's decisions on the held-out audio, by fold and step.
    """

    size_bytes: int
    time_ratio: float
    agreement: dict[str, float] = field(default_factory=dict)

    def at_least_as_cheap(self, other: Course) -> bool:
        """Whether it is neither larger nor slower than the other."""
        return self.size_bytes <= other.size_bytes and self.time_ratio <= other.time_ratio


def place(fold: int, step: int) -> str:
    """Where in its course a trial is."""
    return f"{fold}:{step}"


def why_hopeless(course: Course, finished: Sequence[Course], *, at: str, enough: int) -> str | None:
    """Why a trial need not go on, or None.

    The median stopping rule of Golovin et al., "Google Vizier: A Service for Black-Box
    Optimization", KDD 2017, section 3.2.2, against finished trials that cost no more; no verdict
    below `enough` of them.
    """
    others = [
        other.agreement[at]
        for other in finished
        if other.at_least_as_cheap(course) and at in other.agreement
    ]
    if len(others) < enough or course.agreement[at] >= median(others):
        return None
    fold, _, step = at.partition(":")
    return (
        f"fold {fold}, step {step}: {course.agreement[at]:.2f} % agreement, below the median "
        f"{median(others):.2f} % of {len(others)} trials that are as small and as fast"
    )


def course_of(attributes: Mapping[str, object]) -> Course | None:
    """The course that a trial has put on record, None when it never got that far."""
    size, time, agreement = (attributes.get(k) for k in ("size_bytes", "time_ratio", "agreement"))
    if not isinstance(size, int) or not isinstance(time, float) or not isinstance(agreement, dict):
        return None
    return Course(size, time, {str(k): float(v) for k, v in agreement.items()})
