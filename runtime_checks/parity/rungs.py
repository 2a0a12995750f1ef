"""The rungs that compare scores: scores, decisions, boundaries.

Each gives its metrics over all windows and names the window that was worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.audio import Window
from export.types import Metric, ModelSpec, Rung, RungName, Verdict

from .boundaries import compare_boundaries
from .decisions import Floats, WindowDecisions, compare_decisions, probabilities
from .limits import Limits

SNR_CEILING_DB = 200.0  # of identical arrays, whose true ratio is infinite
TINY = 1e-12
MAX_SHIFT_S = 0.5  # boundaries further apart are not the same boundary

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Compared:
    """An artifact's scores beside a reference's on the same windows."""

    windows: Sequence[Window]
    artifact: Sequence[Scores]
    exact: Sequence[Floats]
    noise_floors: Sequence[float]
    spec: ModelSpec
    limits: Limits


def metric(
    name: str,
    value: float,
    *,
    unit: str,
    limit: float | None = None,
    higher_is_better: bool = False,
) -> Metric:
    """A metric as the report shows it."""
    return Metric(
        name=name,
        value=float(value),
        limit=None if limit is None else float(limit),
        unit=unit,
        higher_is_better=higher_is_better,
    )


def judge(
    name: RungName, metrics: Sequence[Metric], *, worst: str | None, reason: str | None = None
) -> Rung:
    """A rung that passes when all its metrics do."""
    passed = all(each.passed for each in metrics)
    return Rung(
        name=name,
        verdict=Verdict.PASS if passed else Verdict.FAIL,
        metrics=tuple(metrics),
        worst_window=worst,
        reason=reason,
    )


def not_run(name: RungName, reason: str) -> Rung:
    """A rung that could not be looked at."""
    return Rung(name=name, verdict=Verdict.NOT_RUN, metrics=(), worst_window=None, reason=reason)


def scores(compared: Compared, *, left_out: Sequence[str]) -> Rung:
    """Rung 3: distances of the scores, as probabilities, from the float64 reference.

    `left_out` names the windows that are not judged, since float32 itself fails there.
    """
    limits, floors = compared.limits, compared.noise_floors
    truths = [probabilities(each, compared.spec) for each in compared.exact]
    mine = [probabilities(each, compared.spec) for each in compared.artifact]
    pairs = list(zip(mine, truths, strict=True))
    errors = [float(np.abs(a - b).max()) for a, b in pairs]
    means = [float(np.abs(a - b).mean()) for a, b in pairs]
    allowed = [limits.score_limit(floor) for floor in floors]
    excess = [
        error if limit is None else error / max(limit, TINY)
        for error, limit in zip(errors, allowed, strict=True)
    ]
    worst = int(np.argmax(excess))
    metrics = [
        metric("max_abs", errors[worst], unit="probability", limit=allowed[worst]),
        metric("largest_max_abs", max(errors), unit="probability"),
        metric("noise_floor", floors[worst], unit="probability"),
        metric("mean_abs", max(means), unit="probability"),
        metric("snr", min(snr_db(a, b) for a, b in pairs), unit="dB", higher_is_better=True),
        metric("windows_not_judged", len(left_out), unit="windows"),
        metric("cosine", min(cosine(a, b) for a, b in pairs), unit="", higher_is_better=True),
    ]
    reason = None
    if left_out:
        reason = f"PyTorch's own float32 is lost on {', '.join(left_out)}: not judged there"
    return judge(RungName.SCORES, metrics, worst=compared.windows[worst].name, reason=reason)


def compare_all_decisions(compared: Compared) -> list[WindowDecisions]:
    """Decisions of every window, with the dead band that its noise floor asks for."""
    return [
        compare_decisions(mine, theirs, spec=compared.spec, band=compared.limits.band(floor))
        for mine, theirs, floor in zip(
            compared.artifact,
            compared.exact,
            compared.noise_floors,
            strict=True,
        )
    ]


def decisions(compared: Compared, decided: Sequence[WindowDecisions]) -> Rung:
    """Rung 4: frames decided differently, as they stand and in the best speaker order."""
    limits = compared.limits
    frames = sum(len(each.settled) for each in decided)
    swapped = [
        window.name
        for window, each in zip(compared.windows, decided, strict=True)
        if each.permutation is not None
    ]
    worst = max(
        range(len(decided)), key=lambda i: (decided[i].flips, decided[i].flips_as_they_stand)
    )
    metrics = [
        metric(
            "decision_flips",
            100 * sum(each.flips for each in decided) / frames,
            unit="% of frames",
            limit=limits.decision_flips,
        ),
        metric(
            "flips_as_they_stand",
            100 * sum(each.flips_as_they_stand for each in decided) / frames,
            unit="% of frames",
        ),
        metric("speaker_swaps", len(swapped), unit="windows", limit=limits.speaker_swaps),
        metric(
            "undecided", 100 * sum(each.undecided for each in decided) / frames, unit="% of frames"
        ),
    ]
    reason = f"speakers swapped in {', '.join(swapped[:3])}" if swapped else None
    if len(swapped) > 3:
        reason = f"{reason} and {len(swapped) - 3} more windows"
    return judge(RungName.DECISIONS, metrics, worst=compared.windows[worst].name, reason=reason)


def boundaries(compared: Compared, decided: Sequence[WindowDecisions]) -> Rung:
    """Rung 5: how far onsets and offsets moved, in the speaker order of the decisions rung."""
    limits, step_s = compared.limits, compared.spec.geometry.frame_step_s
    gate = round(MAX_SHIFT_S / step_s)
    found = [
        compare_boundaries(each.settled, each.reference, max_shift_frames=gate) for each in decided
    ]
    shifts = np.array([s for each in found for s in each.shifts_frames] or [0]) * step_s * 1000
    total = sum(each.total for each in found)
    unmatched = sum(each.unmatched for each in found)
    # Half a microsecond, so that a limit of whole frames is not missed by rounding.
    limit_ms = (
        None
        if limits.boundary_p95_frames is None
        else limits.boundary_p95_frames * step_s * 1000 + 5e-4
    )
    metrics = [
        metric("shift_p95", float(np.percentile(shifts, 95)), unit="ms", limit=limit_ms),
        metric("shift_median", float(np.median(shifts)), unit="ms"),
        metric("shift_max", float(shifts.max()), unit="ms"),
        metric(
            "unmatched_boundaries",
            100 * unmatched / total if total else 0.0,
            unit="% of boundaries",
            limit=limits.unmatched_boundaries,
        ),
        metric("boundaries", total, unit=""),
    ]
    worst = max(
        range(len(found)),
        key=lambda i: (found[i].unmatched, max(found[i].shifts_frames, default=0)),
    )
    return judge(RungName.BOUNDARIES, metrics, worst=compared.windows[worst].name)


def snr_db(values: Floats, truth: Floats) -> float:
    """Signal-to-noise ratio of values against the truth, in dB, at most 200."""
    noise = float(np.square(values - truth).sum())
    signal = float(np.square(truth).sum())
    if noise == 0 or signal == 0:
        return SNR_CEILING_DB if noise == 0 else -SNR_CEILING_DB
    return float(np.clip(10 * np.log10(signal / noise), -SNR_CEILING_DB, SNR_CEILING_DB))


def cosine(values: Floats, truth: Floats) -> float:
    """Cosine of two arrays taken as vectors; 1 for two that are both zero."""
    norms = float(np.linalg.norm(values) * np.linalg.norm(truth))
    if norms == 0:
        return float(np.array_equal(values, truth))
    return float(np.vdot(values, truth) / norms)
