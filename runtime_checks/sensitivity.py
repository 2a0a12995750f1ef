"""Which layers does lower precision hurt? One layer at a time, on real audio.

Everything is compared with the float network on the same windows, in float32 and in the same
batches, so that a difference is the lowered layer's alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from export.audio import Window
from export.calibration.ranges import Calibration
from export.progress import Progress, silent
from export.types import SCHEMA_VERSION, DerInterval, ModelSpec, Precision, Value

from .der import DerScorer
from .emulation import Method, Rounded, layers_of, lowered, scores_of, to_int8
from .parity.decisions import compare_decisions, decide, probabilities
from .parity.rungs import Scores

ALL = "all layers"


class Loss(Value):
    """What a network with some layers in lower precision loses beside the float one.

    Score differences are of probabilities, `max_abs` the largest of all frames and `mean_abs` their
    mean. `decision_flips` is percent of frames, in the best order of speakers where that explains
    a window (`speaker_swaps` counts those). `delta_der` is in points, None without a reference.
    """

    max_abs: float
    mean_abs: float
    decision_flips: float
    speaker_swaps: int
    delta_der: float | None
    delta_der_interval: DerInterval | None


class LayerLoss(Value):
    """A layer by its canonical name, its kind, its weights, and what it loses when lowered alone.

    `kept`: the recipe leaves it in float.
    """

    layer: str
    kind: str
    weights: int
    kept: bool
    loss: Loss


class SensitivityRecord(Value):
    """All layers of a model, the one that loses most first.

    `together` is every layer lowered, `recipe_loss` every layer that `recipe` does not keep in
    float; both None without one.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    method: Method
    weights: Precision
    recipe: str | None
    window_s: float
    hop_s: float
    recordings: tuple[str, ...]
    audio_s: float
    calibrated_on: tuple[str, ...]
    der: str | None
    layers: tuple[LayerLoss, ...]
    together: Loss
    recipe_loss: Loss | None
    notes: tuple[str, ...]

    @property
    def lowered(self) -> str:
        """What was lowered, in words."""
        return (
            self.method.value if self.weights is Precision.INT8 else f"{self.weights.value} weights"
        )


@dataclass(frozen=True)
class Losses:
    """`layers` in order of loss, all of them together, and all but those that are kept."""

    layers: tuple[LayerLoss, ...]
    together: Loss
    without_kept: Loss | None


@dataclass(frozen=True)
class Emulator:
    """A network in the form that files store, and how its layers are lowered."""

    model: nn.Module
    spec: ModelSpec
    windows: Sequence[Window]
    method: Method
    rounded: Rounded = to_int8
    calibration: Calibration | None = None
    der: DerScorer | None = None

    def losses(self, *, kept: Collection[str], progress: Progress = silent) -> Losses:
        """Every layer alone; then all, and all but those that are kept in float."""
        names = layers_of(self.model)
        exact = scores_of(self.model, self.windows)
        rows = []
        for done, (name, layer) in enumerate(names.items()):
            progress("layers", done, len(names))
            rows.append(
                LayerLoss(
                    layer=name,
                    kind=type(layer).__name__,
                    weights=sum(p.numel() for p in layer.parameters(recurse=False) if p.ndim > 1),
                    kept=name in kept,
                    loss=self._loss([name], exact),
                )
            )
        together = self._loss(names, exact)
        free = [name for name in names if name not in kept]
        progress("layers", len(names), len(names))
        return Losses(
            tuple(sorted(rows, key=_severity, reverse=True)),
            together,
            self._loss(free, exact) if kept else None,
        )

    def _loss(self, names: Collection[str], exact: Sequence[Scores]) -> Loss:
        network = lowered(
            self.model,
            names,
            method=self.method,
            rounded=self.rounded,
            calibration=self.calibration,
        )
        return loss(scores_of(network, self.windows), exact, spec=self.spec, der=self.der)


def rows_of(record: SensitivityRecord) -> list[LayerLoss]:
    """The layers in their order, then what is lowered together, as rows of one table."""
    rows = [*record.layers, _together(ALL, record.layers, record.together)]
    if record.recipe_loss is not None:
        free = [row for row in record.layers if not row.kept]
        rows.append(_together(f"as {record.recipe}", free, record.recipe_loss))
    return rows


def _together(name: str, layers: Sequence[LayerLoss], found: Loss) -> LayerLoss:
    weights = sum(row.weights for row in layers)
    return LayerLoss(layer=name, kind="", weights=weights, kept=False, loss=found)


def gains(record: SensitivityRecord) -> str:
    """What the recipe gains by the layers that it keeps in float; without one, what the worst
    layer alone makes of the whole loss."""
    whole = record.together
    if record.recipe is None:
        worst = record.layers[0]
        return (
            f"{worst.layer} alone flips {worst.loss.decision_flips:.2f} % of decisions, all layers "
            f"together {whole.decision_flips:.2f} %: --skip {worst.layer} keeps it in float."
        )
    kept = [row for row in record.layers if row.kept]
    if record.recipe_loss is None:
        return f"{record.recipe} keeps no layer in float."
    left = record.recipe_loss
    der = ""
    if left.delta_der is not None and whole.delta_der is not None:
        der = f", delta DER {left.delta_der:+.2f} instead of {whole.delta_der:+.2f}"
    share = sum(row.weights for row in kept) / sum(row.weights for row in record.layers)
    return (
        f"{record.recipe} keeps {', '.join(row.layer for row in kept)} in float: "
        f"{left.decision_flips:.2f} % of decisions flip instead of {whole.decision_flips:.2f} %"
        f"{der}; {100 * share:.1f} % of the weights stay large for it."
    )


def loss(
    scores: Sequence[Scores], exact: Sequence[Scores], *, spec: ModelSpec, der: DerScorer | None
) -> Loss:
    """What scores [frames, classes] lose beside exact ones, window by window."""
    pairs = list(zip(scores, exact, strict=True))
    differences = [np.abs(probabilities(a, spec) - probabilities(b, spec)) for a, b in pairs]
    decided = [compare_decisions(a, b, spec=spec, band=0.0) for a, b in pairs]
    frames = sum(len(each.settled) for each in decided)
    compared = None
    if der is not None:
        mine, theirs = ([decide(each, spec) for each in of] for of in (scores, exact))
        compared = der.compare(mine, theirs)
    return Loss(
        max_abs=float(max(each.max() for each in differences)),
        mean_abs=float(np.mean([each.mean() for each in differences])),
        decision_flips=100 * sum(each.flips for each in decided) / frames,
        speaker_swaps=sum(each.permutation is not None for each in decided),
        delta_der=compared.delta if compared else None,
        delta_der_interval=compared.interval if compared else None,
    )


def _severity(row: LayerLoss) -> tuple[float, float]:
    """What rows are sorted by: decisions, and scores where decisions agree."""
    return row.loss.decision_flips, row.loss.mean_abs
