"""Name the first layer of an artifact whose output leaves its tolerance.

The artifact's layers are compared with those of the rewritten module that it was exported from,
in float64 and in the order in which they run, so that an exact rewrite may change what flows
between two layers. Where a file cannot be looked into, a fresh export that also gives out its
layers tells whether the lowering goes wrong, or that very file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.audio import Window
from export.rewrites.base import apply_rewrites
from export.types import ModelSpec

from ..runners.base import Runner
from .decisions import Floats
from .limits import Limits
from .reference import double, layer_outputs
from .rungs import TINY

LAYER_NOISE_FACTOR = 3.0  # a layer's maximum over few values scatters more than the scores'
COARSE_TOLERANCE = 5e-2  # where the precision has no limit of its own

Layers = Mapping[str, NDArray[np.floating]]
Probe = Callable[[nn.Module, Sequence[str], Window], Layers]


@dataclass(frozen=True)
class Divergence:
    """Where an artifact leaves its reference: a layer's name (or None) and a sentence."""

    layer: str | None
    explanation: str


@dataclass(frozen=True)
class LayerReference:
    """A module's layers for one window in float64, and what float32 makes of them.

    `scales` are the layers' largest values on that window or on ordinary speech, whichever is
    more: where a window leaves a layer at zero, nothing could be measured in its own range.
    """

    exact: dict[str, Floats]
    rounded: dict[str, Floats]
    scales: dict[str, float]

    @property
    def names(self) -> list[str]:
        """Layers in the order in which they finish; the last one gives the scores."""
        return list(self.exact)


def layer_reference(
    module: nn.Module, window: Window, *, speech: Window, names: Sequence[str] | None = None
) -> LayerReference:
    """Layers of a module in float64 and float32."""
    exact = double(module)

    def layers(of: nn.Module, at: Window, dtype: torch.dtype) -> dict[str, Floats]:
        return layer_outputs(of, torch.from_numpy(at.samples)[None, None].to(dtype), names=names)

    found = layers(exact, window, torch.float64)
    ordinary = layers(exact, speech, torch.float64)
    return LayerReference(
        found,
        layers(module, window, torch.float32),
        {
            name: max(float(np.abs(found[name]).max()), float(np.abs(ordinary[name]).max()), TINY)
            for name in found
        },
    )


def bisect(
    runner: Runner,
    window: Window,
    *,
    speech: Window,
    canonical: nn.Module,
    rewrites: Sequence[str],
    spec: ModelSpec,
    limits: Limits,
    probe: Probe,
) -> Divergence:
    """First diverging layer of an artifact on one window; `speech` is any window with speech.

    `canonical` is the module before the artifact's `rewrites`. `probe` exports a module anew for
    the artifact's backend and gives its scores (under the last layer's name) and the layers that
    it can; it may raise whatever the toolchain raises.
    """
    guilty = _guilty_rewrite(canonical, rewrites, window=window, limits=limits)
    if guilty is not None:
        return Divergence(None, f"the rewrite {guilty} changes what the model computes")
    rewritten = apply_rewrites(canonical, list(rewrites))
    reference = layer_reference(rewritten, window, speech=speech, names=_names(canonical, window))
    inputs = {(runner.inputs or spec.inputs)[0].name: window.samples[None, None]}
    last = reference.names[-1]
    inside = runner.taps(inputs, reference.names[:-1])
    if inside is not None:
        outputs = runner.run(inputs)
        scores = outputs.get(spec.outputs[0].name, next(iter(outputs.values())))
        return first_divergence({**inside, last: scores}, reference, limits=limits)
    try:
        fresh = probe(rewritten, reference.names, window)
    except Exception as error:
        # Whatever the toolchain raises on an unusual module: the verdict stands without a name.
        return Divergence(None, f"the backend cannot show its layers ({type(error).__name__})")
    found = first_divergence(fresh, reference, limits=limits)
    if found.layer is None:
        return Divergence(None, "the file differs from a fresh export, which is faithful")
    return Divergence(found.layer, f"a fresh export diverges too: {found.explanation}")


def first_divergence(layers: Layers, reference: LayerReference, *, limits: Limits) -> Divergence:
    """First of the layers, in running order, that is out of tolerance for good.

    The distance is the largest difference over the layer's scale. What later layers recover from
    is rounding that one layer is more sensitive to than the next, and no divergence. Shapes may
    differ by dimensions that a runtime has flattened. A layer that is missing or of another size
    is passed over; the explanation says what was not seen.
    """
    base = COARSE_TOLERANCE if limits.feature_error is None else limits.feature_error
    unseen: list[str] = []
    found: Divergence | None = None
    for name in reference.names:
        exact, scale = reference.exact[name], reference.scales[name]
        if name not in layers or layers[name].size != exact.size:
            unseen.append(name)
            continue
        error = relative_error(layers[name].reshape(exact.shape), exact, scale=scale)
        noise = relative_error(reference.rounded[name], exact, scale=scale)
        limit = max(base, LAYER_NOISE_FACTOR * noise)
        if error <= limit:
            unseen, found = [], None
        elif found is None:
            hidden = f" (not seen before it: {', '.join(unseen)})" if unseen else ""
            text = f"{name} is off by {error:.2g} of its range, limit {limit:.2g}{hidden}"
            found = Divergence(name, text)
    return found or Divergence(None, "no layer leaves its tolerance for good; differences add up")


def relative_error(values: NDArray[np.floating], exact: Floats, *, scale: float) -> float:
    """Largest difference over a scale."""
    error = float(np.abs(np.asarray(values, np.float64) - exact).max()) / scale
    return error if np.isfinite(error) else float("inf")


def _names(canonical: nn.Module, window: Window) -> list[str]:
    return list(layer_outputs(canonical, torch.from_numpy(window.samples)[None, None]))


def _guilty_rewrite(
    canonical: nn.Module, rewrites: Sequence[str], *, window: Window, limits: Limits
) -> str | None:
    """The first rewrite after which the float64 scores leave the tolerance, if any does."""
    waveform = torch.from_numpy(window.samples)[None, None].double()
    with torch.inference_mode():
        truth = double(canonical)(waveform).numpy()
        scale = max(float(np.abs(truth).max()), TINY)
        noise = relative_error(canonical(waveform.float()).numpy(), truth, scale=scale)
        limit = max(limits.feature_error or COARSE_TOLERANCE, limits.noise_factor * noise)
        for count in range(1, len(rewrites) + 1):
            module = double(apply_rewrites(canonical, list(rewrites[:count])))
            if relative_error(module(waveform).numpy(), truth, scale=scale) > limit:
                return rewrites[count - 1]
    return None
