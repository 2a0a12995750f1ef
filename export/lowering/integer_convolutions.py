"""SincNet's convolutions in integers, the first included, on grids that came out of training.

What sets them apart from calibrated ones (`static_convolutions`): what comes out of a convolution
has a step of its own a channel, which costs nothing, since an integer convolution multiplies each
channel by a number of its own anyway, and the norm behind takes floats. And the waveform, whose
loudest sample is 30 times its deviation, goes into the first convolution as the sum of two 8-bit
numbers: of one alone nothing would be left of quiet high frequencies (docs/quantisation.md).

The functions here serve training too: rounding passes gradients straight through (Bengio et al.,
"Estimating or propagating gradients through stochastic neurons", 2013), none where it clips.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ..calibration.trained import ConvGrids, TrainedGrids
from ..compress.grids import shaped
from ..errors import RecipeError
from .static_convolutions import LARGEST, STEPS, Grid, convolutions

LOWEST, HIGHEST = -128, 127


class IntegerConv2d(nn.Module):
    """nn.Conv2d that computes in float what integers give.

    [batch, in, 1, samples] -> [batch, out, 1, frames]. Its bias, where it has one, is added to what
    comes out. The gains of what goes in are the norm's before it, and in its weights.
    """

    steps: Tensor
    middles: Tensor
    fine_steps: Tensor | None

    def __init__(self, conv: nn.Conv2d, grids: ConvGrids) -> None:
        super().__init__()
        self.conv = conv
        self.inputs = Grid.over(grids.inputs)
        dtype = conv.weight.dtype
        for name in ("steps", "middles", "fine_steps"):
            given = getattr(grids, name)
            self.register_buffer(name, None if given is None else torch.tensor(given, dtype=dtype))

    @property
    def fine(self) -> Grid:
        """The grid of what the first has rounded away."""
        return fine_grid(self.inputs)

    def integers(self) -> tuple[Tensor, Tensor]:
        """int8 weights [out, in, 1, taps] and their scales [out]."""
        weight = self.conv.weight.detach()
        scales = row_scales(weight)
        rounded = shaped_rows(weight) if weight.shape[1] == 1 else weight
        return (rounded / scales[:, None, None, None]).round().clamp(-LARGEST, LARGEST), scales

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution."""
        integers, scales = self.integers()
        y = integer_convolution(
            x,
            integers * scales[:, None, None, None],
            stride=self.conv.stride,
            inputs=self.inputs,
            steps=self.steps,
            middles=self.middles,
            fine_steps=self.fine_steps,
        )
        return y if self.conv.bias is None else y + self.conv.bias[:, None, None]


def integer_convolution(
    x: Tensor,
    weight: Tensor,
    *,
    stride: Any,
    inputs: Grid,
    steps: Tensor,
    middles: Tensor,
    fine_steps: Tensor | None = None,
) -> Tensor:
    """The convolution of inputs and outputs on their grids with weights that are on theirs.

    What comes out is without the `middles` of its channels.
    """
    coarse = on_grid(x, inputs)
    y = on_steps(conv2d(coarse, weight, -middles, stride=stride), steps)
    if fine_steps is not None:
        fine = on_grid(x - coarse, fine_grid(inputs))
        y = y + on_steps(conv2d(fine, weight, stride=stride), fine_steps)
    return y


def fine_grid(coarse: Grid) -> Grid:
    """256 steps for each step of a grid."""
    return Grid.over((-coarse.scale / 2, coarse.scale / 2))


def on_grid(x: Tensor, grid: Grid) -> Tensor:
    """x on a grid, clipped to its range; gradients pass where nothing is clipped."""
    steps = (_round(x / grid.scale) + grid.zero_point).clamp(0, STEPS)
    return (steps - grid.zero_point) * grid.scale


def on_steps(x: Tensor, steps: Tensor) -> Tensor:
    """x [batch, channels, 1, frames] on a grid a channel about zero; gradients as `on_grid`."""
    scale = steps[:, None, None]
    return _round(x / scale).clamp(LOWEST, HIGHEST) * scale


def on_rows(weight: Tensor) -> Tensor:
    """A weight on its 8-bit grid, a row of axis 0 at a time, with the gradient of the weight."""
    scales = row_scales(weight).reshape(-1, *[1] * (weight.ndim - 1))
    return _round(weight / scales) * scales


def row_scales(weight: Tensor) -> Tensor:
    """Largest weight / 127 of each row."""
    largest = weight.detach().abs().flatten(1).amax(1)
    return torch.where(largest > 0, largest / LARGEST, torch.ones_like(largest))


def shaped_rows(weight: Tensor) -> Tensor:
    """Filters of the waveform [out, 1, 1, taps] on their grids, the error where speech is not."""
    rows = weight.double().numpy().reshape(len(weight), 1, -1)
    return torch.from_numpy(shaped(rows, bits=8)).reshape(weight.shape).to(weight.dtype)


def place_trained(
    module: nn.Module, grids: TrainedGrids, *, skip: Collection[str] = ()
) -> nn.Module:
    """A copy of a rewritten module (its convolutions are 2-D) with integer convolutions; not those
    in `skip`.

    Biases of later convolutions are dropped: the norm behind takes any constant away. Raises
    `RecipeError` on grids that are not those of the module's convolutions.
    """
    placed = copy.deepcopy(module)
    known = convolutions(placed)
    if known.keys() != grids.layers.keys():
        raise RecipeError(
            f"grids of {', '.join(grids.layers)}",
            found=f"convolutions {', '.join(known) or 'none'}",
            expected="the grids that this model was trained with",
        )
    for name in grids.layers.keys() - set(skip):
        conv, given = known[name], grids.layers[name]
        if (conv.out_channels, conv.in_channels) != (len(given.steps), len(given.gains)):
            raise RecipeError(
                f"grids of {name}",
                found=f"for {len(given.gains)} channels to {len(given.steps)}",
                expected=f"{conv.in_channels} to {conv.out_channels}",
            )
        if conv.in_channels > 1:
            _take_gains(placed, name, conv, given)
            conv.bias = None
        parent = placed.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], IntegerConv2d(conv, given))
    return placed.eval()


def _take_gains(module: nn.Module, name: str, conv: nn.Conv2d, grids: ConvGrids) -> None:
    """Multiply by the gains in the norm before a convolution, and divide its weights by them."""
    gains = torch.tensor(grids.gains, dtype=conv.weight.dtype)
    frontend: Any = module.get_submodule(name.rsplit(".", 2)[0])
    norm = frontend.norm1d[int(name.rpartition(".")[2]) - 1]
    norm = getattr(norm, "norm", norm)
    norm.weight.data *= gains
    norm.bias.data *= gains
    conv.weight.data /= gains[None, :, None, None]


def integer_convolutions(module: nn.Module) -> dict[str, IntegerConv2d]:
    """The convolutions that have been placed, by name."""
    return {n: child for n, child in module.named_modules() if isinstance(child, IntegerConv2d)}


def _round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()
