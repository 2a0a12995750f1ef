"""Diarization error rates as tables of the page: one for every audio and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.types import DerComparison, DerScore, ParityReport, RungName, Verdict

from ..der import FEW_STRETCHES


@dataclass(frozen=True)
class DerRow:
    """One line of the DER table; `deltas` are comparisons of an artifact by what it is held
    against."""

    source: str
    score: DerScore
    deltas: dict[str, DerComparison]


@dataclass(frozen=True)
class DerTable:
    """Scores that were computed on the same audio with the same settings."""

    collar_s: float
    skip_overlap: bool
    reference_speech_s: float
    num_windows: int
    rows: tuple[DerRow, ...]

    @property
    def stretches(self) -> int | None:
        """From how many stretches of audio the intervals of the differences are."""
        compared = (each for row in self.rows for each in row.deltas.values())
        return next((each.interval.stretches for each in compared if each.interval), None)

    @property
    def few(self) -> bool:
        """Whether those are too few for a narrow interval."""
        return self.stretches is not None and self.stretches < FEW_STRETCHES


def der_tables(reports: Sequence[ParityReport]) -> list[DerTable]:
    """One table for every setting and audio; PyTorch first, then the artifacts."""
    tables: dict[tuple[float, bool, float, int], dict[str, DerRow]] = {}
    for report in reports:
        if report.der is None:
            continue
        own, other = report.der.artifact, report.der.reference
        rows = tables.setdefault(
            (own.collar_s, own.skip_overlap, own.reference_speech_s, own.num_windows), {}
        )
        reference = f"PyTorch, {report.against}"
        rows.setdefault(reference, DerRow(reference, other, {}))
        row = rows.setdefault(report.artifact_path, DerRow(report.artifact_path, own, {}))
        row.deltas[report.against] = report.der
    return [
        DerTable(
            collar_s=collar_s,
            skip_overlap=skip_overlap,
            reference_speech_s=speech_s,
            num_windows=num_windows,
            rows=tuple(sorted(rows.values(), key=lambda row: bool(row.deltas))),
        )
        for (collar_s, skip_overlap, speech_s, num_windows), rows in tables.items()
    ]


def der_reasons(reports: Sequence[ParityReport]) -> list[str]:
    """Why there is no DER, as its rungs tell it."""
    reasons = [
        rung.reason
        for report in reports
        for rung in report.rungs
        if rung.name is RungName.DER and rung.verdict is Verdict.NOT_RUN and rung.reason
    ]
    return list(dict.fromkeys(reasons))
