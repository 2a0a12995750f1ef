"""SincNet's convolutions in integers, the first included, on grids that came out of training.

What sets them apart from calibrated ones (`static_convolutions`): what comes out of them is the sum
of the products, unrounded, since the norms behind take floats; rounded to 8 bits it lost most of
all. And what goes in may be the sum of two 8-bit numbers, as training has it: of the waveform,
whose loudest sample is 30 times its deviation, one alone would leave nothing of quiet high
frequencies (docs/quantisation.md).

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
from ..rewrites.polyphase_convolution import PolyphaseConv2d
from .static_convolutions import LARGEST, STEPS, Grid, place_in_frontend


class IntegerConv2d(nn.Module):
    """nn.Conv2d that computes in float what integers give.

    [batch, in, 1, samples] -> [batch, out, 1, frames]. Its bias, where it has one, is added to what
    comes out. The gains of what goes in are the norm's before it, and in its weights.

    `integers` are its int8 weights [out, in, 1, taps], `scales` [out] what one of their steps is.
    """

    integers: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, conv: nn.Conv2d, grids: ConvGrids) -> None:
        super().__init__()
        self.inputs, self.halves = Grid.over(grids.inputs), grids.halves
        self.stride: Any = conv.stride
        weight = conv.weight.detach()
        scales = row_scales(weight)
        rounded = _shaped_rows(weight) if weight.shape[1] == 1 else weight
        steps = (rounded / scales[:, None, None, None]).round().clamp(-LARGEST, LARGEST)
        self.register_buffer("integers", steps.to(torch.int8))
        self.register_buffer("scales", scales)
        # What it computes depends on this too: pools of features are named by the tensors.
        self.register_buffer("span", torch.tensor(grids.inputs, dtype=torch.float64))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())

    @property
    def grids(self) -> list[Grid]:
        """Those of the numbers that its inputs are the sum of."""
        return [self.inputs, fine_grid(self.inputs)][: self.halves]

    @property
    def weight(self) -> Tensor:
        """What the integers stand for, [out, in, 1, taps]."""
        return self.integers.to(self.scales.dtype) * self.scales[:, None, None, None]

    def plain(self) -> nn.Conv2d:
        """The convolution with these weights and inputs that are not rounded."""
        size, width = self.integers.shape[:2]
        taps = (1, self.integers.shape[3])
        biased = self.bias is not None
        conv = nn.Conv2d(
            width, size, taps, stride=self.stride, bias=biased, dtype=self.scales.dtype
        )
        conv.weight.data = self.weight
        if conv.bias is not None and self.bias is not None:
            conv.bias.data = self.bias
        return conv.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution."""
        y = conv2d(self.rounded(x), self.weight, stride=self.stride)
        return y if self.bias is None else y + self.bias[:, None, None]

    def rounded(self, x: Tensor) -> Tensor:
        """What integers hold of x."""
        return in_halves(x, self.inputs, halves=self.halves)


def in_halves(x: Tensor, grid: Grid, *, halves: int) -> Tensor:
    """x as one 8-bit number on a grid, or as the sum of two; gradients as `on_grid`."""
    coarse = on_grid(x, grid)
    return coarse if halves == 1 else coarse + on_grid(x - coarse, fine_grid(grid))


def fine_grid(coarse: Grid) -> Grid:
    """256 steps for each step of a grid."""
    return Grid.over((-coarse.scale / 2, coarse.scale / 2))


def on_grid(x: Tensor, grid: Grid) -> Tensor:
    """x on a grid, clipped to its range; gradients pass where nothing is clipped."""
    steps = (_round(x / grid.scale) + grid.zero_point).clamp(0, STEPS)
    return (steps - grid.zero_point) * grid.scale


def on_rows(weight: Tensor) -> Tensor:
    """A weight on its 8-bit grid, a row of axis 0 at a time, with the gradient of the weight."""
    scales = row_scales(weight).reshape(-1, *[1] * (weight.ndim - 1))
    return _round(weight / scales) * scales


def row_scales(weight: Tensor) -> Tensor:
    """Largest weight / 127 of each row."""
    largest = weight.detach().abs().flatten(1).amax(1)
    return torch.where(largest > 0, largest / LARGEST, torch.ones_like(largest))


def _shaped_rows(weight: Tensor) -> Tensor:
    """Filters of the waveform [out, 1, 1, taps] on their grids, the error where speech is not."""
    rows = weight.double().numpy().reshape(len(weight), 1, -1)
    return torch.from_numpy(shaped(rows, bits=8)).reshape(weight.shape).to(weight.dtype)


def place_trained(
    module: nn.Module, grids: TrainedGrids, *, skip: Collection[str] = ()
) -> nn.Module:
    """A copy of a rewritten module (its convolutions are 2-D) with integer convolutions; not those
    in `skip`.

    Raises `RecipeError` on grids that are not those of the module's convolutions.
    """
    placed = copy.deepcopy(module)
    known = _convolutions(placed)
    if known.keys() != grids.layers.keys():
        raise RecipeError(
            f"grids of {', '.join(grids.layers)}",
            found=f"convolutions {', '.join(known) or 'none'}",
            expected="the grids that this model was trained with",
        )
    for name in grids.layers.keys() - set(skip):
        conv, given = known[name], grids.layers[name]
        if conv.in_channels != len(given.gains):
            raise RecipeError(
                f"grids of {name}",
                found=f"for {len(given.gains)} channels",
                expected=f"{conv.in_channels}",
            )
        if conv.in_channels > 1:
            _take_gains(placed, name, conv, given)
        replace_layer(placed, name, IntegerConv2d(conv, given))
    return placed.eval()


def replace_layer(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of the one of that name."""
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)


def integer_convolutions(module: nn.Module) -> dict[str, IntegerConv2d]:
    """The convolutions that have been placed, by name."""
    return {n: child for n, child in module.named_modules() if isinstance(child, IntegerConv2d)}


def _convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    """Convolutions of front-ends by name, those by phases as the plain ones that they are."""
    found = {}
    for name, child in module.named_modules():
        if place_in_frontend(name) and isinstance(child, nn.Conv2d | PolyphaseConv2d):
            found[name] = child.plain() if isinstance(child, PolyphaseConv2d) else child
    return found


def _take_gains(module: nn.Module, name: str, conv: nn.Conv2d, grids: ConvGrids) -> None:
    """Multiply by the gains in the norm before a convolution, and divide its weights by them."""
    gains = torch.tensor(grids.gains, dtype=conv.weight.dtype)
    frontend: Any = module.get_submodule(name.rsplit(".", 2)[0])
    norm = frontend.norm1d[int(name.rpartition(".")[2]) - 1]
    norm = getattr(norm, "norm", norm)
    for kind in ("scale", "shift") if hasattr(norm, "scale") else ("weight", "bias"):
        constant = getattr(norm, kind)
        constant.data *= gains.reshape(constant.shape)
    conv.weight.data /= gains[None, :, None, None]


def _round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()
