"""Trained integer convolutions on XNNPACK: int8 weights, int8 inputs, sums in float32.

XNNPACK's kernels with fixed ranges round what comes out to 8 bits, which these convolutions do not
(`integer_convolutions`). Those that quantise as it comes (qd8) give float32, but take the range of
their inputs from the inputs. So the ends of the trained grid are put behind the inputs, clipped to
it, as one more column: the range is then the grid's, step by step. The frame that comes of it is
the last, and is cut off where the pooling behind would see it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ..rewrites.polyphase_convolution import by_phases, in_phases
from .integer_convolutions import IntegerConv2d, integer_convolutions, replace_layer
from .static_convolutions import STEPS, Grid, place_in_frontend

LOWEST, HIGHEST = -128, 127
SMALLEST_STEP = 1.1920928955078125e-07
"""As PyTorch's own quantisers pass it; XNNPACK's partitioner expects a number here."""


class PinnedConv2d(nn.Module):
    """An IntegerConv2d followed by a max-pooling of `pooled` frames: same inputs, same frames, and
    one more where the pooling leaves it out."""

    integers: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    def __init__(self, integer: IntegerConv2d, *, pooled: int) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # registers the operators

        self.grids, self.pooled = integer.grids, pooled
        self.taps, stride = integer.integers.shape[3], integer.stride[1]
        self.phases = stride if integer.integers.shape[1] == 1 and stride > 1 else 0
        self.stride = (1, 1) if self.phases else integer.stride
        weight = by_phases(integer.integers, stride) if self.phases else integer.integers
        self.register_buffer("integers", weight)
        self.register_buffer("scales", integer.scales)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.register_buffer("zeros", zeros, persistent=False)
        bias = None if integer.bias is None else integer.bias[:, None, None]
        self.register_buffer("bias", bias)
        for index, grid in enumerate(self.grids):
            self.register_buffer(f"ends{index}", _ends(grid, channels=weight.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in, 1, samples] -> [batch, out, 1, frames]."""
        y = self._convolve(coarse := _clipped(x, self.grids[0]), 0)
        if len(self.grids) > 1:
            rest = x - _on_grid(coarse, self.grids[0])
            y = y + self._convolve(_clipped(rest, self.grids[1]), 1)
        if y.shape[3] % self.pooled == 0:
            y = y[..., :-1]
        return y if self.bias is None else y + self.bias

    def _convolve(self, x: Tensor, index: int) -> Tensor:
        if self.phases:
            x = in_phases(x, taps=self.taps, stride=self.phases)
        ends = self.get_buffer(f"ends{index}")
        if x.shape[0] > 1:
            ends = ends.expand(x.shape[0], -1, -1, -1)
        x = torch.cat([x, ends], dim=3)
        operators: Any = torch.ops.quantized_decomposed
        span = (LOWEST, HIGHEST, torch.int8)
        given = (LOWEST, HIGHEST, SMALLEST_STEP, torch.int8)
        scale, zero = operators.choose_qparams.tensor(x, *given)
        x = operators.quantize_per_tensor.tensor(x, scale, zero, *span)
        x = operators.dequantize_per_tensor.tensor(x, scale, zero, *span)
        weight = operators.dequantize_per_channel(self.integers, self.scales, self.zeros, 0, *span)
        return conv2d(x, weight, stride=self.stride)


def lower_convolutions(module: nn.Module) -> None:
    """Make the integer convolutions of a front-end those that XNNPACK computes, in place."""
    for name, integer in integer_convolutions(module).items():
        place = place_in_frontend(name)
        assert place is not None  # noqa: S101 - they stand in front-ends
        frontend: Any = module.get_submodule(place[0])
        _, pooled = frontend.pool1d[place[1]].kernel_size
        replace_layer(module, name, PinnedConv2d(integer, pooled=pooled))


def _low_high(grid: Grid) -> tuple[float, float]:
    return -grid.zero_point * grid.scale, (STEPS - grid.zero_point) * grid.scale


def _clipped(x: Tensor, grid: Grid) -> Tensor:
    return torch.clamp(x, *_low_high(grid))


def _ends(grid: Grid, *, channels: int) -> Tensor:
    """A column of [1, channels, 1, 1] that holds both ends of a grid."""
    low, high = _low_high(grid)
    return torch.tensor([low, high] + [0.0] * (channels - 2)).reshape(1, channels, 1, 1)


def _on_grid(x: Tensor, grid: Grid) -> Tensor:
    operators: Any = torch.ops.quantized_decomposed
    given = (grid.scale, grid.zero_point + LOWEST, LOWEST, HIGHEST, torch.int8)
    rounded: Tensor = operators.dequantize_per_tensor(
        operators.quantize_per_tensor(x, *given), *given
    )
    return rounded
