"""ExecuTorch with XNNPACK: one `.pte` file, recurrence as a loop, everything delegated.

The body of each loop is a delegate too, unless the recipe's option `recurrence` is `scan`, which
leaves it to ExecuTorch's portable kernels: much slower, and computed by other code.

Windows have a fixed length: ExecuTorch plans memory for one shape, and XNNPACK packs for it.
"""

from __future__ import annotations

import copy
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RecipeError
from ..lowering.scan_delegate import delegate_recurrence
from ..models.base import MODELS
from ..quiet import quiet_tools
from ..types import GraphStats, ModelSpec, Recipe
from .base import fp_recipes, register_backend

DELEGATED = "delegated"
RECURRENCES = (DELEGATED, "scan")

fp_recipes("executorch_xnnpack", fp16_compute=None)


@register_backend("executorch_xnnpack")
class ExecuTorchXnnpack:
    """Canonical module -> ExecuTorch program whose loops are scans."""

    suffix = ".pte"
    rewrites: tuple[str, ...] = (
        "sincnet_filterbank",
        "wav_norm_affine",
        "centred_convolutions",
        "centred_rectifier",
        "sincnet_4d",
        "polyphase_convolution",
        "recurrent_scan",
    )

    def unavailable(self) -> str | None:
        """Always available: executorch is a dependency."""
        return None

    def refuses(self, spec: ModelSpec, recipe: Recipe) -> str | None:
        """Windows of free length, and kinds of recurrence other than the two."""
        if recipe.options.get("dynamic_length", False):
            return "ExecuTorch plans memory, and XNNPACK packs weights, for windows of one length"
        if (kind := _recurrence(recipe)) not in RECURRENCES:
            return f"option recurrence is {kind!r}, not one of {', '.join(RECURRENCES)}"
        return None

    def export(self, module: nn.Module, spec: ModelSpec, recipe: Recipe, out: Path) -> GraphStats:
        """Write the `.pte`; raises `RecipeError` on a recurrence that would be unrolled."""
        module = copy.deepcopy(module).eval().requires_grad_(False)
        _refuse_native_recurrence(module, recipe)
        weight_bytes = _size(module)
        inputs = MODELS[spec.architecture].example_inputs(spec)
        with quiet_tools(), torch.no_grad():
            if _recurrence(recipe) == DELEGATED:
                delegate_recurrence(module, batch=inputs[0].shape[0])
            program = _lower(module, inputs)
        out.write_bytes(program.buffer)
        return _stats(program.executorch_program, weight_bytes=weight_bytes)

    def tool_versions(self) -> dict[str, str]:
        """The exporter and the lowering."""
        return {name: version(name) for name in ("torch", "executorch")}


def _recurrence(recipe: Recipe) -> object:
    return recipe.options.get("recurrence", DELEGATED)


def _size(module: nn.Module) -> int:
    """Bytes of all weights, shared ones counted once."""
    tensors = {tensor.data_ptr(): tensor for tensor in module.state_dict().values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _refuse_native_recurrence(module: nn.Module, recipe: Recipe) -> None:
    for name, child in module.named_modules():
        if isinstance(child, nn.RNNBase):
            raise RecipeError(
                f"{recipe.backend}/{recipe.name}",
                found=f"layer {name} is a {type(child).__name__} that no rewrite makes a scan",
                expected="one-layer recurrences without projected outputs",
                todo="ExecuTorch would unroll it into thousands of nodes.",
            )


def _lower(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """Export, delegate to XNNPACK, emit: an ExecutorchProgramManager."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(module, inputs)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    return edge.to_executorch()


def _stats(program: Any, *, weight_bytes: int) -> GraphStats:
    """Instructions of the emitted program by operator, loops counted once."""
    (plan,) = program.execution_plan
    operators: Counter[str] = Counter()
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            kind = type(call).__name__
            if kind == "KernelCall":
                operator = plan.operators[call.op_index]
                operators[f"{operator.name}.{operator.overload}".removesuffix(".")] += 1
            elif kind == "DelegateCall":
                operators[plan.delegates[call.delegate_index].id] += 1
            else:
                operators[kind] += 1
    return GraphStats(
        operators=dict(sorted(operators.items())),
        delegates=len(plan.delegates),
        weight_bytes=weight_bytes,
    )
