"""Recurrences whose loop bodies are delegates, run by ExecuTorch, against those of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.lowering.scan_delegate import DelegatedCell, delegate_recurrence, lower_cell
from export.lowering.shortcuts import lower_quickly
from export.quiet import quiet_tools
from export.rewrites.recurrent_cells import LstmCell
from export.rewrites.recurrent_scan import RecurrentScan, RecurrentScans

FEATURES, HIDDEN = 6, 8


class Chain(nn.Module):
    """Recurrent layers one after the other; gives the last one's outputs."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """[batch, time, features] -> [batch, time, directions * hidden]."""
        for layer in self.layers:
            x, _ = layer(x)
        return (x,)


class Abreast(nn.Module):
    """Recurrent layers side by side, each with its initial state; gives outputs and final states.

    `states` are those of all layers one after the other, two for an LSTM.
    """

    def __init__(self, layers: list[nn.Module], carried: list[int]) -> None:
        super().__init__()
        self.layers, self.carried = nn.ModuleList(layers), carried

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """All layers on the same x."""
        results: list[Tensor] = []
        left = list(states)
        for layer, count in zip(self.layers, self.carried, strict=True):
            given, left = left[:count], left[count:]
            outputs, final = layer(x, given[0] if count == 1 else tuple(given))
            results += [outputs, final] if count == 1 else [outputs, *final]
        return tuple(results)


def make_layer(kind: type[nn.RNNBase], *, bidirectional: bool, width: int = FEATURES) -> nn.RNNBase:
    options: dict[str, Any] = {"batch_first": True, "bidirectional": bidirectional}
    layer: nn.RNNBase = kind(width, HIDDEN, **options)  # type: ignore[arg-type]
    for parameter in layer.parameters():  # the default is small: gates would be all but linear
        nn.init.normal_(parameter, std=0.7)
    return layer.eval().requires_grad_(False)


def as_scan(layer: nn.RNNBase, *, steps: int) -> RecurrentScan:
    scan = RecurrentScans().replace(layer)
    assert isinstance(scan, RecurrentScan)
    scan.steps = steps
    return scan.eval().requires_grad_(False)


def run_delegated(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], Any]:
    """Outputs of the module lowered for ExecuTorch, and its execution plan."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    with quiet_tools(), lower_quickly(), torch.no_grad():
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


Case = tuple[type[nn.RNNBase], bool, int]
CASES: dict[int, list[Case]] = {  # by batch: kind, whether bidirectional, steps in a pass
    1: [(nn.LSTM, True, 1), (nn.LSTM, True, 3), (nn.GRU, True, 3), (nn.RNN, False, 4)],
    2: [(nn.LSTM, False, 5), (nn.GRU, False, 1), (nn.RNN, True, 1)],
}


@pytest.mark.parametrize("batch", CASES)
def test_outputs_and_states_equal_those_of_torch(batch: int) -> None:
    """13 steps: of the numbers of steps in a pass only 1 divides that."""
    torch.manual_seed(0)
    cases = CASES[batch]
    layers = [make_layer(kind, bidirectional=both) for kind, both, _ in cases]
    carried = [2 if kind is nn.LSTM else 1 for kind, _, _ in cases]
    shapes = [(1 + both, batch, HIDDEN) for _, both, _ in cases]
    states = [torch.randn(s) for s, n in zip(shapes, carried, strict=True) for _ in range(n)]
    inputs = (torch.randn(batch, 13, FEATURES), *states)
    expected = Abreast(list(layers), carried)(*inputs)
    scans = [
        as_scan(layer, steps=steps) for layer, (_, _, steps) in zip(layers, cases, strict=True)
    ]
    outputs, plan = run_delegated(Abreast(list(scans), carried), inputs)
    assert largest_difference(outputs, expected) < 2e-6
    # All arithmetic is in delegates: outside are copies, fills and the loop's counter.
    names = {operator.name for operator in plan.operators}
    assert not names & {f"aten::{n}" for n in ("bmm", "mm", "addmm", "sigmoid", "tanh", "mul")}


def test_layers_keep_their_own_weights() -> None:
    """Loops whose bodies look alike must not become one, nor share the wrong data."""
    torch.manual_seed(0)
    layers = [
        make_layer(nn.LSTM, bidirectional=True, width=width)
        for width in (FEATURES, 2 * HIDDEN, 2 * HIDDEN)
    ]
    inputs = (torch.randn(1, 11, FEATURES),)
    expected = Chain(list(layers))(*inputs)
    exchanged = Chain([layers[0], layers[2], layers[1]])(*inputs)
    outputs, plan = run_delegated(Chain([as_scan(layer, steps=1) for layer in layers]), inputs)
    assert largest_difference(outputs, expected) < 2e-6
    assert largest_difference(outputs, exchanged) > 1e-2
    kinds = [type(i.instr_args).__name__ for chain in plan.chains for i in chain.instructions]
    assert kinds.count("JumpFalseCall") == 3


@pytest.mark.parametrize("steps", [1, 2])
def test_inputs_and_outputs_of_a_delegate_keep_their_order(steps: int) -> None:
    layer = make_layer(nn.LSTM, bidirectional=True)
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
    layer = make_layer(nn.LSTM, bidirectional=False)
    with (
        quiet_tools(),
        torch.no_grad(),
        pytest.raises(RuntimeError, match="not supported in XNNPACK"),
    ):
        lower_cell(CountingCell(layer), steps=1, batch=1)


def test_a_delegated_cell_brings_no_weights_of_its_own() -> None:
    scan = as_scan(make_layer(nn.GRU, bidirectional=True), steps=1)
    before = set(scan.state_dict())
    with quiet_tools(), lower_quickly(), torch.no_grad():
        delegate_recurrence(scan, batch=1)
    assert before - set(scan.state_dict()) == {"cell.weight", "cell.new_bias"}


def test_programs_are_the_same_twice() -> None:
    cell = LstmCell(make_layer(nn.LSTM, bidirectional=True))
    programs = []
    for _ in range(2):
        with quiet_tools(), torch.no_grad():
            programs.append(lower_cell(cell, steps=2, batch=1))
    assert programs[0].processed_bytes == programs[1].processed_bytes
    data = [sorted(p.named_data_store_output.pte_data) for p in programs]
    assert data[0] == data[1] and np.unique(data[0]).size == len(data[0]) > 0
