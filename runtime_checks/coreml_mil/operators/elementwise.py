"""Operations on each value, of one tensor or of two that are broadcast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..numerics import WORKING
from .base import Call, floating, operator

Unary = Callable[[Tensor], Tensor]
Binary = Callable[[Tensor, Tensor], Tensor]

UNARY: dict[str, Unary] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "round": torch.round,  # halves to the even number
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}

BINARY: dict[str, Binary] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,  # has the sign of the divisor
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": torch.true_divide,
    "sub": torch.sub,
}


def _register_unary(kind: str, function: Unary) -> None:
    operator(kind)(lambda call: function(call.tensor()))


def _register_binary(kind: str, function: Binary) -> None:
    def apply(call: Call) -> Tensor:
        x, y = call.tensor("x"), call.tensor("y")
        if floating(x) != floating(y):
            x, y = x.to(WORKING), y.to(WORKING)
        return function(x, y)

    operator(kind)(apply)


for _kind, _unary in UNARY.items():
    _register_unary(_kind, _unary)
for _kind, _binary in BINARY.items():
    _register_binary(_kind, _binary)


@operator("clip")
def clip(call: Call) -> Tensor:
    """Between alpha and beta."""
    return call.tensor().clamp(call.number("alpha"), call.number("beta"))


@operator("threshold")
def threshold(call: Call) -> Tensor:
    """At least alpha."""
    return call.tensor().clamp(min=call.number("alpha"))


@operator("log", "rsqrt", "inverse")
def with_epsilon(call: Call) -> Tensor:
    """log(x + epsilon), 1 / sqrt(x + epsilon), 1 / (x + epsilon).

    The epsilon is added as it is stored; the defaults are 1e-45, 1e-12 and 1e-4.
    """
    x, kind = call.tensor(), call.operation.kind
    default = {"log": 1e-45, "rsqrt": 1e-12, "inverse": 1e-4}[kind]
    shifted = x + call.number("epsilon", default)
    if kind == "log":
        return torch.log(shifted)
    return 1 / (torch.sqrt(shifted) if kind == "rsqrt" else shifted)


@operator("select")
def select(call: Call) -> Tensor:
    """a where the condition holds, else b."""
    return torch.where(call.tensor("cond").bool(), call.tensor("a"), call.tensor("b"))
