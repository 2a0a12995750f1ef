"""The grids that a student begins with when it is trained for a recipe: those of its float weights.

They are found on training windows, once.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

from ..backends.base import BACKENDS
from ..calibration.trained import ConvGrids, TrainedGrids
from ..models.base import MODELS
from ..models.pyannet import SincFrontEnd
from ..rewrites.base import apply_rewrites
from ..types import Recipe

PERCENTILE = 99.999
LOUDEST = 64.0
"""Of the waveform, in deviations of a window: two halves cover it and are still fine enough."""

HALVES: Literal[1, 2] = 2
"""Of what goes into every convolution. In one 8-bit number each, the later two flip as much again
as all the rest, and integers take less of their time than of the first one's."""

MOST_VALUES = 500_000
SMALLEST_WIDTH = 1e-6
FRONT_END = "frontend.conv1d."


@torch.no_grad()
def found_grids(net: nn.Module, recipe: Recipe, windows: Tensor) -> TrainedGrids:
    """The grids of a float network, of what its convolutions see on windows."""
    frontend: Any = rewritten(net, recipe).get_submodule("frontend")
    x = frontend.wav_norm1d(windows).unsqueeze(2)
    layers: dict[str, ConvGrids] = {}
    for index, conv in enumerate(frontend.conv1d):
        y = conv2d(x, conv.weight, stride=conv.stride)
        layers[f"{FRONT_END}{index}"] = _waveform(x) if index == 0 else _features(x)
        if conv.bias is not None:
            y = y + conv.bias[:, None, None]
        if index == 0:
            y = leaky_relu(y, negative_slope=-1.0)
        x = leaky_relu(frontend.norm1d[index](frontend.pool1d[index](y)))
    return TrainedGrids(recipe=recipe.name, layers=layers)


def _waveform(x: Tensor) -> ConvGrids:
    largest = max(float(x.abs().max()), LOUDEST)
    return ConvGrids(inputs=(-largest, largest), gains=(1.0,), halves=HALVES)


def _features(x: Tensor) -> ConvGrids:
    rows = x.abs().transpose(0, 1).reshape(x.shape[1], -1)
    widths = torch.quantile(_some(rows), PERCENTILE / 100, dim=1)
    # Of a channel that is always silent, a millionth of the mean.
    widths = widths.clamp_min(max(float(widths.mean()) * SMALLEST_WIDTH, 1e-30))
    gains = (widths.log().mean() - widths.log()).exp()
    low, high = ends((x * gains[:, None, None]).reshape(1, -1))
    return ConvGrids(
        inputs=(min(float(low), 0.0), max(float(high), SMALLEST_WIDTH)),
        gains=tuple(gains.tolist()),
        halves=HALVES,
    )


def rewritten(net: nn.Module, recipe: Recipe) -> nn.Module:
    """The network in the form that the recipe's backend writes."""
    architecture = MODELS[type(net).__name__]
    made = architecture.canonical(net)
    assert isinstance(made.get_submodule("frontend"), SincFrontEnd)  # noqa: S101 - looked at before
    return apply_rewrites(made, BACKENDS[recipe.backend].rewrites)


def ends(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The ends [rows] of all but a hundred-thousandth of [rows, values] at either side."""
    share = PERCENTILE / 100
    low, high = torch.quantile(_some(rows), torch.tensor([1 - share, share]).to(rows), dim=1)
    return low, high


def _some(rows: Tensor) -> Tensor:
    """Not more of [rows, values] than a percentile needs."""
    return rows[:, :: max(1, rows.shape[1] // MOST_VALUES)]
