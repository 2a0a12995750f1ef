"""What was found of an artifact: metrics, rungs, error rates, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Self

from pydantic import model_validator

from .artifacts import Precision
from .models import Role
from .values import SCHEMA_VERSION, Sha256, Value


class Verdict(StrEnum):
    """Outcome of a check. What could not run is never a pass."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    NOT_RUN = "NOT_RUN"

    @classmethod
    def worst(cls, verdicts: list[Verdict]) -> Verdict:
        """FAIL over NOT_RUN over PASS; nothing at all is NOT_RUN."""
        for candidate in (cls.FAIL, cls.NOT_RUN):
            if candidate in verdicts:
                return candidate
        return cls.PASS if verdicts else cls.NOT_RUN


class Metric(Value):
    """One measured value with its limit (None: reported only), unit and direction."""

    name: str
    value: float
    limit: float | None
    unit: str
    higher_is_better: bool

    @property
    def passed(self) -> bool:
        """Whether the value is within its limit; a metric without a limit always is."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.higher_is_better else self.value <= self.limit


class RungName(StrEnum):
    """The rungs of the parity ladders, in order; `RUNGS` has those of each role."""

    CONTRACT = "contract"
    FEATURES = "features"
    SCORES = "scores"
    DECISIONS = "decisions"
    BOUNDARIES = "boundaries"
    DER = "der"
    EMBEDDINGS = "embeddings"


RUNGS: Mapping[Role, tuple[RungName, ...]] = {
    Role.SEGMENTATION: tuple(name for name in RungName if name is not RungName.EMBEDDINGS),
    Role.EMBEDDING: (RungName.CONTRACT, RungName.FEATURES, RungName.EMBEDDINGS),
}


class Rung(Value):
    """One rung's result, with the window that was worst on it."""

    name: RungName
    verdict: Verdict
    metrics: tuple[Metric, ...]
    worst_window: str | None
    reason: str | None

    @model_validator(mode="after")
    def _reason_when_not_run(self) -> Self:
        if self.verdict is Verdict.NOT_RUN and not self.reason:
            raise ValueError("a rung that did not run must say why")
        return self


class DerScore(Value):
    """Diarization error rate in percent, with its parts and the settings it was computed with.

    `pooled` divides summed errors by summed reference speech; `window_mean` is the mean over
    windows (the papers' chunk-wise rate). Rates are percent of reference speech.
    """

    pooled: float
    window_mean: float
    false_alarm: float
    missed_detection: float
    confusion: float
    reference_speech_s: float
    num_windows: int
    collar_s: float
    skip_overlap: bool


class DerInterval(Value):
    """Where the difference of two pooled DERs lies, in percentage points: a paired bootstrap.

    `stretches` is how many independent pieces of audio were drawn from: windows that overlap are
    one piece. Few of them make it wide, and itself uncertain.
    """

    low: float
    high: float
    confidence: float
    stretches: int


class DerComparison(Value):
    """DER of an artifact beside the reference's on the same audio.

    `interval` is None where there is but one piece of audio to draw from.
    """

    artifact: DerScore
    reference: DerScore
    interval: DerInterval | None = None

    @property
    def delta(self) -> float:
        """Pooled DER minus the reference's, in percentage points."""
        return self.artifact.pooled - self.reference.pooled


class VerificationScore(Value):
    """Error rates in percent, costs between 0 and 1, and how many trials they are of.

    `min_dcf` are minimum detection costs by the prior of a target, divided by the cost of always
    answering the likelier: 1 is no better than not listening.
    """

    eer: float
    min_dcf: dict[str, float]
    targets: int
    impostors: int
    speakers: int
    segments: int
    segment_s: float


class ParityReport(Value):
    """The ladder for one artifact against one reference."""

    artifact_path: str
    artifact_sha256: Sha256
    against: Literal["compressed", "float"]
    tolerance: Precision
    rungs: tuple[Rung, ...]
    der: DerComparison | None
    verdict: Verdict
    reason: str | None
    first_diverging_layer: str | None = None


class ParityRecord(Value):
    """`parity.json`: every report of one check and what it was done on."""

    schema_version: Literal[1] = SCHEMA_VERSION
    reports: tuple[ParityReport, ...]
    reference_der: DerScore | None
    hop_s: float
    num_speech_windows: int
    notes: tuple[str, ...]


class ParitySummary(Value):
    """The verdict on one artifact, as the manifest carries it."""

    artifact_path: str
    verdict: Verdict
    reason: str | None
