"""Cells of recurrent layers: a few steps of all directions as one graph without loops.

A cell takes its carry, tensors of [directions * batch, hidden], and for every direction the input's
share of the gates, [steps * batch, gates * hidden]; it gives the next carry and for every direction
the hidden states, [steps * batch, hidden]. Rows are ordered by direction (or step), then batch; the
steps of the reverse direction are in order of time, which it goes through from the end.
Everything is a 2-D tensor and every recurrent weight is stored transposed, [hidden, gates *
hidden]: ExecuTorch's kernels and XNNPACK run that form fastest.

Equations: the documentation of torch.nn.LSTM, GRU and RNN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

SATURATED = 1e4
"""A gate's input at which its sigmoid is exactly 0 or 1, in float32 and float64 alike."""


class RecurrentCell(nn.Module, ABC):
    """`steps` steps of a one-layer recurrence over all its directions.

    Subclasses say what one step does; the carry's first tensor is the hidden state.
    """

    gates: int
    carried: int

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.hidden_size = layer.hidden_size
        self.suffixes = ["", "_reverse"] if layer.bidirectional else [""]
        for index, suffix in enumerate(self.suffixes):
            weight = self.reorder(_parameter(layer, f"weight_hh_l0{suffix}"))
            self.register_buffer(f"weight_{index}", weight.t().contiguous())

    @property
    def directions(self) -> int:
        """1 or 2."""
        return len(self.suffixes)

    @property
    def constants(self) -> list[Tensor]:
        """What `advance` needs besides carry and gates."""
        return [self.get_buffer(f"weight_{index}") for index in range(self.directions)]

    def reorder(self, gates: Tensor) -> Tensor:
        """PyTorch's order of the gates along the first dimension, made ours."""
        return gates

    def input_bias(self, layer: nn.RNNBase, suffix: str) -> Tensor:
        """The biases that can be added before the recurrence, in our order of gates."""
        return self.reorder(
            _parameter(layer, f"bias_ih_l0{suffix}") + _parameter(layer, f"bias_hh_l0{suffix}")
        )

    def padding(self) -> Tensor:
        """Gates, [gates * hidden], of a step that must not change what is carried.

        The hidden state does change in it; it is read from the outputs before the padding.
        """
        return torch.zeros(self.gates * self.hidden_size)

    @abstractmethod
    def step(
        self, gates: list[Tensor], carry: list[Tensor], constants: list[Tensor]
    ) -> list[Tensor]:
        """The carry after one step."""

    def split(self, joined: Tensor) -> list[Tensor]:
        """Rows of every direction."""
        if self.directions == 1:
            return [joined]
        rows = joined.shape[0] // 2
        return [joined[:rows], joined[rows:]]

    def advance(
        self, carry: list[Tensor], gates: list[Tensor], constants: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As many steps as `gates` holds rows for: the next carry and all hidden states."""
        rows = carry[0].shape[0] // self.directions
        starts = range(0, gates[0].shape[0], rows)
        orders = [starts, starts[::-1]][: self.directions]
        outputs: list[list[Tensor]] = [[] for _ in gates]
        for now in zip(*orders, strict=True):
            pieces = [
                g if len(starts) == 1 else g[start : start + rows]
                for g, start in zip(gates, now, strict=True)
            ]
            carry = self.step(pieces, carry, constants)
            for collected, hidden in zip(outputs, self.split(carry[0]), strict=True):
                collected.append(hidden)
        return carry, [
            torch.cat(hidden if order is starts else hidden[::-1])
            for hidden, order in zip(outputs, orders, strict=True)
        ]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`(*carry, *gates) -> (*carry, *outputs)`, with the weights as constants."""
        carry, gates = list(tensors[: self.carried]), list(tensors[self.carried :])
        carry, outputs = self.advance(carry, gates, self.constants)
        return (*carry, *outputs)


class LstmCell(RecurrentCell):
    """Gates in the order input, forget, output, candidate, so that one sigmoid does three."""

    gates, carried = 4, 2

    def reorder(self, gates: Tensor) -> Tensor:
        """PyTorch's input, forget, candidate, output -> ours."""
        i, f, g, o = gates.chunk(4)
        return torch.cat([i, f, o, g])

    def padding(self) -> Tensor:
        """Input gate shut, forget gate open: the cell state stays as it is."""
        values = torch.zeros(4, self.hidden_size)
        values[0], values[1] = -SATURATED, SATURATED
        return values.flatten()

    def step(
        self, gates: list[Tensor], carry: list[Tensor], constants: list[Tensor]
    ) -> list[Tensor]:
        """One step of (hidden, cell)."""
        size = self.hidden_size
        shares = zip(self.split(carry[0]), gates, constants, strict=True)
        total = joined([now + torch.mm(hidden, weight) for hidden, now, weight in shares])
        opened = torch.sigmoid(total[:, : 3 * size])
        candidate = torch.tanh(total[:, 3 * size :])
        cell = opened[:, size : 2 * size] * carry[1] + opened[:, :size] * candidate
        return [opened[:, 2 * size :] * torch.tanh(cell), cell]


class GruCell(RecurrentCell):
    """Gates in PyTorch's order: reset, update, new."""

    gates, carried = 3, 1

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__(layer)
        for index, suffix in enumerate(self.suffixes):
            bias = _parameter(layer, f"bias_hh_l0{suffix}")[2 * self.hidden_size :]
            self.register_buffer(f"new_bias_{index}", bias.clone().reshape(1, -1))

    @property
    def constants(self) -> list[Tensor]:
        """Per direction its weight and the recurrent bias that the reset gate multiplies."""
        names = [f"{kind}_{i}" for i in range(self.directions) for kind in ("weight", "new_bias")]
        return [self.get_buffer(name) for name in names]

    def input_bias(self, layer: nn.RNNBase, suffix: str) -> Tensor:
        """All but the recurrent bias of the new gate."""
        recurrent = _parameter(layer, f"bias_hh_l0{suffix}").clone()
        recurrent[2 * self.hidden_size :] = 0
        return _parameter(layer, f"bias_ih_l0{suffix}") + recurrent

    def step(
        self, gates: list[Tensor], carry: list[Tensor], constants: list[Tensor]
    ) -> list[Tensor]:
        """One step of the hidden state."""
        size, weights, biases = self.hidden_size, constants[::2], constants[1::2]
        hidden = self.split(carry[0])
        shares = [torch.mm(h, weight) for h, weight in zip(hidden, weights, strict=True)]
        opened = torch.sigmoid(
            joined(
                [g[:, : 2 * size] + s[:, : 2 * size] for g, s in zip(gates, shares, strict=True)]
            )
        )
        recurrent = joined([s[:, 2 * size :] + b for s, b in zip(shares, biases, strict=True)])
        inputs = joined([g[:, 2 * size :] for g in gates])
        new = torch.tanh(inputs + opened[:, :size] * recurrent)
        return [new + opened[:, size:] * (carry[0] - new)]


class RnnCell(RecurrentCell):
    """Elman's network, with tanh or relu."""

    gates, carried = 1, 1

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__(layer)
        self.nonlinearity = str(getattr(layer, "nonlinearity", "tanh"))

    def step(
        self, gates: list[Tensor], carry: list[Tensor], constants: list[Tensor]
    ) -> list[Tensor]:
        """One step of the hidden state."""
        activation = torch.relu if self.nonlinearity == "relu" else torch.tanh
        shares = zip(self.split(carry[0]), gates, constants, strict=True)
        total = joined([now + torch.mm(hidden, weight) for hidden, now, weight in shares])
        return [activation(total)]


CELLS: dict[type[nn.RNNBase], type[RecurrentCell]] = {
    nn.LSTM: LstmCell,
    nn.GRU: GruCell,
    nn.RNN: RnnCell,
}


def joined(parts: list[Tensor]) -> Tensor:
    """Rows of all directions in one tensor."""
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _parameter(layer: nn.RNNBase, name: str) -> Tensor:
    """A parameter's values; zeros for the biases of a layer without."""
    value: Any = getattr(layer, name, None)
    if value is None:
        weight = getattr(layer, name.replace("bias", "weight"))
        return torch.zeros(weight.shape[0], dtype=weight.dtype)
    return value.detach()  # type: ignore[no-any-return]
