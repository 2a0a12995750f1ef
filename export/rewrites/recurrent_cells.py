"""Cells of recurrent layers: a few steps of all directions as one graph without loops.

A cell takes its carry, tensors of [directions, batch, hidden], and for every direction the input's
share of the gates, [steps, batch, gates * hidden], in the order in which that direction goes; it
gives the next carry and the hidden states, [steps, directions, batch, hidden]. The recurrent
weights of all directions are one tensor, stored transposed: one product of matrices does a step,
and with few, joined operations a step costs little beside it.

Equations: the documentation of torch.nn.LSTM, GRU and RNN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

SATURATED = 1e4
"""A gate's input at which its sigmoid is exactly 0 or 1, in float32 and float64 alike."""


class RecurrentCell(nn.Module, ABC):
    """A one-layer recurrence over all its directions; subclasses say what one step does.

    The carry's first tensor is the hidden state.
    """

    gates: int
    carried: int

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.hidden_size = layer.hidden_size
        self.suffixes = ["", "_reverse"] if layer.bidirectional else [""]
        weights = [self.reorder(_parameter(layer, f"weight_hh_l0{s}")).t() for s in self.suffixes]
        self.register_buffer("weight", torch.stack(weights).contiguous())
        # Hidden state and weight -> the recurrent share of the gates; a lowering may replace it.
        self.product: Callable[[Tensor, Tensor], Tensor] = torch.bmm

    @property
    def directions(self) -> int:
        """1 or 2."""
        return len(self.suffixes)

    @property
    def constants(self) -> list[Tensor]:
        """What `advance` needs besides carry and gates; the weight comes first."""
        return [self.get_buffer("weight")]

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
    def step(self, gates: Tensor, carry: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        """The carry after one step; gates are [directions, batch, gates * hidden]."""

    def advance(
        self, carry: list[Tensor], gates: list[Tensor], constants: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """As many steps as `gates` holds: the next carry and all hidden states."""
        steps = gates[0].shape[0]
        states = []
        for index in range(steps):
            now = gates if steps == 1 else [g[index : index + 1] for g in gates]
            joined = torch.cat(now) if len(now) > 1 else now[0]
            carry = self.step(joined, carry, constants)
            states.append(carry[0])
        # One step's state must be copied: what a loop's body gives must not share memory.
        stacked = torch.cat(states) if steps > 1 else states[0].clone()
        return carry, stacked.reshape(steps, *states[0].shape)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """`(*carry, *gates) -> (*carry, hidden states)`, with the weights as constants."""
        carry, gates = list(tensors[: self.carried]), list(tensors[self.carried :])
        carry, states = self.advance(carry, gates, self.constants)
        return (*carry, states)


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

    def step(self, gates: Tensor, carry: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        """One step of (hidden, cell)."""
        size = self.hidden_size
        total = self.product(carry[0], constants[0]) + gates
        opened = torch.sigmoid(total[..., : 3 * size])
        candidate = torch.tanh(total[..., 3 * size :])
        cell = opened[..., size : 2 * size] * carry[1] + opened[..., :size] * candidate
        return [opened[..., 2 * size :] * torch.tanh(cell), cell]


class GruCell(RecurrentCell):
    """Gates in PyTorch's order: reset, update, new."""

    gates, carried = 3, 1

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__(layer)
        biases = [_parameter(layer, f"bias_hh_l0{suffix}") for suffix in self.suffixes]
        new = torch.stack([bias[2 * self.hidden_size :] for bias in biases])
        self.register_buffer("new_bias", new.unsqueeze(1).contiguous())

    @property
    def constants(self) -> list[Tensor]:
        """The weight and the recurrent bias that the reset gate multiplies."""
        return [self.get_buffer("weight"), self.get_buffer("new_bias")]

    def input_bias(self, layer: nn.RNNBase, suffix: str) -> Tensor:
        """All but the recurrent bias of the new gate."""
        recurrent = _parameter(layer, f"bias_hh_l0{suffix}").clone()
        recurrent[2 * self.hidden_size :] = 0
        return _parameter(layer, f"bias_ih_l0{suffix}") + recurrent

    def step(self, gates: Tensor, carry: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        """One step of the hidden state."""
        size, (weight, bias) = self.hidden_size, constants
        share = self.product(carry[0], weight)
        opened = torch.sigmoid(gates[..., : 2 * size] + share[..., : 2 * size])
        recurrent = share[..., 2 * size :] + bias
        new = torch.tanh(gates[..., 2 * size :] + opened[..., :size] * recurrent)
        return [new + opened[..., size:] * (carry[0] - new)]


class RnnCell(RecurrentCell):
    """Elman's network, with tanh or relu."""

    gates, carried = 1, 1

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__(layer)
        self.nonlinearity = str(getattr(layer, "nonlinearity", "tanh"))

    def step(self, gates: Tensor, carry: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        """One step of the hidden state."""
        activation = torch.relu if self.nonlinearity == "relu" else torch.tanh
        return [activation(self.product(carry[0], constants[0]) + gates)]


CELLS: dict[type[nn.RNNBase], type[RecurrentCell]] = {
    nn.LSTM: LstmCell,
    nn.GRU: GruCell,
    nn.RNN: RnnCell,
}


def _parameter(layer: nn.RNNBase, name: str) -> Tensor:
    """A parameter's values; zeros for the biases of a layer without."""
    value: Any = getattr(layer, name, None)
    if value is None:
        weight = getattr(layer, name.replace("bias", "weight"))
        return torch.zeros(weight.shape[0], dtype=weight.dtype)
    return value.detach()  # type: ignore[no-any-return]
