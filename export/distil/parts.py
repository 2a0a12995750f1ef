"""The parts of a network that training treats apart: front-end, and what comes after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def front_end(model: nn.Module) -> nn.Module:
    """The module that makes features [batch, channels, frames] of waveforms."""
    net: Any = model
    block: nn.Module = net.sincnet if hasattr(net, "sincnet") else net.frontend
    return block


def after_front_end(model: nn.Module, features: Tensor) -> Tensor:
    """What a network makes of its front-end's features: [batch, frames, classes]."""
    net: Any = model
    if hasattr(net, "after_front_end"):
        given: Tensor = net.after_front_end(features)
        return given
    hidden, _ = net.lstm(features.transpose(1, 2))
    for linear in getattr(net, "linear", ()):
        hidden = nn.functional.leaky_relu(linear(hidden))
    scores: Tensor = net.activation(net.classifier(hidden))
    return scores


def last_recurrent(model: nn.Module) -> nn.RNNBase:
    """The recurrent layers, or the last of them where each is a module of its own."""
    net: Any = model
    layer: nn.RNNBase = net.lstm if isinstance(net.lstm, nn.RNNBase) else net.lstm[-1]
    return layer


def hidden_width(model: nn.Module) -> int:
    """Width of what the recurrent layers give."""
    layer = last_recurrent(model)
    return layer.hidden_size * (2 if layer.bidirectional else 1)


def keep_hidden(model: nn.Module) -> Callable[[], Tensor]:
    """What gives the hidden features [batch, frames, width] of the model's latest forward pass."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        kept[:] = [output[0]]

    last_recurrent(model).register_forward_hook(keep)
    return lambda: kept[0]


def drop_hidden(model: nn.Module, share: float) -> None:
    """Leave a random share of the recurrent layers' features out whenever the model is training.

    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """

    def drop(module: nn.Module, inputs: Any, output: Any) -> Any:
        return nn.functional.dropout(output[0], share, training=module.training), output[1]

    last_recurrent(model).register_forward_hook(drop)
