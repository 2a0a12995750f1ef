"""The grids that a student begins with when it is trained for a recipe: those of its float weights.

They are found on training windows, once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu

from ..backends.base import BACKENDS
from ..calibration.trained import ConvGrids, TrainedGrids
from ..lowering.integer_convolutions import HIGHEST, fine_grid, on_grid
from ..lowering.static_convolutions import STEPS, Grid
from ..models.base import MODELS
from ..models.pyannet import SincFrontEnd
from ..rewrites.base import apply_rewrites
from ..types import Recipe

PERCENTILE = 99.99
PEAKS = 99.95
"""Of what comes out of the first convolution: heavier tails, and the norm behind cares for all."""

MOST_VALUES = 50_000
SMALLEST_STEP = 1e-6
FRONT_END = "frontend.conv1d."


@torch.no_grad()
def found_grids(net: nn.Module, recipe: Recipe, windows: Tensor) -> TrainedGrids:
    """The grids of a float network, of what its convolutions see on windows."""
    frontend: Any = rewritten(net, recipe).get_submodule("frontend")
    x = frontend.wav_norm1d(windows).unsqueeze(2)
    layers: dict[str, ConvGrids] = {}
    for index, conv in enumerate(frontend.conv1d):
        y = conv2d(x, conv.weight, stride=conv.stride)
        given = _first_grids(x, conv) if index == 0 else _later_grids(x, y)
        layers[f"{FRONT_END}{index}"] = given
        if conv.bias is not None:
            y = y + conv.bias[:, None, None]
        if index == 0:
            y = leaky_relu(y, negative_slope=-1.0)
        x = leaky_relu(frontend.norm1d[index](frontend.pool1d[index](y)))
    return TrainedGrids(recipe=recipe.name, layers=layers)


def _first_grids(x: Tensor, conv: nn.Conv2d) -> ConvGrids:
    largest = max(float(x.abs().max()), 1.0)
    grid = Grid.over((-largest, largest))
    coarse = on_grid(x, grid)
    rest = x - coarse
    fine = conv2d(on_grid(rest, fine_grid(grid)), conv.weight, stride=conv.stride)
    return ConvGrids(
        inputs=(-largest, largest),
        gains=(1.0,),
        # Of what is left quiet by a filter, the coarse half is louder than the sum.
        steps=tuple(_peaks(conv2d(coarse, conv.weight, stride=conv.stride), PEAKS).tolist()),
        middles=(0.0,) * conv.out_channels,
        fine_steps=tuple(_peaks(fine, PERCENTILE).tolist()),
    )


def _later_grids(x: Tensor, y: Tensor) -> ConvGrids:
    widths = _peaks(x, PERCENTILE) * HIGHEST
    gains = (widths.log().mean() - widths.log()).exp()
    low, high = ends((x * gains[:, None, None]).reshape(1, -1))
    steps, middles = steps_of(y)
    return ConvGrids(
        inputs=(min(float(low), 0.0), max(float(high), SMALLEST_STEP)),
        gains=tuple(gains.tolist()),
        steps=tuple(steps.tolist()),
        middles=tuple(middles.tolist()),
    )


def rewritten(net: nn.Module, recipe: Recipe) -> nn.Module:
    """The network in the form that the recipe's backend writes."""
    architecture = MODELS[type(net).__name__]
    made = architecture.canonical(net)
    assert isinstance(made.get_submodule("frontend"), SincFrontEnd)  # noqa: S101 - looked at before
    return apply_rewrites(made, BACKENDS[recipe.backend].rewrites)


def ends(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The ends [rows] of all but a ten-thousandth of [rows, values] at either side."""
    sample = rows[:, :: max(1, rows.shape[1] // MOST_VALUES)]
    share = PERCENTILE / 100
    low, high = torch.quantile(sample, torch.tensor([1 - share, share], dtype=rows.dtype), dim=1)
    return low, high


def _peaks(y: Tensor, percentile: float) -> Tensor:
    """The step of each channel with which 127 of them reach a percentile of its magnitude."""
    rows = y.abs().transpose(0, 1).reshape(y.shape[1], -1)
    rows = rows[:, :: max(1, rows.shape[1] // MOST_VALUES)]
    return _positive(torch.quantile(rows, percentile / 100, dim=1) / HIGHEST)


def steps_of(y: Tensor) -> tuple[Tensor, Tensor]:
    """Steps and middles of the channels of [batch, channels, 1, frames]."""
    low, high = ends(y.transpose(0, 1).reshape(y.shape[1], -1))
    return _positive((high - low) / STEPS), (low + high) / 2


def _positive(steps: Tensor) -> Tensor:
    """No smaller than a millionth of the mean: of a channel that is always silent."""
    return steps.clamp_min(max(float(steps.mean()) * SMALLEST_STEP, 1e-30))
