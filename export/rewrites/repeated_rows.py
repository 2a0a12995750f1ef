"""LSTM over a batch whose rows repeat: each row that differs from the one before is computed once.

The GE2E encoder hears three parts of every speaker's speech. Of a speaker who is not there they are
all silence, and of one with less speech than a part they are all the same; mostly more than half of
the rows are one or the other. The state after silence is a constant, and a repeated row has the
state of the row before. A step of an LSTM is a product with as many rows as are left, so that what
is left out costs nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.ge2e import LastState
from .base import register_rewrite

GATES = (0, 3, 1, 2)
BACK = (0, 2, 3, 1)
"""ONNX has the gates in the order i, o, f, c, PyTorch i, f, c, o."""


class DistinctRows(LastState):
    """The same last states; `Compress` chooses the rows, with no integer computed in the graph."""

    silence: Tensor

    def __init__(self, lstm: LastState) -> None:
        super().__init__(lstm.input_size, lstm.hidden_size, lstm.num_layers, steps=lstm.steps)
        self.load_state_dict(lstm.state_dict())
        self.to(next(lstm.parameters()).dtype)
        silent = next(lstm.parameters()).new_zeros(1, lstm.steps, lstm.input_size)
        with torch.no_grad():
            self.register_buffer("silence", lstm(silent))
        for layer in range(lstm.num_layers):
            for name, weight in _onnx_weights(lstm, layer).items():
                self.register_buffer(f"onnx_{name}_{layer}", weight)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """[rows, steps, features] -> [rows, hidden]."""
        rows = x.shape[0]
        silent = (x.abs().amax((1, 2)) == 0).to(x.dtype)
        new = ((x[1:] - x[:-1]).abs().amax((1, 2)) > 0).to(x.dtype)
        needed = torch.cat([torch.ones_like(silent[:1]), new]) * (1 - silent)
        # A batch of none is no batch: where all is silence its first row is computed for nothing.
        first = torch.maximum(needed[:1], 1 - needed.amax(0, keepdim=True))
        needed = torch.cat([first, needed[1:]])
        weights = [buffer for name, buffer in self.named_buffers() if name.startswith("onnx_")]
        states: Tensor = _States.apply(x, needed > 0, *weights)  # type: ignore[no-untyped-call]
        padded = torch.cat([states, self.silence.new_zeros(rows, self.hidden_size)])[:rows]
        places = torch.arange(1, rows + 1, dtype=x.dtype)
        chosen = (needed.cumsum(0)[:, None] == places).to(x.dtype) * (1 - silent)[:, None]
        return chosen @ padded + silent[:, None] * self.silence


class _States(torch.autograd.Function):
    """Last states [needed rows, hidden] of the rows that are needed; weights as ONNX has them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, needed: Tensor, *weights: Tensor) -> Tensor:
        kept, flat = x[needed], []
        for index in range(0, len(weights), 3):
            w, r, b = (weight[0] for weight in weights[index : index + 3])
            flat += [_in_order(each, BACK) for each in (w, r, *b.chunk(2))]
        start = kept.new_zeros(len(weights) // 3, kept.shape[0], weights[1].shape[2])
        _, hidden, _ = torch._VF.lstm(
            kept, (start, start), flat, True, len(start), 0.0, False, False, True
        )
        last: Tensor = hidden[-1]
        return last

    @staticmethod
    def symbolic(g: Any, x: Any, needed: Any, *weights: Any) -> Any:
        values = g.op("Transpose", g.op("Compress", x, needed, axis_i=0), perm_i=[1, 0, 2])
        hidden = weights[1].type().sizes()[2]
        for index in range(0, len(weights), 3):
            layer = weights[index : index + 3]
            values, last = g.op("LSTM", values, *layer, hidden_size_i=hidden, outputs=2)
            values = g.op("Squeeze", values, g.op("Constant", value_t=torch.tensor([1])))
        return g.op("Squeeze", last, g.op("Constant", value_t=torch.tensor([0])))


def _in_order(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    gates = weight.chunk(4)
    return torch.cat([gates[gate] for gate in order])


def _onnx_weights(lstm: LastState, layer: int) -> dict[str, Tensor]:
    """W [1, 4 * hidden, inputs], R [1, 4 * hidden, hidden] and B [1, 8 * hidden]."""

    def ordered(name: str) -> Tensor:
        return _in_order(getattr(lstm, f"{name}_l{layer}").detach(), GATES)

    biases = torch.cat([ordered("bias_ih"), ordered("bias_hh")])
    weights = {"w": ordered("weight_ih"), "r": ordered("weight_hh"), "b": biases}
    return {name: weight[None] for name, weight in weights.items()}


@register_rewrite("repeated_rows")
class RepeatedRows:
    """LastState -> DistinctRows."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The same states, of fewer rows."""
        return DistinctRows(module) if type(module) is LastState else None
