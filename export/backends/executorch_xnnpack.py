"""ExecuTorch with XNNPACK: one `.pte` file, recurrence as a loop, everything delegated.

The body of each loop is a delegate too, unless the recipe's option `recurrence` is `scan`, which
leaves it to ExecuTorch's portable kernels: much slower, and computed by other code.

`int8-dynamic` computes the products of linear and recurrent layers on integers, with the weights of
the compressed model and activations that are quantised as they come (`lowering/int8_dynamic.py`);
the front-end, gates and sums stay float32. `int8-qat` has SincNet's convolutions on integers too,
on the grids of training (`lowering/xnnpack_convolutions.py`); norms, poolings and gates stay.

Windows have a fixed length: ExecuTorch plans memory for one shape, and XNNPACK packs for it.
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..calibration.trained import TRAINED
from ..errors import RecipeError
from ..lowering.int8_dynamic import count_int8, int8_values, quantise_dynamically
from ..lowering.placement import fallbacks, program_stats
from ..lowering.scan_delegate import delegate_recurrence
from ..lowering.shortcuts import lower_quickly
from ..lowering.static_convolutions import why_no_ranges
from ..lowering.xnnpack_convolutions import lower_convolutions
from ..models.base import example_inputs
from ..quiet import quiet_tools
from ..recipes import refuse
from ..types import GraphStats, ModelSpec, Precision, Recipe, RuntimeOption
from .base import fp_recipes, register_backend, register_recipe

DELEGATED = "delegated"
RECURRENCES = (DELEGATED, "scan")

fp_recipes("executorch_xnnpack", fp16_compute=None)
register_recipe(
    Recipe(
        name="int8-dynamic",
        backend="executorch_xnnpack",
        weight_precision=Precision.INT8,
        activation_precision=Precision.INT8,
        options={
            "compression": "int8_matrices",
            "limits": {"decision_flips": 0.3, "delta_der": 0.3},
            "promises": {"size": 0.6, "time": 1.0},
        },
    )
)
register_recipe(
    Recipe(
        name="int8-qat",
        backend="executorch_xnnpack",
        weight_precision=Precision.INT8,
        activation_precision=Precision.INT8,
        options={
            "compression": "int8_matrices",
            TRAINED: True,
            "limits": {"decision_flips": 1.0, "delta_der": 0.5, "unmatched_boundaries": 10.0},
            "promises": {"size": 0.6, "time": 1.0},
        },
    )
)

_FEW_BITS = "XNNPACK's weights are int8, or int4 in blocks that ExecuTorch's LSTM loop cannot hold"
refuse(
    "executorch_xnnpack",
    {
        "fp16": "XNNPACK computes what is stored in float16 in float16: 1.9 times as long as "
        "float32 for a linear layer where the processor has no float16 products",
        "int8-weights": "XNNPACK's delegate takes int8 weights only with quantised inputs, which "
        "is int8-dynamic: outside of it they have no kernel",
        "int8-static": "calibrated ranges give nothing here: XNNPACK's convolutions with fixed "
        "ranges are as fast as those that quantise as it comes, and round what comes out",
        "w8a16": "XNNPACK has no 16-bit integer activations",
        "palette-8": "XNNPACK has no tables of weights",
        "palette-6": "XNNPACK has no tables of weights",
        "palette-4": "XNNPACK has no tables of weights",
        "int4-weights": _FEW_BITS,
        "pruned-int8": "XNNPACK stores zeros as any other value: nothing would be smaller",
    },
)


@register_backend("executorch_xnnpack")
class ExecuTorchXnnpack:
    """Canonical module -> ExecuTorch program whose loops are scans."""

    suffix = ".pte"
    skips_layers = True
    forms: tuple[str, ...] = ("streaming",)
    rewrites: tuple[str, ...] = (
        "sincnet_filterbank",
        "wav_norm_affine",
        "centred_convolutions",
        "centred_rectifier",
        "sincnet_4d",
        "polyphase_convolution",
        "mfcc_dft",
        "fbank_dft",
        "batch_norm_affine",
        "mfcc_4d",
        "recurrent_scan",
    )

    def unavailable(self) -> str | None:
        """Always available: executorch is a dependency."""
        return None

    def refuses(self, spec: ModelSpec, recipe: Recipe) -> str | None:
        """Windows of free length, kinds of recurrence other than the two, integers in streams."""
        if recipe.options.get("dynamic_length", False):
            return "ExecuTorch plans memory, and XNNPACK packs weights, for windows of one length"
        if (kind := _recurrence(recipe)) not in RECURRENCES:
            return f"option recurrence is {kind!r}, not one of {', '.join(RECURRENCES)}"
        if kind != DELEGATED and _is_dynamic(recipe):
            return f"with the recurrence a {kind} nothing would multiply integers in it"
        if recipe.options.get("streaming") and _is_dynamic(recipe):
            return (
                "ExecuTorch leaves the ranges of a hop's integers to a portable kernel "
                "(aten::expand_copy): fp32 is the recipe for stateful artifacts"
            )
        return why_no_ranges(spec, recipe)

    def export(self, module: nn.Module, spec: ModelSpec, recipe: Recipe, out: Path) -> GraphStats:
        """Write the `.pte`; raises `RecipeError` on a recurrence that would be unrolled."""
        module = copy.deepcopy(module).eval().requires_grad_(False)
        _refuse_native_recurrence(module, recipe)
        inputs = example_inputs(spec)
        with quiet_tools(), lower_quickly(), torch.no_grad():
            if _is_dynamic(recipe):
                quantise_dynamically(module, skip=recipe.skip)
                lower_convolutions(module)
            weight_bytes, expected = _size(module), int8_values(module)
            if _recurrence(recipe) == DELEGATED:
                delegate_recurrence(module, batch=inputs[0].shape[0])
            program = _lower(module, inputs)
        out.write_bytes(program.buffer)
        graph = program.exported_program().graph_module
        stats = program_stats(program.executorch_program, graph, weight_bytes=weight_bytes)
        stored, not_smaller = count_int8(graph, expected=expected)
        return stats.model_copy(update={"stored": stored, "not_smaller": not_smaller})

    def runtime_options(self) -> dict[str, RuntimeOption]:
        """One thread: the steps of a recurrence are too short to share out."""
        return {"threads": 1}

    def fallbacks(self, stats: GraphStats, recipe: Recipe) -> dict[str, int]:
        """What runs on portable kernels and is no housekeeping."""
        plain = _recurrence(recipe) != DELEGATED
        return fallbacks(stats, portable_recurrence=plain)

    def tool_versions(self) -> dict[str, str]:
        """The exporter and the lowering."""
        return {name: version(name) for name in ("torch", "executorch")}


def _recurrence(recipe: Recipe) -> object:
    return recipe.options.get("recurrence", DELEGATED)


def _is_dynamic(recipe: Recipe) -> bool:
    return recipe.activation_precision is Precision.INT8


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
