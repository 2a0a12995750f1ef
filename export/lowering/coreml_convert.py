"""A traced module as a Core ML program: its shapes, its target, and what is computed in float16.

Conversion goes through a TorchScript trace: coremltools 9.0 fails on `lstm` in a `torch.export`
graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..compress.half_weights import first_in_float32
from ..models.base import example_inputs
from ..types import ModelSpec, Precision, Recipe, Role, TensorSpec
from .coreml_repairs import forget_names, plain_attention

RECURRENT = "lstm"

TARGETS = ("iOS17", "iOS18")
"""Values of a recipe's option `target`; the first is the default."""

LENGTHS = "lengths_samples"
"""The option that lists the lengths of windows: Core ML makes ready for each, so that it can use
what takes fixed shapes only."""

LONGEST_S = 60.0
"""Of windows whose length is free: Core ML plans memory for the longest it may be given."""


def convert(module: nn.Module, spec: ModelSpec, recipe: Recipe) -> Any:
    """coremltools' MLModel of a module whose inputs are those of the spec, all in float32.

    With the recipe's option `dynamic_length` the window is of any length, with `lengths_samples` of
    these and the spec's. `why_not_convertible` tells which options raise.
    """
    import coremltools as ct
    import numpy as np

    forget_names()
    inputs = example_inputs(spec)
    with torch.no_grad(), plain_attention():
        traced = torch.jit.trace(module, inputs, check_trace=False)  # type: ignore[no-untyped-call]
    # Pooling in float16 is none: embedding networks compute in float32 (`coreml_exact`).
    half = recipe.activation_precision is Precision.FP16 and spec.role is Role.SEGMENTATION
    # Declared types: from iOS 16 on, fp16 would otherwise reach the inputs and outputs too.
    return ct.convert(
        traced,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, str(recipe.options.get("target", TARGETS[0]))),
        inputs=[
            ct.TensorType(name=t.name, shape=_shape(t, spec, recipe), dtype=np.float32)
            for t in spec.inputs
        ],
        outputs=[ct.TensorType(name=t.name, dtype=np.float32) for t in spec.outputs],
        compute_precision=(
            ct.transform.FP16ComputePrecision(op_selector=_behind(module, recipe))
            if half
            else ct.precision.FLOAT32
        ),
        skip_model_load=True,
    )


LOOP = "while_loop"
LOOPING = frozenset({"SincRnnNet"})
"""Architectures whose recurrent layers are no LSTMs."""


def why_not_convertible(spec: ModelSpec, recipe: Recipe) -> str | None:
    """What of a recipe's options Core ML does not have, or None."""
    wanted, lengths = recipe.options.get("target", TARGETS[0]), recipe.options.get(LENGTHS, [])
    shortest = _shortest(spec)
    if wanted not in TARGETS:
        return f"target is {wanted!r}, not one of {', '.join(TARGETS)}"
    if not isinstance(lengths, list) or not all(type(n) is int and n >= shortest for n in lengths):
        return f"{LENGTHS} is {lengths!r}, not a list of whole numbers from {shortest} on"
    if lengths and recipe.options.get("dynamic_length", False):
        return f"windows are of any length, or of those in {LENGTHS}, not both"
    allowed = recipe.options.get("allow", [])
    if spec.architecture in LOOPING and not (isinstance(allowed, list) and LOOP in allowed):
        return (
            f"coremltools makes a {LOOP} of GRU and RNN layers, which Core ML steps through on the "
            f"CPU; --allow {LOOP} builds it all the same"
        )
    if spec.architecture in LOOPING and recipe.activation_precision is not Precision.FP32:
        return (
            f"{recipe.name} computes in float16 behind the front-end, and what is in a {LOOP} "
            "coremltools leaves in float32; fp32 is the recipe for GRU and RNN layers"
        )
    return None


def _shape(tensor: TensorSpec, spec: ModelSpec, recipe: Recipe) -> Any:
    """The shape of an input: the spec's, or one that is free where the window's length is."""
    import coremltools as ct

    if tensor is not spec.inputs[0]:
        return tensor.shape
    around, window = tensor.shape[:-1], spec.geometry.window_samples
    if recipe.options.get("dynamic_length", False):
        longest = max(window, round(LONGEST_S * spec.geometry.sample_rate_hz))
        return (*around, ct.RangeDim(_shortest(spec), longest, default=window))
    lengths: Any = recipe.options.get(LENGTHS, [])
    if lengths:
        shapes = [(*around, samples) for samples in sorted({window, *lengths})]
        return ct.EnumeratedShapes(shapes, default=tensor.shape)
    return tensor.shape


def _shortest(spec: ModelSpec) -> int:
    """Samples of two frames, below which norms over time have no deviation."""
    return spec.geometry.receptive_field_samples + spec.geometry.frame_step_samples


def _behind(module: nn.Module, recipe: Recipe) -> Callable[[Any], bool]:
    """Whether an operation is computed in float16: it is the first recurrent one that is, or behind
    it."""
    wide = first_in_float32(module, small=recipe.weight_precision is not Precision.FP16)

    def selects(operation: Any) -> bool:
        pending, seen = [operation], {operation}
        while pending:
            op = pending.pop()
            for given in op.inputs.values():
                for var in given if isinstance(given, list | tuple) else [given]:
                    if var.op is not None and var.op not in seen:
                        seen.add(var.op)
                        pending.append(var.op)
        return len([op for op in seen if op.op_type == RECURRENT]) > wide

    return selects
