"""Recurrent layers as a loop that ExecuTorch keeps a loop.

The stock lowering unrolls an LSTM over time into thousands of nodes. Here the input projection of
all steps is a linear layer for each direction outside the loop, and the loop is a `scan` whose body
computes a few steps of all directions (`recurrent_cells`). Lengths that the number of steps does
not divide are padded where a direction ends.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan_op

from .base import register_rewrite
from .recurrent_cells import CELLS, RecurrentCell

State = Tensor | tuple[Tensor, Tensor]


class Cell(Protocol):
    """What a scan needs of its cell: a `RecurrentCell`, or what stands for one."""

    hidden_size: int
    gates: int
    carried: int

    @property
    def directions(self) -> int:
        """1 or 2."""
        ...

    @property
    def constants(self) -> list[Tensor]:
        """What `advance` needs besides carry and gates."""
        ...

    def advance(
        self, carry: list[Tensor], gates: list[Tensor], constants: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """As many steps as `gates` holds: the next carry and all hidden states."""
        ...


class RecurrentScan(nn.Module):
    """One recurrent layer, with the interface of torch.nn.LSTM, GRU and RNN.

    `(x, state) -> (outputs, state)`: x is [batch, time, features] when `batch_first`, else [time,
    batch, features]; a state is [directions, batch, hidden], a pair of such for an LSTM, and zero
    when it is not given. `steps` is how many steps one pass of the loop computes.
    """

    def __init__(self, layer: nn.RNNBase, cell: RecurrentCell, *, steps: int) -> None:
        super().__init__()
        self.batch_first, self.steps = layer.batch_first, steps
        self.cell: Cell = cell
        self.projections = nn.ModuleList(
            _projection(layer, cell, suffix) for suffix in cell.suffixes
        )
        dtype = next(layer.parameters()).dtype
        self.register_buffer("pad", cell.padding().to(dtype).reshape(1, 1, -1))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Outputs, [..., directions * hidden] beside x's first two dimensions, and final state."""
        if self.batch_first:
            x = swapped(x)
        time, batch, _ = x.shape
        results = scan_op(
            self._advance,
            self._carry(x, state),
            [self._gates(x, direction) for direction in range(self.cell.directions)],
            tuple(self.cell.constants),
        )
        in_time = [
            self._in_time(results[-1], direction, time) for direction in range(self.cell.directions)
        ]
        ends = [states[-1 if index == 0 else 0] for index, states in enumerate(in_time)]
        final = [torch.cat(ends), *results[1:-1]]
        outputs = torch.cat(in_time, dim=3).reshape(time, batch, -1)
        if self.batch_first:
            outputs = swapped(outputs)
        return outputs, (final[0], final[1]) if len(final) == 2 else final[0]

    def _gates(self, x: Tensor, direction: int) -> Tensor:
        """The input's share, [passes, steps, batch, gates * hidden], as the direction goes."""
        gates: Tensor = self.projections[direction](x)
        missing = -gates.shape[0] % self.steps
        if missing:
            pad = self.get_buffer("pad").expand(missing, gates.shape[1], -1)
            gates = torch.cat([gates, pad] if direction == 0 else [pad, gates])
        gates = gates.reshape(-1, self.steps, *gates.shape[1:])
        return gates if direction == 0 else backwards(gates)

    def _in_time(self, states: Tensor, direction: int, time: int) -> Tensor:
        """One direction of [passes, steps, directions, batch, hidden], in order of time.

        Gives [time, 1, batch, hidden].
        """
        if direction == 1:
            states = backwards(states)
        flat = states.reshape(-1, *states.shape[2:])[:, direction : direction + 1]
        return flat[:time] if direction == 0 else flat[flat.shape[0] - time :]

    def _advance(self, *tensors: Tensor) -> list[Tensor]:
        """The loop's body: carry, gates, constants -> next carry, hidden states."""
        carried, directions = self.cell.carried, self.cell.directions
        carry, states = self.cell.advance(
            list(tensors[:carried]),
            list(tensors[carried : carried + directions]),
            list(tensors[carried + directions :]),
        )
        return [*carry, states]

    def _carry(self, x: Tensor, state: State | None) -> list[Tensor]:
        if state is None:
            shape = (self.cell.directions, x.shape[1], self.cell.hidden_size)
            return [x.new_zeros(shape) for _ in range(self.cell.carried)]
        return [state] if isinstance(state, Tensor) else list(state)


def _projection(layer: nn.RNNBase, cell: RecurrentCell, suffix: str) -> nn.Linear:
    weight = cell.reorder(getattr(layer, f"weight_ih_l0{suffix}").detach())
    linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(cell.input_bias(layer, suffix))
    return linear


def swapped(x: Tensor) -> Tensor:
    """[batch, time, ...] <-> [time, batch, ...], which moves nothing when one of them is 1."""
    if 1 in x.shape[:2]:
        return x.reshape(x.shape[1], x.shape[0], -1)
    return x.transpose(0, 1)


def backwards(x: Tensor) -> Tensor:
    """[passes, steps, ...] from the end; ExecuTorch copies whole blocks here, not with `flip`."""
    for dim in (0, 1):
        if x.shape[dim] > 1:
            x = torch.index_select(x, dim, torch.arange(x.shape[dim] - 1, -1, -1))
    return x


@register_rewrite("recurrent_scan")
class RecurrentScans:
    """nn.LSTM, nn.GRU, nn.RNN of one layer -> RecurrentScan."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """A scan in the place of a one-layer recurrence without projection of its output."""
        for kind, cell in CELLS.items():
            if isinstance(module, kind) and module.num_layers == 1 and module.proj_size == 0:
                return RecurrentScan(module, cell(module), steps=1)
        return None
