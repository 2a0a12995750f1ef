"""The rung of embedding models: are embeddings where PyTorch's are, do they tell voices apart?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from export.audio import Window
from export.types import Metric, ModelSpec, Rung, RungName, VerificationScore

from ..inputs import padded_segment
from ..runners.base import Runner
from ..verification import Segments, verify
from .decisions import Floats
from .limits import Limits
from .reference import double, relative_distance
from .rungs import TINY, Scores, judge, metric

NO_TRIALS = "no trials were given: the equal-error rate was not compared"


def embeddings(
    windows: Sequence[Window],
    *,
    artifact: Sequence[Scores],
    exact: Sequence[Floats],
    noise_floors: Sequence[float],
    limits: Limits,
    trials: tuple[VerificationScore, VerificationScore] | None,
) -> Rung:
    """Cosine distance and relative error of embeddings [speakers, dimension], the largest of all
    windows and speakers; and with `trials`, error rates of artifact and reference on them."""
    distances = [_cosine_distance(a, b) for a, b in zip(artifact, exact, strict=True)]
    errors = [relative_distance(a, b) for a, b in zip(artifact, exact, strict=True)]
    allowed = [limits.score_limit(floor) for floor in noise_floors]
    excess = [
        error if limit is None else error / max(limit, TINY)
        for error, limit in zip(errors, allowed, strict=True)
    ]
    worst = int(np.argmax(excess))
    metrics = [
        metric("cosine_distance", max(distances), unit="", limit=limits.cosine_distance),
        metric("relative_error", errors[worst], unit="of the length", limit=allowed[worst]),
        metric("noise_floor", noise_floors[worst], unit="of the length"),
    ]
    if trials is not None:
        metrics += _error_rates(*trials, limits=limits)
    reason = None if trials else NO_TRIALS
    return judge(RungName.EMBEDDINGS, metrics, worst=windows[worst].name, reason=reason)


def _error_rates(
    mine: VerificationScore, theirs: VerificationScore, *, limits: Limits
) -> list[Metric]:
    found = [
        metric("delta_eer", mine.eer - theirs.eer, unit="points", limit=limits.delta_eer),
        metric("eer", mine.eer, unit="%"),
        metric("reference_eer", theirs.eer, unit="%"),
        metric("trials", mine.targets + mine.impostors, unit=""),
    ]
    return found + [
        metric(f"min_dcf_{prior}", cost, unit="") for prior, cost in mine.min_dcf.items()
    ]


def _cosine_distance(mine: Scores, truth: Floats) -> float:
    """Largest over the speakers; 1 where one of both embeddings has no direction."""
    given = mine.astype(np.float64)
    norms = np.linalg.norm(given, axis=1) * np.linalg.norm(truth, axis=1)
    products = np.sum(given * truth, axis=1)
    same = (np.abs(mine - truth).max(axis=1) == 0).astype(float)
    cosines = np.divide(products, norms, out=same, where=norms > 0)
    return float(np.clip(1 - cosines, 0, 2).max())


def artifact_trials(runner: Runner, trials: Segments, *, spec: ModelSpec) -> VerificationScore:
    """Error rates of an artifact on trials."""
    step = spec.geometry.frame_step_samples

    def embed(samples: Scores) -> Floats:
        given = padded_segment(spec.inputs, samples, frame_step_samples=step)
        found: Floats = runner.run(given)[spec.outputs[0].name][0, 0].astype(np.float64)
        return found

    return verify(trials, embed)


def module_trials(module: nn.Module, trials: Segments, *, spec: ModelSpec) -> VerificationScore:
    """Error rates of a PyTorch module in float64 on trials."""
    exact, step = double(module), spec.geometry.frame_step_samples

    def embed(samples: Scores) -> Floats:
        given = padded_segment(spec.inputs, samples, frame_step_samples=step)
        with torch.inference_mode():
            inputs = (torch.from_numpy(value).double() for value in given.values())
            found: Floats = exact(*inputs)[0, 0].numpy()
        return found

    return verify(trials, embed)
