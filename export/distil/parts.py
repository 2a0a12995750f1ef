"""The parts of a network that training treats apart: front-end, and what comes after it."""

from __future__ import annotations

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
    hidden, _ = net.lstm(features.transpose(1, 2))
    for linear in getattr(net, "linear", ()):
        hidden = nn.functional.leaky_relu(linear(hidden))
    scores: Tensor = net.activation(net.classifier(hidden))
    return scores
