"""SincNet's convolutions in integers: activations in uint8 of fixed ranges, int8 weights a channel.

A tensor of activations has one range for all its channels, so channels of unlike width waste steps.
`equalise` makes them alike, which changes nothing that the network computes: what goes into a
convolution comes out of a norm with a gain of its own and a leaky rectifier, so a channel may be
scaled there and its weights divided (Nagel et al., "Data-free quantization through weight
equalization and bias correction", 2019); what comes out goes through a max-pooling into a norm,
which takes away any scale and shift (but for its epsilon, which is why the mean scale is kept). The
first convolution has no norm before and an absolute value behind it, and is left as it is.

`StaticConv2d` computes in float what integers give: the ranges and scales it holds are all that a
backend needs to write the integers, wherever they come from, calibration or training.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..calibration.draw import CalibrationSet
from ..calibration.observers import PERCENTILE, observe
from ..calibration.ranges import LayerRanges, Ranges
from ..errors import RecipeError
from ..models.base import MODELS
from ..models.pyannet import SincFrontEnd

LARGEST = 127
STEPS = 255
SMALLEST_WIDTH = 1e-6
"""Of what a channel that is always silent is taken to be wide, of the mean channel."""

Floats = NDArray[np.float32]


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
        if isinstance(child, nn.Conv2d) and _place(name)
    }


@functools.cache
def has_convolutions(architecture: str) -> bool:
    """Whether models of an architecture have convolutions in their front-end."""
    entry = MODELS[architecture]
    tiny = entry.canonical(entry.build(entry.tiny_config()))
    return any(isinstance(module, SincFrontEnd) for module in tiny.modules())


def static_convolutions(module: nn.Module) -> Iterator[tuple[str, StaticConv2d]]:
    """The convolutions that have been placed, by name."""
    for name, child in module.named_modules():
        if isinstance(child, StaticConv2d):
            yield name, child


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
            inputs=observe(inputs, observer), outputs=observe(outputs, observer)
        )
    ranges = Ranges(layers=found)
    return place(equal, ranges), ranges


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
        low, high = _ends(inputs)
        gains = _gains(np.maximum(np.abs(low), np.abs(high)))
        factors = torch.from_numpy(gains).to(conv.weight.dtype)
        norm.weight.data *= factors
        norm.bias.data *= factors
        conv.weight.data /= factors[None, :, None, None]
        inputs = inputs * gains[:, None].astype(np.float32)
    low, high = _ends(outputs)
    gains = _gains((high - low) / 2)
    middles = (low + high) / 2
    centres, factors = (torch.from_numpy(x).to(conv.weight.dtype) for x in (middles, gains))
    conv.weight.data *= factors[:, None, None, None]
    bias = torch.zeros_like(centres) if conv.bias is None else conv.bias.data
    conv.bias = nn.Parameter((bias - centres) * factors)
    centred = (outputs - middles[:, None]) * gains[:, None]
    return inputs, centred.astype(np.float32)


def _ends(values: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.percentile(values, [100 - PERCENTILE, PERCENTILE], axis=1)
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
    """What goes into and comes out of each layer, [channels, values] over all windows."""
    seen: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in layers}
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda _layer, args, out, name=name: seen[name].append(
                (args[0][0, :, 0].numpy().copy(), out[0, :, 0].numpy().copy())
            )
        )
        for name in layers
    ]
    try:
        with torch.inference_mode():
            for window in windows:
                module(torch.from_numpy(window)[None, None])
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: (
            np.concatenate([pair[0] for pair in pairs], axis=1),
            np.concatenate([pair[1] for pair in pairs], axis=1),
        )
        for name, pairs in seen.items()
    }


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


def _frontend(module: nn.Module, name: str) -> tuple[Any, int]:
    place_of = _place(name)
    assert place_of is not None  # noqa: S101 - callers name convolutions
    return module.get_submodule(place_of[0]), place_of[1]


def _place(name: str) -> tuple[str, int] | None:
    """`frontend.conv1d.1` -> (`frontend`, 1); None for the convolutions of other networks."""
    parent, _, index = name.rpartition(".")
    owner, _, kind = parent.rpartition(".")
    return (owner, int(index)) if kind == "conv1d" and index.isdigit() else None
