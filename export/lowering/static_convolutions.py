"""SincNet's convolutions in integers: activations in uint8 of fixed ranges, int8 weights a channel.

`StaticConv2d` computes in float what integers give: the ranges and scales it holds are all that a
backend needs to write the integers, wherever they come from, calibration or training.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..calibration.ranges import LayerRanges, Ranges, is_calibrated
from ..calibration.trained import is_trained
from ..errors import RecipeError
from ..models.base import MODELS
from ..models.pyannet import SincFrontEnd
from ..types import ModelSpec, Recipe, Role

LARGEST = 127
STEPS = 255


@dataclass(frozen=True)
class Grid:
    """uint8 steps of a tensor: value = (integer - zero_point) * scale."""

    scale: float
    zero_point: int

    @classmethod
    def over(cls, span: tuple[float, float]) -> Grid:
        """The grid over a range that holds zero."""
        low, high = span
        scale = (high - low) / STEPS or 1.0
        return cls(scale, min(STEPS, max(0, round(-low / scale))))

    def round(self, x: Tensor) -> Tensor:
        """x on the grid, clipped to its range."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, STEPS)


class StaticConv2d(nn.Module):
    """nn.Conv2d whose inputs, weights and outputs are rounded as integers hold them."""

    def __init__(self, conv: nn.Conv2d, ranges: LayerRanges) -> None:
        super().__init__()
        self.conv = conv
        self.ranges = ranges
        self.inputs, self.outputs = Grid.over(ranges.inputs), Grid.over(ranges.outputs)
        self.register_buffer("weight_scales", _weight_scales(conv, ranges))

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution: [batch, in, 1, samples] -> [batch, out, 1, frames]."""
        scales = self.get_buffer("weight_scales").to(self.conv.weight.dtype)[:, None, None, None]
        integers = (self.conv.weight / scales).round().clamp(-LARGEST, LARGEST)
        y = nn.functional.conv2d(
            self.inputs.round(x), integers * scales, self.conv.bias, stride=self.conv.stride
        )
        return self.outputs.round(y)


def convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    """Convolutions of a front-end by name, in the order in which they are computed."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.Conv2d) and place_in_frontend(name)
    }


@functools.cache
def has_convolutions(architecture: str) -> bool:
    """Whether models of an architecture have convolutions in their front-end."""
    entry = MODELS[architecture]
    tiny = entry.canonical(entry.build(entry.tiny_config()))
    return any(isinstance(module, SincFrontEnd) for module in tiny.modules())


def why_no_ranges(spec: ModelSpec, recipe: Recipe) -> str | None:
    """Why a model has no convolutions for the ranges of a recipe, or None."""
    if not (is_calibrated(recipe) or is_trained(recipe)):
        return None
    if not has_convolutions(spec.architecture):
        return "the model has no convolutions to calibrate: int8-dynamic is all of it"
    if spec.role is not Role.SEGMENTATION:
        return "what ranges cost is known of segmentation models only: int8-dynamic has none"
    return None


def static_convolutions(module: nn.Module) -> Iterator[tuple[str, StaticConv2d]]:
    """The convolutions that have been placed, by name."""
    for name, child in module.named_modules():
        if isinstance(child, StaticConv2d):
            yield name, child


def place(module: nn.Module, ranges: Ranges) -> nn.Module:
    """A copy in which the convolutions that ranges are given for are integers.

    Raises `RecipeError` on a name that is no convolution, or on scales of another number.
    """
    placed = copy.deepcopy(module)
    known = convolutions(placed)
    for name, given in ranges.layers.items():
        if name not in known:
            raise RecipeError(
                f"ranges of {name}",
                found="no such convolution",
                expected=f"one of {', '.join(known) or 'none: the model has no convolutions'}",
            )
        parent = placed.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], StaticConv2d(known[name], given))
    return placed.eval()


def without_integers(module: nn.Module) -> nn.Module:
    """A copy with the plain convolutions again."""
    plain = copy.deepcopy(module)
    for name, static in list(static_convolutions(plain)):
        parent = plain.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], static.conv)
    return plain


def _weight_scales(conv: nn.Conv2d, ranges: LayerRanges) -> Tensor:
    if ranges.weight_scales is None:
        largest = conv.weight.detach().abs().flatten(1).amax(1)
        return torch.where(largest > 0, largest / LARGEST, torch.ones_like(largest))
    if len(ranges.weight_scales) != conv.out_channels:
        raise RecipeError(
            "weight scales",
            found=f"{len(ranges.weight_scales)} of them",
            expected=f"{conv.out_channels}, one an output channel",
        )
    return torch.tensor(ranges.weight_scales, dtype=conv.weight.dtype)


def place_in_frontend(name: str) -> tuple[str, int] | None:
    """`frontend.conv1d.1` -> (`frontend`, 1); None for the convolutions of other networks."""
    parent, _, index = name.rpartition(".")
    owner, _, kind = parent.rpartition(".")
    return (owner, int(index)) if kind == "conv1d" and index.isdigit() else None
