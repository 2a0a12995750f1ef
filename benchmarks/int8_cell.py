"""What one step of a bidirectional LSTM costs in XNNPACK by how its product is computed.

    python benchmarks/int8_cell.py --rounds 400

Calls of the delegates alone, in turns of ten, hidden size 128, one thread. Every call also pays for
Python and for the other nodes of the step: the first line has nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.lowering.int8_dynamic import DynamicLinear, DynamicProduct
from export.lowering.scan_delegate import lower_cell
from export.quiet import quiet_tools
from export.rewrites.recurrent_cells import LstmCell

HIDDEN, TURN = 128, 10


class NoProduct(nn.Module):
    """The hidden state beside itself, so that the step needs it and multiplies nothing."""

    def __init__(self, _weight: Tensor) -> None:
        super().__init__()

    def forward(self, hidden: Tensor, _unused: Tensor) -> Tensor:
        """[directions, batch, hidden] -> [directions, batch, 4 * hidden]."""
        return torch.cat([hidden] * 4, dim=2)


class SideBySide(nn.Module):
    """Both directions' states with both weights in one product, of which half is thrown away."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.both = DynamicLinear(torch.cat([each.t() for each in weight]), None)

    def forward(self, hidden: Tensor, _unused: Tensor) -> Tensor:
        """[directions, batch, hidden] -> [directions, batch, 4 * hidden]."""
        shares = self.both(hidden)
        size = shares.shape[2] // 2
        return torch.cat([shares[:1, :, :size], shares[1:, :, size:]])


FORMS: dict[str, Callable[[Tensor], nn.Module] | None] = {
    "no product": NoProduct,
    "float32, both directions in one": None,
    "int8, one a direction (ours)": DynamicProduct,
    "int8, weights side by side": SideBySide,
}


def main() -> None:
    """Lower, take turns, print microseconds a call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    layer = nn.LSTM(60, HIDDEN, bidirectional=True).eval().requires_grad_(False)
    inputs = [torch.randn(2, 1, HIDDEN) for _ in range(2)]
    inputs += [torch.randn(1, 1, 4 * HIDDEN) for _ in range(2)]
    with quiet_tools(), torch.no_grad():
        loaded = {name: load(layer, form) for name, form in FORMS.items()}
    samples: dict[str, list[float]] = {name: [] for name in loaded}
    for index in range(rounds):
        for name, (_, method) in loaded.items():
            for _ in range(TURN):
                start = time.perf_counter()
                method.execute(inputs)
                if index:  # the first round warms up
                    samples[name].append((time.perf_counter() - start) * 1e6)
    for name, spent in samples.items():
        low, middle = np.percentile(spent, [10, 50])
        sys.stdout.write(f"{name:34} p10 {low:6.2f}  p50 {middle:6.2f} microseconds\n")


def load(layer: nn.LSTM, form: Callable[[Tensor], nn.Module] | None) -> tuple[Any, Any]:
    """The step with this product as a program, and its method, which does not keep it."""
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    cell = LstmCell(layer)
    if form is not None:
        cell.product = form(cell.get_buffer("weight"))
    if portable_lib._threadpool_get_thread_count() != 1:
        portable_lib._unsafe_reset_threadpool(1)
    program = Runtime.get().load_program(lower_cell(cell, steps=1, batch=1).buffer())
    return program, program.load_method("forward")


if __name__ == "__main__":
    main()
