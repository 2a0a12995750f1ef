"""lstm, gru and rnn: x [steps, batch, inputs], states [batch, directions * hidden].

`reverse` gives its outputs in the order in which it computed them, the last step of x first; the
backward half of `bidirectional` is turned round, so that each output stands at its step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..numerics import half
from .activation import recurrent_activation
from .base import Call, operator

Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


@operator("lstm")
def lstm(call: Call) -> tuple[Tensor, ...]:
    """Outputs, last h and last c. Gates are stored in the order i, f, o, z, with one bias."""
    x, h, c = call.tensor(), call.tensor("initial_h"), call.tensor("initial_c")
    direction, hidden = call.text("direction", "forward"), call.tensor("weight_hh").shape[1]
    run = _fused if _is_plain(call) else _stepped
    if direction != "bidirectional":
        out, h, c = run(call, x.flip(0) if direction == "reverse" else x, h, c, back="")
    else:
        ahead = run(call, x, h[:, :hidden], c[:, :hidden], back="")
        behind = run(call, x.flip(0), h[:, hidden:], c[:, hidden:], back="_back")
        out = torch.cat([ahead[0], behind[0].flip(0)], -1)
        h, c = (torch.cat([a, b], -1) for a, b in zip(ahead[1:], behind[1:], strict=True))
    return (out if call.flag("output_sequence") else h[None]), h, c


def _is_plain(call: Call) -> bool:
    """Whether this is the LSTM that PyTorch has a kernel of."""
    names = ("recurrent_activation", "cell_activation", "activation")
    usual = ("sigmoid", "tanh", "tanh")
    chosen = tuple(call.text(name, default) for name, default in zip(names, usual, strict=True))
    extras = {"clip", "peephole", "peephole_back"} & set(call.given)
    return chosen == usual and not extras and not call.stepwise


def _fused(
    call: Call, x: Tensor, h: Tensor, c: Tensor, *, back: str
) -> tuple[Tensor, Tensor, Tensor]:
    """By PyTorch's kernel, whose gates are in the order i, f, z, o."""
    hidden = h.shape[1]
    order = torch.cat([torch.arange(2 * hidden), torch.arange(hidden) + 3 * hidden])
    order = torch.cat([order, torch.arange(hidden) + 2 * hidden])
    into, over = (call.tensor(f"{name}{back}")[order] for name in ("weight_ih", "weight_hh"))
    bias = call.maybe(f"bias{back}")
    shift = x.new_zeros(4 * hidden) if bias is None else bias[order]
    out, h, c = torch.lstm(
        x,
        (h[None], c[None]),
        (into, over, shift, torch.zeros_like(shift)),
        has_biases=True,
        num_layers=1,
        dropout=0.0,
        train=False,
        bidirectional=False,
        batch_first=False,
    )
    return out, h[0], c[0]


def _stepped(
    call: Call, x: Tensor, h: Tensor, c: Tensor, *, back: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step: with peepholes, a clipped cell, other activations, or rounding each value."""
    hidden = h.shape[1]
    gate = recurrent_activation(call, "recurrent_activation", "sigmoid")
    cell = recurrent_activation(call, "cell_activation", "tanh")
    final = recurrent_activation(call, "activation", "tanh")
    over = call.tensor(f"weight_hh{back}").T
    peephole = call.maybe(f"peephole{back}")
    zeros = x.new_zeros(3 * hidden)
    peep_i, peep_f, peep_o = (zeros if peephole is None else peephole).split(hidden)
    clip = call.number("clip") if "clip" in call.given else None
    keep = half if call.stepwise else _same

    def step(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = states
        i, f, o, z = keep(given + call.product(h, over)).split(hidden, -1)
        c = keep(gate(f + c * peep_f) * c + gate(i + c * peep_i) * cell(z))
        c = c if clip is None else c.clamp(-clip, clip)
        return keep(gate(o + c * peep_o) * final(c)), c

    given = _projected(call, x, bias=f"bias{back}", weight=f"weight_ih{back}")
    out, (h, c) = _run(step, given, (h, c))
    return out, h, c


@operator("gru")
def gru(call: Call) -> tuple[Tensor, Tensor]:
    """Outputs and last h. Gates are stored in the order r, o, z.

    The reset gate scales the state before its product, unless `reset_after` says that it scales
    the product (with the bias, where `input_bias` is another one).
    """
    x, h = call.tensor(), call.tensor("initial_h")
    hidden = h.shape[1]
    gate = recurrent_activation(call, "recurrent_activation", "sigmoid")
    final = recurrent_activation(call, "activation", "tanh")
    over_r, over_o, over_z = (part.T for part in call.tensor("weight_hh").split(hidden))
    after, both = call.flag("reset_after"), "input_bias" in call.given
    bias = call.maybe("bias")
    zeros = x.new_zeros(3 * hidden)
    inner = (zeros if bias is None or not both else bias).split(hidden)
    keep = half if call.stepwise else _same

    def step(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = states
        r, o, z = given.split(hidden, -1)
        r = keep(gate(r + call.product(h, over_r) + inner[0]))
        z = keep(gate(z + call.product(h, over_z) + inner[2]))
        if after:
            o = final(o + r * (call.product(h, over_o) + inner[1]))
        else:
            o = final(o + call.product(r * h, over_o) + inner[1])
        return (keep((1 - z) * o + z * h),)

    given = _projected(call, x, bias="input_bias" if both else "bias", weight="weight_ih")
    return _sequence(call, step, given, h)


@operator("rnn")
def rnn(call: Call) -> tuple[Tensor, Tensor]:
    """Outputs and last h of h = activation(W_ih x + W_hh h + b)."""
    final = recurrent_activation(call, "activation", "tanh")
    over = call.tensor("weight_hh").T
    keep = half if call.stepwise else _same

    def step(given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (keep(final(given + call.product(states[0], over))),)

    given = _projected(call, call.tensor(), bias="bias", weight="weight_ih")
    return _sequence(call, step, given, call.tensor("initial_h"))


def _projected(call: Call, x: Tensor, *, bias: str, weight: str) -> Tensor:
    given = call.product(x, call.tensor(weight).T)
    shift = call.maybe(bias)
    return given if shift is None else given + shift


def _sequence(call: Call, step: Step, given: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """In one of the two directions of gru and rnn."""
    reverse = call.text("direction", "forward") == "reverse"
    out, (h,) = _run(step, given.flip(0) if reverse else given, (h,))
    return (out if call.flag("output_sequence") else h[None]), h


def _run(
    step: Step, given: Tensor, states: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    outputs = []
    for each in given:
        states = step(each, states)
        outputs.append(states[0])
    return torch.stack(outputs), states


def _same(values: Tensor) -> Tensor:
    return values
