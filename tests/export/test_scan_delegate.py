"""Recurrences whose loop bodies are delegates, run by ExecuTorch, against those of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.lowering.scan_delegate import DelegatedCell, delegate_recurrence, lower_cell
from export.quiet import quiet_tools
from export.rewrites.recurrent_cells import LstmCell, RecurrentCell
from export.rewrites.recurrent_scan import RecurrentScan, RecurrentScans

FEATURES, HIDDEN = 6, 8


class Stack(nn.Module):
    """Recurrent layers one after the other; gives outputs and the last layer's final states."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """`states` are the first layer's, zero when not given."""
        given = states[0] if len(states) == 1 else states or None
        final: Any = None
        for index, layer in enumerate(self.layers):
            x, final = layer(x, given if index == 0 else None)
        return (x, final) if isinstance(final, Tensor) else (x, *final)


def make_layers(kind: type[nn.RNNBase], *, bidirectional: bool, count: int = 1) -> list[nn.RNNBase]:
    torch.manual_seed(0)
    layers = []
    for index in range(count):
        width = FEATURES if index == 0 else HIDDEN * (1 + bidirectional)
        options: dict[str, Any] = {"batch_first": True, "bidirectional": bidirectional}
        layer: nn.RNNBase = kind(width, HIDDEN, **options)  # type: ignore[arg-type]
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.7)
        layers.append(layer.eval().requires_grad_(False))
    return layers


def as_scans(layers: list[nn.RNNBase], *, steps: int) -> Stack:
    scans: list[nn.Module] = []
    for layer in layers:
        scan = RecurrentScans().replace(layer)
        assert isinstance(scan, RecurrentScan)
        scan.steps = steps
        scans.append(scan)
    return Stack(scans).eval().requires_grad_(False)


def run_delegated(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], Any]:
    """Outputs of the module lowered for ExecuTorch, and its execution plan."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    with quiet_tools(), torch.no_grad():
        delegate_recurrence(module, batch=inputs[0].shape[0])
        exported = torch.export.export(module, inputs)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        manager = edge.to_executorch()
        program = Runtime.get().load_program(manager.buffer)
        outputs = [value.clone() for value in program.load_method("forward").execute(inputs)]
    return outputs, manager.executorch_program.execution_plan[0]


def largest_difference(outputs: list[Tensor], expected: tuple[Tensor, ...]) -> float:
    assert [o.shape for o in outputs] == [e.shape for e in expected]
    return max(float((o - e).abs().max()) for o, e in zip(outputs, expected, strict=True))


@pytest.mark.parametrize(
    ("kind", "bidirectional", "batch", "steps"),
    [
        (nn.LSTM, True, 1, 1),
        (nn.LSTM, True, 2, 3),
        (nn.LSTM, False, 1, 5),
        (nn.GRU, True, 1, 3),
        (nn.GRU, False, 2, 1),
        (nn.RNN, True, 2, 1),
        (nn.RNN, False, 1, 4),
    ],
)
def test_outputs_and_states_equal_those_of_torch(
    kind: type[nn.RNNBase], bidirectional: bool, batch: int, steps: int
) -> None:
    """13 steps: of the numbers of steps in a pass only 1 divides that."""
    layers = make_layers(kind, bidirectional=bidirectional)
    shape = (1 + bidirectional, batch, HIDDEN)
    states = [torch.randn(shape) for _ in range(2 if kind is nn.LSTM else 1)]
    inputs = (torch.randn(batch, 13, FEATURES), *states)
    expected = Stack(list(layers))(*inputs)
    outputs, plan = run_delegated(as_scans(layers, steps=steps), inputs)
    assert largest_difference(outputs, expected) < 2e-6
    # All arithmetic is in delegates: outside are copies, fills and the loop's counter.
    names = {operator.name for operator in plan.operators}
    assert not names & {f"aten::{n}" for n in ("bmm", "mm", "addmm", "sigmoid", "tanh", "mul")}


def test_layers_keep_their_own_weights() -> None:
    """Loops whose bodies look alike must not become one, nor share the wrong data."""
    layers = make_layers(nn.LSTM, bidirectional=True, count=3)
    inputs = (torch.randn(1, 11, FEATURES),)
    expected = Stack(list(layers))(*inputs)
    exchanged = Stack([layers[0], layers[2], layers[1]])(*inputs)
    outputs, plan = run_delegated(as_scans(layers, steps=1), inputs)
    assert largest_difference(outputs, expected) < 2e-6
    assert largest_difference(outputs, exchanged) > 1e-2
    assert sum(chain_jumps(plan)) == 3


def chain_jumps(plan: Any) -> list[bool]:
    kinds = [type(i.instr_args).__name__ for chain in plan.chains for i in chain.instructions]
    return [kind == "JumpFalseCall" for kind in kinds]


@pytest.mark.parametrize("steps", [1, 2])
def test_inputs_and_outputs_of_a_delegate_keep_their_order(steps: int) -> None:
    layer = make_layers(nn.LSTM, bidirectional=True)[0]
    cell = LstmCell(layer)
    with quiet_tools(), torch.no_grad():
        lowered = lower_cell(cell, steps=steps, batch=1)
    graph = lowered.original_module.graph
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    signature = lowered.original_module.graph_signature
    given = [n.meta["val"].shape for n in placeholders if n.name in signature.user_inputs]
    assert given == [(2, 1, HIDDEN)] * 2 + [(steps, 1, 4 * HIDDEN)] * 2
    carry, gates = list(torch.randn(2, 2, 1, HIDDEN)), list(torch.randn(2, steps, 1, 4 * HIDDEN))
    expected = cell(*carry, *gates)
    by_delegate, states = DelegatedCell(cell, lowered).advance(carry, gates, [])
    assert largest_difference([*by_delegate, states], expected) < 1e-6


class CountingCell(LstmCell):
    """A cell with a step that XNNPACK cannot take."""

    def step(self, gates: Tensor, carry: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
        """LSTM's, with an error function in it."""
        hidden, cell = super().step(gates, carry, constants)
        return [torch.erf(hidden), cell]


def test_a_cell_that_is_not_one_delegate_is_refused() -> None:
    layer = make_layers(nn.LSTM, bidirectional=False)[0]
    with (
        quiet_tools(),
        torch.no_grad(),
        pytest.raises(RuntimeError, match="not supported in XNNPACK"),
    ):
        lower_cell(CountingCell(layer), steps=1, batch=1)


def test_a_delegated_cell_brings_no_weights_of_its_own() -> None:
    stack = as_scans(make_layers(nn.GRU, bidirectional=True), steps=1)
    cell = next(m for m in stack.modules() if isinstance(m, RecurrentCell))
    before = dict(stack.state_dict())
    with quiet_tools(), torch.no_grad():
        delegate_recurrence(stack, batch=1)
    gone = set(before) - set(stack.state_dict())
    assert {name.rsplit(".", 1)[1] for name in gone} == set(dict(cell.named_buffers()))


def test_programs_are_the_same_twice() -> None:
    programs = []
    for _ in range(2):
        with quiet_tools(), torch.no_grad():
            cell = LstmCell(make_layers(nn.LSTM, bidirectional=True)[0])
            programs.append(lower_cell(cell, steps=2, batch=1))
    assert programs[0].processed_bytes == programs[1].processed_bytes
    data = [sorted(p.named_data_store_output.pte_data) for p in programs]
    assert data[0] == data[1] and np.unique(data[0]).size == len(data[0]) > 0
