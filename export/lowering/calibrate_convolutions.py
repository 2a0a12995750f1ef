"""Calibration of SincNet's convolutions: their channels made alike, ranges, weights on their grids.

A tensor of activations has one range for all its channels, so channels of unlike width waste steps.
`equalise` makes them alike, which changes nothing that the network computes: what goes into a
convolution comes out of a norm with a gain of its own and a leaky rectifier, so a channel may be
scaled there and its weights divided (Nagel et al., "Data-free quantization through weight
equalization and bias correction", 2019); what comes out goes through a max-pooling into a norm,
which takes away any scale and shift (but for its epsilon, which is why the mean scale is kept).
Rounding and clipping commute with a maximum, so the range is that of what the pooling leaves. The
first convolution has no norm before and an absolute value behind it, and is left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ..calibration.draw import CalibrationSet
from ..calibration.observers import observe
from ..calibration.ranges import LayerRanges, Ranges
from ..compress.compensated import compensated
from .static_convolutions import LARGEST, place, place_in_frontend

INPUT_WIDTH, OUTPUT_WIDTH = 99.999, 99.9
"""Percentiles at which channels are made alike. Chosen on training audio, as is the next, by the
mean change of scores: a convolution's rare inputs are onsets of speech, its rare outputs are none.
"""

OUTPUT_SHARE = 99.98
"""Of a convolution's outputs, what the observer `percentile` keeps."""

SMALLEST_WIDTH = 1e-6
"""Of what a channel that is always silent is taken to be wide, of the mean channel."""

Floats = NDArray[np.float32]


def calibrate(
    module: nn.Module,
    calibration: CalibrationSet,
    *,
    layers: Sequence[str],
    observer: str,
) -> tuple[nn.Module, Ranges]:
    """A copy with the named convolutions placed, by the ranges that an observer finds.

    The module is a rewritten one (its convolutions are 2-D); raises `RecipeError` on values that
    are not finite.
    """
    equal = copy.deepcopy(module)
    seen = _run(equal, calibration.windows, layers)
    found: dict[str, LayerRanges] = {}
    for name in layers:
        inputs, outputs = equalise(equal, name, *seen[name])
        found[name] = LayerRanges(
            inputs=observe(inputs, observer),
            outputs=observe(outputs, observer, share=OUTPUT_SHARE),
            weight_scales=_round_weights(_conv(equal, name), inputs),
        )
    ranges = Ranges(layers=found)
    return place(equal, ranges), ranges


def _round_weights(conv: nn.Conv2d, inputs: Floats) -> tuple[float, ...]:
    """Put the weights on their grids, in place; the scale of each output channel.

    `inputs` [channels, values] tell which errors cancel.
    """
    weight = conv.weight.detach().double().flatten(1).numpy()
    largest = np.abs(weight).max(axis=1)
    scales = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32).astype(np.float64)
    taps = F.unfold(torch.from_numpy(inputs)[None, :, None], conv.kernel_size, stride=conv.stride)[
        0
    ]
    rounded = compensated(weight, scales, np.cov(taps.double().numpy()), largest=LARGEST)
    conv.weight.data = torch.from_numpy(rounded).to(conv.weight.dtype).reshape(conv.weight.shape)
    return tuple(scales.tolist())


def equalise(
    module: nn.Module, name: str, inputs: Floats, outputs: Floats
) -> tuple[Floats, Floats]:
    """Make the channels of a convolution alike, in place; returns what its inputs and outputs
    [channels, values] then are."""
    frontend, index = _frontend(module, name)
    conv: Any = frontend.conv1d[index]
    if index == 0:
        return inputs, outputs
    norm = frontend.norm1d[index - 1]
    norm = getattr(norm, "norm", norm)
    if norm.affine:
        low, high = _ends(inputs, INPUT_WIDTH)
        gains = _gains(np.maximum(np.abs(low), np.abs(high)))
        factors = torch.from_numpy(gains).to(conv.weight.dtype)
        norm.weight.data *= factors
        norm.bias.data *= factors
        conv.weight.data /= factors[None, :, None, None]
        inputs = inputs * gains[:, None].astype(np.float32)
    low, high = _ends(outputs, OUTPUT_WIDTH)
    gains = _gains((high - low) / 2)
    middles = (low + high) / 2
    centres, factors = (torch.from_numpy(x).to(conv.weight.dtype) for x in (middles, gains))
    conv.weight.data *= factors[:, None, None, None]
    bias = torch.zeros_like(centres) if conv.bias is None else conv.bias.data
    conv.bias = nn.Parameter((bias - centres) * factors)
    centred = (outputs - middles[:, None]) * gains[:, None]
    return inputs, centred.astype(np.float32)


def _ends(values: Floats, share: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.percentile(values, [100 - share, share], axis=1)
    return low, high


def _gains(widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors that give all channels the geometric mean of their widths."""
    floor = max(float(widths.mean()) * SMALLEST_WIDTH, 1e-30)
    logs = np.log(np.maximum(widths, floor))
    gains: NDArray[np.float64] = np.exp(logs.mean() - logs)
    return gains


def _run(
    module: nn.Module, windows: Floats, layers: Sequence[str]
) -> Mapping[str, tuple[Floats, Floats]]:
    """What goes into each layer and what is left of its output, [channels, values]."""
    given: dict[str, list[Floats]] = {name: [] for name in layers}
    left: dict[str, list[Floats]] = {name: [] for name in layers}
    hooks = []
    for name in layers:
        frontend, index = _frontend(module, name)
        conv = frontend.conv1d[index]
        hooks += [
            conv.register_forward_pre_hook(
                lambda _, args, into=given[name]: into.append(_channels(args[0]))
            ),
            (frontend.pool1d[index] if index else conv).register_forward_hook(
                lambda _, __, out, into=left[name]: into.append(_channels(out))
            ),
        ]
    try:
        with torch.inference_mode():
            for window in windows:
                module(torch.from_numpy(window)[None, None])
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: (np.concatenate(given[name], axis=1), np.concatenate(left[name], axis=1))
        for name in layers
    }


def _channels(x: torch.Tensor) -> Floats:
    values: Floats = x[0, :, 0].numpy().copy()
    return values


def _conv(module: nn.Module, name: str) -> nn.Conv2d:
    frontend, index = _frontend(module, name)
    conv: nn.Conv2d = frontend.conv1d[index]
    return conv


def _frontend(module: nn.Module, name: str) -> tuple[Any, int]:
    place_of = place_in_frontend(name)
    assert place_of is not None  # noqa: S101 - callers name convolutions
    return module.get_submodule(place_of[0]), place_of[1]
