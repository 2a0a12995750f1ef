"""What a bundle holds beside its content, different in each run: verdicts, times, a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..types import (
    ArtifactProfile,
    BundleContent,
    FloatComparison,
    GuardRecord,
    LatencyRecord,
    LatencyReport,
    ParityRecord,
    ProfileRecord,
    Verdict,
)

if TYPE_CHECKING:
    from runtime_checks.check import CheckResult

PARITY, LATENCY, PROFILE, REPORT = "parity.json", "latency.json", "profile.json", "report.html"
GUARDS = "guard_rails.json"
EVIDENCE = (PARITY, LATENCY, PROFILE, GUARDS, REPORT)


@dataclass(frozen=True)
class Measured:
    """What differs from run to run, for the bundle's evidence.

    `comparisons` are the smaller artifacts beside fp32 of the same backend.
    """

    checked: CheckResult
    latencies: tuple[LatencyReport, ...]
    profiles: tuple[ArtifactProfile, ...]
    comparisons: tuple[FloatComparison, ...]

    @property
    def verdict(self) -> Verdict:
        """FAIL for a promise that is broken; else that of parity."""
        broken = any(each.broken for each in self.comparisons)
        return Verdict.FAIL if broken else self.checked.verdict


def write_evidence(
    folder: Path,
    content: BundleContent,
    measured: Measured,
    *,
    notes: tuple[str, ...],
) -> None:
    """Write all of it into a bundle's folder, the page too."""
    from runtime_checks.report import write_html

    checked, latencies, profiles = measured.checked, measured.latencies, measured.profiles
    parity = parity_record(checked, notes=notes)
    (folder / PARITY).write_text(parity.to_json(), encoding="utf-8")
    (folder / LATENCY).write_text(LatencyRecord(reports=latencies).to_json(), encoding="utf-8")
    (folder / PROFILE).write_text(ProfileRecord(profiles=profiles).to_json(), encoding="utf-8")
    guards = GuardRecord(comparisons=measured.comparisons)
    (folder / GUARDS).write_text(guards.to_json(), encoding="utf-8")
    write_html(
        folder / REPORT,
        bundle=content,
        reports=checked.reports,
        timelines=checked.timelines,
        latencies=latencies,
        profiles=profiles,
        comparisons=measured.comparisons,
        notes=parity.notes,
    )


def parity_record(checked: CheckResult, *, notes: tuple[str, ...] = ()) -> ParityRecord:
    """What a check found, as it is written to disk."""
    return ParityRecord(
        reports=checked.reports,
        reference_der=checked.reference_der,
        hop_s=checked.hop_s,
        num_speech_windows=checked.num_speech_windows,
        notes=(*checked.notes, *notes),
    )
