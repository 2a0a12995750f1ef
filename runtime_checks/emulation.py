"""Layers of a canonical network in lower precision, emulated in PyTorch.

What integers do to a layer does not depend on who multiplies them: weights on a grid of 255 values
a row, and where a method says so, inputs on 256 values between the least and the largest. So one
layer at a time can be lowered here, whatever backend will compute it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.audio import Window
from export.calibration.ranges import Calibration
from export.compress.grids import symmetric
from export.compress.layers import compressible_layers
from export.compress.small_weights import STORED_FORM
from export.lowering.calibrate_convolutions import calibrate
from export.lowering.static_convolutions import convolutions
from export.rewrites.base import apply_rewrites

from .parity.reference import torch_threads
from .parity.rungs import Scores

STEPS = 255
BATCH = 16


class Method(StrEnum):
    """What of a layer is lowered.

    Weights always. DYNAMIC: inputs too, with a range of each window's own (of a recurrence: of each
    step's state as well). STATIC: inputs and outputs of convolutions with ranges found on
    calibration audio, as the recipe int8-static has them; all others as DYNAMIC.
    """

    WEIGHTS = "int8-weights"
    DYNAMIC = "int8-dynamic"
    STATIC = "int8-static"


Rounded = Callable[[str, Tensor], Tensor]
"""A weight on its grid: the name of the parameter (`linear.0.weight`) and its value in float."""


def stored_form(canonical: nn.Module, method: Method) -> nn.Module:
    """The network with the weights that files store: SincNet's filters computed, norms folded."""
    rewrites = (*STORED_FORM, "sincnet_conv2d") if method is Method.STATIC else STORED_FORM
    return apply_rewrites(canonical, rewrites)


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can be lowered, by the names that `--skip` takes."""
    return {name: model.get_submodule(name) for name in compressible_layers(model)}


def to_int8(_name: str, weight: Tensor) -> Tensor:
    """One scale a row (of a convolution: a filter)."""
    return torch.from_numpy(symmetric(weight.double().numpy(), bits=8)).to(weight.dtype)


def lowered(
    model: nn.Module,
    names: Collection[str],
    *,
    method: Method,
    rounded: Rounded = to_int8,
    calibration: Calibration | None = None,
) -> nn.Module:
    """A copy with the named layers lowered; a calibration is needed for STATIC alone.

    Raises `RecipeError` on calibration that finds no ranges.
    """
    static: list[str] = []
    if calibration is not None and method is Method.STATIC:
        static = [name for name in convolutions(model) if name in names]
    if calibration is not None and static:
        made, _ = calibrate(model, calibration.drawn, layers=static, observer=calibration.observer)
    else:
        made = copy.deepcopy(model)
    for name in names:
        if name not in static:
            _lower(made, name, method, rounded)
    return made.eval()


def _lower(model: nn.Module, name: str, method: Method, rounded: Rounded) -> None:
    layer = model.get_submodule(name)
    with torch.no_grad():
        for key, weight in layer.named_parameters(recurse=False):
            if weight.ndim >= 2:
                weight.copy_(rounded(f"{name}.{key}", weight.detach()))
    if method is not Method.WEIGHTS:
        kind = LoweredRecurrence if isinstance(layer, nn.RNNBase) else LoweredLayer
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, kind(layer))


def dynamic(x: Tensor) -> Tensor:
    """x [batch, ...] on 256 values between its least and its largest, zero among them, of each
    window's own."""
    rest = tuple(range(1, x.ndim))
    low = x.amin(rest, keepdim=True).clamp(max=0)
    high = x.amax(rest, keepdim=True).clamp(min=0)
    scale = ((high - low) / STEPS).clamp_min(torch.finfo(x.dtype).tiny)
    zero = (-low / scale).round()
    return ((x / scale + zero).round().clamp(0, STEPS) - zero) * scale


class LoweredLayer(nn.Module):
    """A convolution or linear layer whose input is on a grid."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Same shapes as the layer's."""
        found: Tensor = self.layer(dynamic(x))
        return found


class LoweredRecurrence(nn.Module):
    """A one-layer recurrence whose inputs and states are on grids of their own ranges."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """[batch, steps, in] -> [batch, steps, directions * hidden], and no state."""
        suffixes = ("", "_reverse") if self.layer.bidirectional else ("",)
        x = dynamic(x)
        return torch.cat([self._direction(x, suffix) for suffix in suffixes], dim=2), None

    def _direction(self, x: Tensor, suffix: str) -> Tensor:
        weights = {
            name: getattr(self.layer, f"{name}_l0{suffix}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        given = nn.functional.linear(x, weights["weight_ih"], weights["bias_ih"])
        order = range(x.shape[1] - 1, -1, -1) if suffix else range(x.shape[1])
        state = cell = x.new_zeros(x.shape[0], self.layer.hidden_size)
        states = [state] * x.shape[1]
        for step in order:
            recurrent = nn.functional.linear(
                dynamic(state), weights["weight_hh"], weights["bias_hh"]
            )
            state, cell = _step(self.layer.mode, given[:, step], recurrent, state, cell)
            states[step] = state
        return torch.stack(states, dim=1)


def _step(
    mode: str, given: Tensor, recurrent: Tensor, state: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of PyTorch's LSTM, GRU or RNN (their documentation's equations)."""
    if mode == "LSTM":
        i, f, g, o = (given + recurrent).chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell
    if mode == "GRU":
        (r, z, n), (r_h, z_h, n_h) = given.chunk(3, dim=1), recurrent.chunk(3, dim=1)
        keep = (z + z_h).sigmoid()
        fresh = (n + (r + r_h).sigmoid() * n_h).tanh()
        return (1 - keep) * fresh + keep * state, cell
    activation = torch.tanh if mode == "RNN_TANH" else torch.relu
    return activation(given + recurrent), cell


def scores_of(module: nn.Module, windows: Sequence[Window]) -> list[Scores]:
    """Scores [frames, classes] of every window in float32, some windows at a time."""
    found: list[Scores] = []
    with torch.inference_mode(), torch_threads(1):
        for start in range(0, len(windows), BATCH):
            samples = np.stack([w.samples for w in windows[start : start + BATCH]])
            found += list(module(torch.from_numpy(samples)[:, None]).numpy())
    return found
