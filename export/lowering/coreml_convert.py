"""A traced module as a Core ML program: its shapes, its target, and what is computed in float16.

Conversion goes through a TorchScript trace: coremltools 9.0 fails on `lstm` in a `torch.export`
graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import RecipeError
from ..models.base import MODELS
from ..types import ModelSpec, Precision, Recipe, TensorSpec

RECURRENT = "lstm"

TARGETS = ("iOS17", "iOS18")
"""Values of a recipe's option `target`; the first is the default."""

LONGEST_S = 60.0
"""Of windows whose length is free: Core ML plans memory for the longest it may be given."""


def convert(module: nn.Module, spec: ModelSpec, recipe: Recipe) -> Any:
    """coremltools' MLModel of a module whose inputs are those of the spec, all in float32.

    Raises `RecipeError` on a target that is not known.
    """
    import coremltools as ct
    import numpy as np

    inputs = MODELS[spec.architecture].example_inputs(spec)
    with torch.no_grad():
        traced = torch.jit.trace(module, inputs, check_trace=False)  # type: ignore[no-untyped-call]
    half = recipe.activation_precision is Precision.FP16
    # Declared types: from iOS 16 on, fp16 would otherwise reach the inputs and outputs too.
    return ct.convert(
        traced,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, target(recipe)),
        inputs=[
            ct.TensorType(name=t.name, shape=_shape(t, spec, recipe), dtype=np.float32)
            for t in spec.inputs
        ],
        outputs=[ct.TensorType(name=t.name, dtype=np.float32) for t in spec.outputs],
        compute_precision=(
            ct.transform.FP16ComputePrecision(op_selector=_from_first_recurrence)
            if half
            else ct.precision.FLOAT32
        ),
        skip_model_load=True,
    )


def target(recipe: Recipe) -> str:
    """The oldest system that a recipe's packages are for, by coremltools' name."""
    wanted = recipe.options.get("target", TARGETS[0])
    if wanted not in TARGETS:
        raise RecipeError(
            f"{recipe.backend}/{recipe.name}",
            found=f"target is {wanted!r}",
            expected=f"one of {', '.join(TARGETS)}",
        )
    return str(wanted)


def _shape(tensor: TensorSpec, spec: ModelSpec, recipe: Recipe) -> Any:
    """The shape of an input: the spec's, or one that is free where the window's length is."""
    import coremltools as ct

    geometry = spec.geometry
    free = bool(recipe.options.get("dynamic_length", False))
    if tensor is not spec.inputs[0] or not free:
        return tensor.shape
    shortest = geometry.receptive_field_samples + geometry.frame_step_samples  # two frames
    longest = max(geometry.window_samples, round(LONGEST_S * geometry.sample_rate_hz))
    samples = ct.RangeDim(shortest, longest, default=geometry.window_samples)
    return (*tensor.shape[:-1], samples)


def _from_first_recurrence(operation: Any) -> bool:
    """Whether an operation is a recurrent one or computes from the output of one."""
    pending, seen = [operation], set()
    while pending:
        op = pending.pop()
        if op.op_type == RECURRENT:
            return True
        for given in op.inputs.values():
            for var in given if isinstance(given, list | tuple) else [given]:
                if var.op is not None and var.op not in seen:
                    seen.add(var.op)
                    pending.append(var.op)
    return False
