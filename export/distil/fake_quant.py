"""A student that computes in training what its integers will: `distill --qat`.

Rounded are weights and activations where the recipe's lowering rounds them
(`export.lowering.integer_convolutions`): convolutions, the first included, and what goes into them
on fixed grids, linear and recurrent layers' weights a row at a time. What runtimes quantise by its
range of the moment, the inputs of linear and recurrent layers, costs next to nothing and stays
float here.

SincNet's waveform norm and first filters are kept as they are, with grids found once. Ranges of the
later convolutions' inputs are moving averages of what they see, which stand still for the last
`FROZEN_SHARE` of the steps, so that the weights settle on the grids that they will have (Jacob et
al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
CVPR 2018).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv1d, leaky_relu

from ..backends.base import BACKENDS, RECIPES
from ..calibration.trained import ConvGrids, TrainedGrids, is_trained
from ..errors import TrainingError
from ..lowering.integer_convolutions import IntegerConv2d, in_halves, on_rows
from ..lowering.static_convolutions import Grid
from ..types import Recipe
from .first_grids import FRONT_END, SMALLEST_WIDTH, ends, found_grids, rewritten

DECAY, FROZEN_SHARE = 0.98, 0.25

ROUNDED_AS = "onnx_ort"
"""The backend in whose form a student is rounded; others round alike."""


def qat_recipe(name: str) -> Recipe:
    """The recipe that a model can be trained for; raises TrainingError on another name."""
    len(BACKENDS)  # recipes are registered by their backends
    trained = (recipe for recipe in RECIPES.values() if is_trained(recipe))
    known = {recipe.name: recipe for recipe in trained if recipe.backend == ROUNDED_AS}
    if name not in known:
        raise TrainingError(
            f"--qat {name}",
            found="no recipe that takes its ranges from training",
            expected=f"one of {', '.join(sorted(known))}",
        )
    return known[name]


class FirstStage(nn.Module):
    """Waveform norm, first convolution in integers, |x| and max-pooling: what is not trained.

    [batch, 1, samples] -> [batch, 80, frames], above each channel's resting value.
    """

    rest: Tensor

    def __init__(self, frontend: Any, grids: ConvGrids) -> None:
        super().__init__()
        self.wav_norm1d, self.pool = frontend.wav_norm1d, frontend.pool1d[0]
        self.conv = IntegerConv2d(frontend.conv1d[0], grids)
        rest = getattr(frontend.norm1d[0], "rest", torch.zeros(1))
        self.register_buffer("rest", rest.detach().clone())
        self.requires_grad_(False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of a window."""
        x = self.wav_norm1d(waveform).unsqueeze(2)
        x = self.pool(leaky_relu(self.conv(x), negative_slope=-1.0)) - self.rest
        features: Tensor = x.squeeze(2)
        return features


class MovingGrids(nn.Module):
    """The grid of what goes into one later convolution, a moving average of what it sees."""

    low: Tensor
    high: Tensor
    gains: Tensor

    def __init__(self, grids: ConvGrids) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(grids.inputs[0]))
        self.register_buffer("high", torch.tensor(grids.inputs[1]))
        self.register_buffer("gains", torch.tensor(grids.gains))
        self.halves = grids.halves

    @torch.no_grad()
    def see(self, x: Tensor) -> None:
        """Take the range of [batch, channels, frames] into the average."""
        low, high = ends(x.reshape(1, -1))
        self.low.lerp_(low[0].clamp(max=0), 1 - DECAY)
        self.high.lerp_(high[0].clamp(min=SMALLEST_WIDTH), 1 - DECAY)

    def convolve(self, x: Tensor, conv: Any, *, follows: bool) -> Tensor:
        """As IntegerConv2d with the norm's gains, of [batch, channels, frames], with gradients.

        Without a bias, which the norm behind takes away.
        """
        gained = x * self.gains[:, None]
        if follows:
            self.see(gained)
        grid = Grid.over((float(self.low), float(self.high)))
        rounded = in_halves(gained, grid, halves=self.halves)
        weight = on_rows(conv.weight / self.gains[:, None])
        return conv1d(rounded, weight, stride=conv.stride)

    def grids(self) -> ConvGrids:
        """As they are written."""
        inputs = (float(self.low), float(self.high))
        gains = tuple(self.gains.tolist())
        return ConvGrids(inputs=inputs, gains=gains, halves=self.halves)


