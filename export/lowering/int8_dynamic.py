"""Products with int8 weights whose inputs are quantised as they come: XNNPACK's qd8.

Each row of an input gets a scale and a zero point from its own range, in every call. XNNPACK finds
such a product as a linear layer between the operators that PyTorch has for quantising, and computes
it on integers; outside of it everything is float32.

For a recurrence that is one product a direction: XNNPACK computes the product of a batch of
matrices, which the float32 cell has for both directions, on integers only with scales that
ExecuTorch does not write.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from ..compress.int8_matrices import int8_rows
from ..rewrites.recurrent_cells import RecurrentCell

SMALLEST, LARGEST = -128, 127
DEQUANTISE = "quantized_decomposed.dequantize_per_channel.default"
PRODUCTS = ("aten.linear.default", "aten.convolution.default")
NOT_MULTIPLIED = "int8 weights that no delegate multiplies"


class DynamicLinear(nn.Module):
    """A linear layer, [..., in] -> [..., out], on int8 weights and dynamically quantised inputs."""

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # registers the operators

        integers, scales = int8_rows(weight.detach())
        self.register_buffer("weight", integers)
        self.register_buffer("scales", scales)
        # Constants of the graph that no file holds: symmetric weights have none.
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        self.register_buffer("zero_points", zeros, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Rows of x quantised, multiplied, in float32 again."""
        operators: Any = torch.ops.quantized_decomposed
        scales, zero_points = operators.choose_qparams_per_token_asymmetric(x, torch.int8)
        span = (SMALLEST, LARGEST, torch.int8)
        rows = operators.quantize_per_token(x, scales, zero_points, *span)
        rows = operators.dequantize_per_token(rows, scales, zero_points, *span, torch.float32)
        weight = operators.dequantize_per_channel(
            self.weight, self.scales, self.zero_points, 0, *span
        )
        return nn.functional.linear(rows, weight, self.bias)


class DynamicProduct(nn.Module):
    """The recurrent product of a cell, a dynamic linear layer for each direction."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.directions = nn.ModuleList(DynamicLinear(each.t(), None) for each in weight)

    def forward(self, hidden: Tensor, _weight: Tensor) -> Tensor:
        """[directions, batch, hidden] -> [directions, batch, gates * hidden]."""
        shares = [linear(hidden[d : d + 1]) for d, linear in enumerate(self.directions)]
        return torch.cat(shares) if len(shares) > 1 else shares[0]


def quantise_dynamically(module: nn.Module, *, skip: Collection[str] = (), at: str = "") -> None:
    """Linear layers and the products of recurrent cells made dynamic, in place.

    What is named in `skip`, or below it, stays in float; `at` is the module's own name.
    """
    if at in skip:
        return
    for name, child in list(module.named_children()):
        full = f"{at}.{name}" if at else name
        if isinstance(child, nn.Linear) and full not in skip:
            setattr(module, name, DynamicLinear(child.weight, child.bias))
        else:
            quantise_dynamically(child, skip=skip, at=full)
    if isinstance(module, RecurrentCell):
        weight = module.get_buffer("weight")
        module.product = DynamicProduct(weight)
        module.weight = weight.new_empty(0)


def int8_values(module: nn.Module) -> int:
    """How many int8 weights a module holds."""
    return sum(t.numel() for t in module.state_dict().values() if t.dtype == torch.int8)


def count_int8(graph_module: Any, *, expected: int) -> tuple[dict[str, int], dict[str, int]]:
    """`stored` and `not_smaller` of GraphStats for a lowered graph with so many int8 weights.

    A partitioner that does not know the operators around a product leaves it in float32 and says
    nothing, so the delegates are searched for products with integers.
    """
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    found = sum(
        _multiplied(module.original_module.graph)
        for module in graph_module.modules()
        if isinstance(module, LoweredBackendModule)
    )
    missing = {NOT_MULTIPLIED: expected - found} if found < expected else {}
    return {"int8": found} if found else {}, missing


def _multiplied(graph: Any) -> int:
    """Values of the int8 tensors that a delegate's layers multiply, each tensor once."""
    tensors = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.target.__name__ in PRODUCTS:
            given = node.args[1]
            if given.op == "call_function" and given.target.__name__ == DEQUANTISE:
                tensors[given.args[0].name] = given.args[0].meta["val"].numel()
    return sum(tensors.values())
