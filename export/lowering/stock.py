"""ExecuTorch's own lowering, as its documentation has it: what ours is measured against.

The recurrence is unrolled over time, and what XNNPACK does not take stays on portable kernels.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoint import LoadedModel
from ..models.base import MODELS
from ..quiet import quiet_tools
from ..rewrites.base import apply_rewrites
from .shortcuts import lower_quickly

# Without it nothing can be exported at all: the filters are computed at every call.
NEEDED = ("sincnet_filterbank",)


def lower_as_documented(model: LoadedModel, out: Path) -> None:
    """Write a `.pte` by `torch.export` and the XNNPACK partitioner alone; takes minutes a layer."""
    architecture = MODELS[model.spec.architecture]
    module = apply_rewrites(architecture.canonical(model.module), NEEDED).eval()
    inputs = architecture.example_inputs(model.spec)
    with quiet_tools(), lower_quickly(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(module, inputs)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        out.write_bytes(edge.to_executorch().buffer)
