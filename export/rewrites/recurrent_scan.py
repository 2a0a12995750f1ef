"""Recurrent layers as a loop that ExecuTorch keeps a loop.

The stock lowering unrolls an LSTM over time into thousands of nodes. Here the input projection of
all steps is one linear layer outside the loop, and the loop is a `scan` whose body computes a few
steps of all directions (`recurrent_cells`). Lengths that the number of steps does not divide are
padded where a direction ends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan_op

from .base import register_rewrite
from .recurrent_cells import CELLS, RecurrentCell

State = Tensor | tuple[Tensor, Tensor]


class RecurrentScan(nn.Module):
    """One recurrent layer, with the interface of torch.nn.LSTM, GRU and RNN.

    `(x, state) -> (outputs, state)`: x is [batch, time, features] when `batch_first`, else [time,
    batch, features]; a state is [directions, batch, hidden], a pair of such for an LSTM, and zero
    when it is not given. `steps` is how many steps one pass of the loop computes.
    """

    def __init__(self, layer: nn.RNNBase, cell: RecurrentCell, *, steps: int) -> None:
        super().__init__()
        self.batch_first, self.cell, self.steps = layer.batch_first, cell, steps
        weights = [getattr(layer, f"weight_ih_l0{suffix}").detach() for suffix in cell.suffixes]
        biases = [cell.input_bias(layer, suffix) for suffix in cell.suffixes]
        dtype = weights[0].dtype
        width = cell.gates * layer.hidden_size * cell.directions
        self.projection = nn.Linear(layer.input_size, width, dtype=dtype)
        self.projection.weight.data.copy_(torch.cat([cell.reorder(weight) for weight in weights]))
        self.projection.bias.data.copy_(torch.cat(biases))
        self.register_buffer("pad", cell.padding().to(dtype).reshape(1, -1))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Outputs, [..., directions * hidden] beside x's first two dimensions, and final state."""
        batch, time = x.shape[:2] if self.batch_first else (x.shape[1], x.shape[0])
        gates = self._gates(self.projection(x), batch=batch, time=time)
        carry = self._carry(x, state, rows=self.cell.directions * batch)
        results = scan_op(self._advance, carry, gates, tuple(self.cell.constants))
        carry, stacked = results[: len(carry)], results[len(carry) :]
        hidden = self._in_time(stacked, batch=batch, time=time)
        ends = [h[-1 if index == 0 else 0] for index, h in enumerate(hidden)]
        final = [c.reshape(self.cell.directions, batch, -1) for c in (torch.cat(ends), *carry[1:])]
        outputs = torch.cat(hidden, dim=2) if len(hidden) > 1 else hidden[0]
        if self.batch_first:
            outputs = swapped(outputs)
        return outputs, (final[0], final[1]) if len(final) == 2 else final[0]

    def _gates(self, projected: Tensor, *, batch: int, time: int) -> list[Tensor]:
        """Per direction, in the order of its passes: [passes, steps * batch, gates * hidden]."""
        if self.batch_first:
            projected = swapped(projected)
        projected = projected.reshape(time * batch, -1)
        width = projected.shape[1] // self.cell.directions
        missing = -time % self.steps
        gates = []
        for index in range(self.cell.directions):
            rows = projected[:, index * width : (index + 1) * width]
            if missing:
                pad = self.get_buffer("pad").expand(missing * batch, -1)
                rows = torch.cat([rows, pad] if index == 0 else [pad, rows])
            gates.append(rows.reshape(-1, self.steps * batch, width))
        return [gates[0], *(reversed_passes(g) for g in gates[1:])]

    def _advance(self, *tensors: Tensor) -> list[Tensor]:
        """The loop's body: carry, gates, constants -> next carry, hidden states."""
        carried, directions = self.cell.carried, self.cell.directions
        carry, outputs = self.cell.advance(
            list(tensors[:carried]),
            list(tensors[carried : carried + directions]),
            list(tensors[carried + directions :]),
        )
        return [*carry, *outputs]

    def _carry(self, x: Tensor, state: State | None, *, rows: int) -> list[Tensor]:
        if state is None:
            return [x.new_zeros(rows, self.cell.hidden_size) for _ in range(self.cell.carried)]
        states = [state] if isinstance(state, Tensor) else list(state)
        return [s.reshape(rows, -1) for s in states]

    def _in_time(self, stacked: list[Tensor], *, batch: int, time: int) -> list[Tensor]:
        """Hidden states per direction in order of time, without padding: [time, batch, hidden]."""
        aligned = [stacked[0], *(reversed_passes(s) for s in stacked[1:])]
        shaped = [a.reshape(-1, batch, self.cell.hidden_size) for a in aligned]
        return [shaped[0][:time], *(s[s.shape[0] - time :] for s in shaped[1:])]


def swapped(x: Tensor) -> Tensor:
    """[batch, time, ...] <-> [time, batch, ...], which moves nothing when one of them is 1."""
    if 1 in x.shape[:2]:
        return x.reshape(x.shape[1], x.shape[0], -1)
    return x.transpose(0, 1)


def reversed_passes(x: Tensor) -> Tensor:
    """The first dimension backwards; ExecuTorch copies whole blocks here, `flip` copies values."""
    return torch.index_select(x, 0, torch.arange(x.shape[0] - 1, -1, -1))


@register_rewrite("recurrent_scan")
class RecurrentScans:
    """nn.LSTM, nn.GRU, nn.RNN of one layer -> RecurrentScan."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """A scan in the place of a one-layer recurrence without projection of its output."""
        for kind, cell in CELLS.items():
            if isinstance(module, kind) and module.num_layers == 1 and module.proj_size == 0:
                return RecurrentScan(module, cell(module), steps=1)
        return None