class QuantisedStudent(nn.Module):
    """A pyannote network that rounds what its recipe will round: waveforms to scores.

    The network inside keeps float weights, which are what is trained; `grids` are the rest of what
    an artifact needs. `moving` steps long the ranges follow what is seen.
    """

    seen: Tensor

    def __init__(self, net: nn.Module, recipe: Recipe, grids: TrainedGrids, *, moving: int) -> None:
        super().__init__()
        inner: Any = net
        self.net, self.activation = inner, inner.activation
        self.recipe, self._moving = recipe.name, moving
        first, *later = grids.layers.values()
        self.frontend = FirstStage(rewritten(net, recipe).get_submodule("frontend"), first)
        self.ranges = nn.ModuleList(MovingGrids(each) for each in later)
        self.register_buffer("seen", torch.tensor(0))
        self._first = first
        inner.sincnet.wav_norm1d.requires_grad_(False)
        inner.sincnet.conv1d[0].requires_grad_(False)

    @property
    def specifications(self) -> Any:
        """The network's."""
        return self.net.specifications

    @property
    def hparams(self) -> Any:
        """The network's."""
        return self.net.hparams

    @property
    def classifier(self) -> nn.Module:
        """The network's."""
        layer: nn.Module = self.net.classifier
        return layer

    @property
    def lstm(self) -> nn.Module:
        """The network's."""
        layer: nn.Module = self.net.lstm
        return layer

    def forward(self, waveform: Tensor) -> Tensor:
        """Scores of windows [batch, 1, samples]."""
        with torch.no_grad():
            features = self.frontend(waveform)
        return self.after_front_end(features)

    def after_front_end(self, features: Tensor) -> Tensor:
        """Scores [batch, frames, classes] of what the first stage gives."""
        sinc = self.net.sincnet
        x = leaky_relu(sinc.norm1d[0](features))
        follows = self.training and int(self.seen) < self._moving
        for index, moving in enumerate(self.ranges, start=1):
            assert isinstance(moving, MovingGrids)  # noqa: S101 - what it was filled with
            y = moving.convolve(x, sinc.conv1d[index], follows=follows)
            x = leaky_relu(sinc.norm1d[index](sinc.pool1d[index](y)))
        if self.training:
            self.seen += 1
        x = x.transpose(1, 2)
        layers = [self.net.lstm] if isinstance(self.net.lstm, nn.RNNBase) else list(self.net.lstm)
        for layer in layers:
            rounded = {n: on_rows(p) if p.ndim == 2 else p for n, p in layer.named_parameters()}
            x, _ = functional_call(layer, rounded, (x,))
        for linear in getattr(self.net, "linear", ()):
            x = leaky_relu(_linear(linear, x))
        scores: Tensor = self.activation(_linear(self.net.classifier, x))
        return scores

    def grids(self) -> TrainedGrids:
        """What the folder keeps beside the weights."""
        all_grids = [self._first, *(each.grids() for each in self.ranges)]  # type: ignore[operator]
        return TrainedGrids(
            recipe=self.recipe,
            layers={f"{FRONT_END}{index}": each for index, each in enumerate(all_grids)},
        )

    def float_model(self) -> nn.Module:
        """The network alone, with its activation."""
        net: nn.Module = self.net
        net.activation = self.activation
        return net.eval()


def raise_without_sincnet(net: nn.Module, recipe: str) -> None:
    """On a network without convolutions, which no grid would be for."""
    if not hasattr(net, "sincnet"):
        raise TrainingError(
            f"--qat {recipe}",
            found=f"{type(net).__name__}, which has no convolutions",
            expected="a student with SincNet",
            todo="Build it with --recipe int8-dynamic, which is all that integers give it.",
        )


def quantised_student(
    net: nn.Module, recipe: Recipe, windows: Tensor, *, steps: int
) -> QuantisedStudent:
    """A student with the grids that it begins with, found on windows [windows, 1, samples].

    Raises TrainingError on a network without SincNet.
    """
    raise_without_sincnet(net, recipe.name)
    dropping: Any = net.lstm if isinstance(net.lstm, nn.RNNBase) else nn.Module()
    dropping.dropout = 0.0
    moving = round(steps * (1 - FROZEN_SHARE))
    return QuantisedStudent(net, recipe, found_grids(net, recipe, windows), moving=moving)


def _linear(layer: Any, x: Tensor) -> Tensor:
    return nn.functional.linear(x, on_rows(layer.weight), layer.bias)
