"""Rungs 1 and 2: does the artifact keep its contract, and are its front-end's features right?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from export.audio import Window
from export.types import FrameGeometry, ModelSpec, Role, Rung, RungName, TensorSpec

from .decisions import Floats
from .limits import Limits
from .rungs import TINY, judge, metric, not_run

RANGE_SLACK = 1e-6
SUM_SLACK = 1e-3  # probabilities of a powerset in half precision do not sum to one exactly


def declaration_problems(
    kind: str,
    declared: tuple[TensorSpec, ...] | None,
    expected: tuple[TensorSpec, ...],
) -> list[str]:
    """How the inputs or outputs that a file declares differ from the model's spec.

    A free dimension of the file accepts any size; None means that the format declares nothing.
    """
    if declared is None:
        return []
    names, wanted = [each.name for each in declared], [each.name for each in expected]
    if names != wanted:
        return [f"{kind}s are named {', '.join(names)}, expected {', '.join(wanted)}"]
    problems = []
    for mine, spec in zip(declared, expected, strict=True):
        if mine.dtype != spec.dtype:
            problems.append(f"{kind} {mine.name} is {mine.dtype}, expected {spec.dtype}")
        same_rank = len(mine.shape) == len(spec.shape)
        if not same_rank or any(
            a not in (None, b) for a, b in zip(mine.shape, spec.shape, strict=True)
        ):
            problems.append(f"{kind} {mine.name} has shape {mine.shape}, expected {spec.shape}")
    return problems


def expected_frames(geometry: FrameGeometry, samples: int) -> int:
    """Frames that so many samples must give."""
    return (samples - geometry.receptive_field_samples) // geometry.frame_step_samples + 1


def value_problems(scores: NDArray[np.floating], spec: ModelSpec) -> list[str]:
    """What is wrong with one window's output [1, frames, classes], whatever its accuracy."""
    expected = spec.outputs[0]
    problems = []
    if scores.dtype != np.dtype(expected.dtype):
        problems.append(f"output is {scores.dtype}, expected {expected.dtype}")
    if scores.shape != expected.shape:
        return [*problems, f"output has shape {scores.shape}, expected {expected.shape}"]
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        return [*problems, f"{bad} of {scores.size} output values are NaN or infinite"]
    if spec.role is Role.EMBEDDING:
        return problems
    low, high = float(scores.min()), float(scores.max())
    if spec.activation == "sigmoid":
        if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
            problems.append(f"scores lie in [{low:.3g}, {high:.3g}], expected [0, 1] (sigmoid)")
        return problems
    sums = np.exp(scores.astype(np.float64)).sum(axis=2)
    off = float(np.abs(sums - 1).max())
    if high > RANGE_SLACK or off > SUM_SLACK:
        problems.append(
            f"probabilities sum to {sums.flat[np.abs(sums - 1).argmax()]:.6g} and the largest "
            f"log-probability is {high:.3g}, expected 1 and at most 0 (log-softmax)"
        )
    return problems


def contract(problems: Sequence[tuple[str | None, str]], *, num_windows: int) -> Rung:
    """Rung 1 from all problems found, each with its window (None: of the file itself)."""
    distinct = list(dict.fromkeys(text for _, text in problems))
    affected = {window for window, _ in problems if window is not None}
    metrics = [
        metric("contract_violations", len(problems), unit="", limit=0),
        metric("windows_affected", len(affected), unit=f"of {num_windows}", limit=0),
    ]
    shown = "; ".join(distinct[:3]) + (f" (and {len(distinct) - 3} more)" if distinct[3:] else "")
    return judge(
        RungName.CONTRACT,
        metrics,
        worst=next((window for window, _ in problems if window is not None), None),
        reason=shown or None,
    )


def features(
    windows: Sequence[Window],
    *,
    artifact: Callable[[Window], Floats | None],
    exact: Callable[[Window], Floats],
    rounded: Callable[[Window], Floats],
    limits: Limits,
) -> Rung:
    """Rung 2: front-end features, relative to the largest of the reference's, on some windows."""
    errors, allowed = [], []
    for window in windows:
        mine = artifact(window)
        if mine is None:
            return not_run(RungName.FEATURES, "the artifact does not show its front-end's output")
        truth = exact(window)
        if mine.shape != truth.shape:
            return judge(
                RungName.FEATURES,
                [metric("shape_mismatches", 1, unit="", limit=0)],
                worst=window.name,
                reason=f"features have shape {mine.shape}, expected {truth.shape}",
            )
        scale = max(float(np.abs(truth).max()), TINY)
        errors.append(float(np.abs(mine - truth).max()) / scale)
        floor = float(np.abs(rounded(window) - truth).max()) / scale
        base = limits.feature_error
        allowed.append(None if base is None else max(base, limits.noise_factor * floor))
    excess = [e if a is None else e / a for e, a in zip(errors, allowed, strict=True)]
    worst = int(np.argmax(excess))
    metrics = [
        metric("feature_error", errors[worst], unit="of the largest", limit=allowed[worst]),
        metric("feature_windows", len(windows), unit="", higher_is_better=True),
    ]
    return judge(RungName.FEATURES, metrics, worst=windows[worst].name)
