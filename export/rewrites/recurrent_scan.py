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
        self.register_buffer("pad", cell.padding().to(dtype).reshape(1, 1, 1, -1))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Outputs, [..., directions * hidden] beside x's first two dimensions, and final state."""
        batch, time = x.shape[:2] if self.batch_first else (x.shape[1], x.shape[0])
        results = scan_op(
            self._advance,
            self._carry(x, state, batch=batch),
            [self._gates(x, d, batch=batch, time=time) for d in range(self.cell.directions)],
            tuple(self.cell.constants),
        )
        forward, reverse = self._in_time(results[-1], time=time)
        last = [forward[time - 1]] if reverse is None else [forward[time - 1], reverse[0]]
        final = [torch.cat(last), *results[1:-1]]
        outputs = forward if reverse is None else torch.cat([forward, reverse], dim=3)
        return self._as_given(outputs, batch=batch, time=time), (
            (final[0], final[1]) if len(final) == 2 else final[0]
        )

    def _gates(self, x: Tensor, direction: int, *, batch: int, time: int) -> Tensor:
        """The input's share, [passes, steps, batch, gates * hidden], as the direction goes."""
        x = x.transpose(0, 1) if self.batch_first and batch > 1 else x
        gates: Tensor = self.projections[direction](x.reshape(time, 1, batch, -1))
        missing = -time % self.steps
        if missing:
            pad = self.get_buffer("pad").expand(missing, 1, batch, -1)
            gates = torch.cat([gates, pad] if direction == 0 else [pad, gates])
        if self.steps > 1:
            gates = gates.reshape(-1, self.steps, batch, gates.shape[-1])
        return gates if direction == 0 else backwards(gates)

    def _in_time(self, states: Tensor, *, time: int) -> tuple[Tensor, Tensor | None]:
        """[passes, steps, directions, batch, hidden] -> per direction [time, 1, batch, hidden]."""

        def flat(x: Tensor) -> Tensor:
            return x.reshape(-1, *x.shape[2:])

        forward = flat(states)[:time, :1]
        if self.cell.directions == 1:
            return forward, None
        return forward, flat(backwards(states))[-time:, 1:]

    def _as_given(self, outputs: Tensor, *, batch: int, time: int) -> Tensor:
        """[time, 1, batch, directions * hidden] with x's first two dimensions."""
        if not self.batch_first:
            return outputs.reshape(time, batch, -1)
        if batch == 1:
            return outputs.reshape(1, time, -1)
        return outputs.reshape(time, batch, -1).transpose(0, 1)

    def _advance(self, *tensors: Tensor) -> list[Tensor]:
        """The loop's body: carry, gates, constants -> next carry, hidden states."""
        carried, directions = self.cell.carried, self.cell.directions
        carry, states = self.cell.advance(
            list(tensors[:carried]),
            list(tensors[carried : carried + directions]),
            list(tensors[carried + directions :]),
        )
        return [*carry, states]

    def _carry(self, x: Tensor, state: State | None, *, batch: int) -> list[Tensor]:
        if state is None:
            shape = (self.cell.directions, batch, self.cell.hidden_size)
            return [x.new_zeros(shape) for _ in range(self.cell.carried)]
        return [state] if isinstance(state, Tensor) else list(state)


def _projection(layer: nn.RNNBase, cell: RecurrentCell, suffix: str) -> nn.Linear:
    weight = cell.reorder(getattr(layer, f"weight_ih_l0{suffix}").detach())
    linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(cell.input_bias(layer, suffix))
    return linear


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
