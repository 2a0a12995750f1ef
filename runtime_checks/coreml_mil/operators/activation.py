"""Activations, and those that recurrent operations name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Call, along, operator

Activation = Callable[[Tensor], Tensor]

PLAIN: dict[str, Activation] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softsign": F.softsign,
}


def _register_plain(kind: str, function: Activation) -> None:
    operator(kind)(lambda call: function(call.tensor()))


for _kind, _function in PLAIN.items():
    _register_plain(_kind, _function)


@operator("softplus")
def softplus(call: Call) -> Tensor:
    """log(1 + exp(x)), whole at any size of x."""
    x = call.tensor()
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("softplus_parametric")
def softplus_parametric(call: Call) -> Tensor:
    """alpha * log(1 + exp(beta * x)), by channel."""
    x = call.tensor()
    alpha, beta = (along(call.tensor(n), axis=1, rank=x.ndim) for n in ("alpha", "beta"))
    return alpha * torch.logaddexp(beta * x, torch.zeros_like(x))


@operator("prelu")
def prelu(call: Call) -> Tensor:
    """max(0, x) + alpha * min(0, x), by channel."""
    x = call.tensor()
    return torch.where(x >= 0, x, x * along(call.tensor("alpha"), axis=1, rank=x.ndim))


@operator("softmax")
def softmax(call: Call) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis."""
    return torch.softmax(call.tensor(), call.whole("axis", -1))


@operator("gelu")
def gelu(call: Call) -> Tensor:
    """Exact, or by the tanh or sigmoid approximation."""
    x, mode = call.tensor(), call.text("mode", "EXACT")
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise call.unsupported(f"mode {mode}")


# Of alpha and, where an activation has two numbers, beta.
PARAMETRIC: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "clamped_relu": lambda x, a, b: torch.where(x >= 0, x, a * x).clamp(max=b),
    "elu": lambda x, a, _: torch.where(x >= 0, x, a * torch.expm1(x.clamp(max=0))),
    "leaky_relu": lambda x, a, _: torch.where(x >= 0, x, a * x),
    "linear_activation": lambda x, a, b: a * x + b,
    "scaled_tanh": lambda x, a, b: a * torch.tanh(b * x),
    "sigmoid_hard": lambda x, a, b: (a * x + b).clamp(0, 1),
    "thresholded_relu": lambda x, a, _: torch.where(x >= a, x, torch.zeros_like(x)),
}


@operator(*PARAMETRIC)
def parametric(call: Call) -> Tensor:
    """Activations of one or two numbers."""
    function = PARAMETRIC[call.operation.kind]
    return function(call.tensor(), call.number("alpha"), call.number("beta"))


def recurrent_activation(call: Call, name: str, default: str) -> Activation:
    """An activation that a recurrent operation names, with the numbers that Keras gives it."""
    known: dict[str, Activation] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "linear": lambda x: x,
        "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
        "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
        "scaled_tanh": lambda x: 1.7159 * torch.tanh(2 / 3 * x),
    }
    asked = call.text(name, default).lower()
    if asked not in known:
        raise call.unsupported(f"{name} {asked}")
    return known[asked]
