"""The body of a recurrent scan as one call of an XNNPACK delegate.

ExecuTorch emits a scan as a loop but runs its body on portable kernels, and XNNPACK takes weights
only where they are constants, which inside a scan they are not. So the cell is lowered alone, with
its weights, and the scan's body calls what came out. It is lowered whole: what XNNPACK cannot take
raises, and inputs and outputs keep their order. Every layer has a delegate of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..rewrites.recurrent_cells import RecurrentCell
from ..rewrites.recurrent_scan import RecurrentScan

BACKEND_ID = "XnnpackBackend"


class DelegatedCell(nn.Module):
    """Stands for a cell in a RecurrentScan: same shapes, computed by a delegate.

    It holds no weights: those are in the delegate, and would be written twice.
    """

    def __init__(self, cell: RecurrentCell, lowered: Any) -> None:
        super().__init__()
        self.hidden_size, self.gates, self.carried = cell.hidden_size, cell.gates, cell.carried
        self.directions, self.constants = cell.directions, list[Tensor]()
        self._lowered = (lowered,)  # in a tuple: it is no submodule, and its weights are not ours

    def advance(
        self, carry: list[Tensor], gates: list[Tensor], constants: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """The steps that the delegate was made for."""
        from torch._higher_order_ops.executorch_call_delegate import executorch_call_delegate

        results = list(executorch_call_delegate(self._lowered[0], *carry, *gates))
        return results[:-1], results[-1]


def delegate_recurrence(module: nn.Module, *, batch: int) -> None:
    """Make every scan in the module, in place, one whose body is a delegate.

    The delegates are for this batch size and each scan's number of steps.
    """
    for layer in module.modules():
        if isinstance(layer, RecurrentScan) and isinstance(layer.cell, RecurrentCell):
            lowered = lower_cell(layer.cell, steps=layer.steps, batch=batch)
            layer.cell = DelegatedCell(layer.cell, lowered)


def lower_cell(cell: RecurrentCell, *, steps: int, batch: int) -> Any:
    """The cell as executorch's LoweredBackendModule: one delegate and nothing beside it."""
    import executorch.backends.xnnpack.xnnpack_preprocess  # noqa: F401 - registers the backend
    from executorch.backends.xnnpack.utils.configs import get_xnnpack_edge_compile_config
    from executorch.exir import to_edge
    from executorch.exir.backend.backend_api import to_backend

    weight = cell.constants[0]
    shapes = [(cell.directions, batch, cell.hidden_size)] * cell.carried
    shapes += [(steps, batch, cell.gates * cell.hidden_size)] * cell.directions
    # A tensor for each: export takes the same tensor given twice for one input.
    exported = torch.export.export(cell, tuple(weight.new_zeros(shape) for shape in shapes))
    config = get_xnnpack_edge_compile_config()
    config.preserve_ops = [torch.ops.aten.linear.default]  # taken apart, it could be no int8 one
    edge = to_edge(exported, compile_config=config)
    return to_backend(BACKEND_ID, edge.exported_program(), [])
