"""Core ML ML Programs for iOS 17 and macOS 14: native LSTM operations, one package directory.

Conversion goes through a TorchScript trace: coremltools 9.0 fails on `lstm` in a `torch.export`
graph. Exporting needs no Mac, running does (`runtime_checks/runners/coreml_mlprogram.py`).

In fp16 everything before the first LSTM stays in float32: SincNet divides by the deviation of the
window and its filters cancel what they do not pass. With pyannote/segmentation on 12 five-second
windows of AMI's development meetings a package wholly in float16 is off by up to 0.15 (0.10 under a
DC offset), one with its front-end in float32 by 0.013, on a window where PyTorch's own float32 is
off by 0.018. That costs 125 kB.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import RecipeError
from ..models.base import MODELS
from ..types import GraphStats, ModelSpec, Precision, Recipe, RuntimeOption
from .base import fp_recipes, register_backend

MANIFEST = "Manifest.json"
RECURRENT = "lstm"
ENGINE = "Core ML"
# What Core ML goes through one operation at a time, on the CPU.
CONTROL_FLOW = frozenset({"cond", "while_loop"})

fp_recipes("coreml_mlprogram", fp16_compute=True)


@register_backend("coreml_mlprogram")
class CoreMLProgram:
    """Canonical module -> .mlpackage with float32 inputs and outputs."""

    suffix = ".mlpackage"
    rewrites: tuple[str, ...] = (
        "sincnet_filterbank",
        "wav_norm_affine",
        "mfcc_dft",
        "log_softmax",
    )

    def unavailable(self) -> str | None:
        """None wherever coremltools' libraries for writing packages load."""
        with _quiet():
            try:
                import coremltools.libmilstoragepython
                import coremltools.libmodelpackage  # noqa: F401
            except ImportError as error:
                return f"coremltools cannot write packages here ({error})"
        return None

    def refuses(self, spec: ModelSpec, recipe: Recipe) -> str | None:
        """Windows of a free length: the shapes of a package are fixed at conversion."""
        if recipe.options.get("dynamic_length", False):
            return "Core ML packages are made for windows of one fixed length"
        return None

    def export(self, module: nn.Module, spec: ModelSpec, recipe: Recipe, out: Path) -> GraphStats:
        """Write the package directory; raises `RecipeError` on what `refuses` refuses."""
        if reason := self.refuses(spec, recipe):
            raise RecipeError(f"{recipe.backend}/{recipe.name}", found=reason)
        with _quiet():
            model = _convert(module, spec, half=recipe.activation_precision is Precision.FP16)
            model.save(str(out))
            proto = model.get_spec()
        stats = _stats(proto)
        _describe(proto, spec)
        _normalise(out, proto)
        return stats

    def tool_versions(self) -> dict[str, str]:
        """The tracer and the converter."""
        return {name: version(name) for name in ("torch", "coremltools")}

    def runtime_options(self) -> dict[str, RuntimeOption]:
        """None: Core ML chooses by itself, and what it chooses can be measured on a Mac only."""
        return {}

    def fallbacks(self, stats: GraphStats, recipe: Recipe) -> dict[str, int]:
        """Control flow; on which engine the rest runs, Core ML decides on the device."""
        return {name: n for name, n in stats.operators.items() if name in CONTROL_FLOW}


def _convert(module: nn.Module, spec: ModelSpec, *, half: bool) -> Any:
    import coremltools as ct
    import numpy as np

    inputs = MODELS[spec.architecture].example_inputs(spec)
    with torch.no_grad():
        traced = torch.jit.trace(module, inputs, check_trace=False)
    # Declared types: from iOS 16 on, fp16 would otherwise reach the inputs and outputs too.
    return ct.convert(
        traced,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        inputs=[
            ct.TensorType(name=tensor.name, shape=tensor.shape, dtype=np.float32)
            for tensor in spec.inputs
        ],
        outputs=[ct.TensorType(name=tensor.name, dtype=np.float32) for tensor in spec.outputs],
        compute_precision=(
            ct.transform.FP16ComputePrecision(op_selector=_from_first_recurrence)
            if half
            else ct.precision.FLOAT32
        ),
        skip_model_load=True,
    )


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


def _stats(proto: Any) -> GraphStats:
    """Operations by type (constants apart) and the bytes of all floating-point constants."""
    from coremltools.proto import MIL_pb2

    size_bytes = {MIL_pb2.DataType.FLOAT16: 2, MIL_pb2.DataType.FLOAT32: 4}
    function = proto.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    weights = 0
    for op in operations:
        if op.type == "const":
            tensor = op.outputs[0].type.tensorType
            sizes = [dimension.constant.size for dimension in tensor.dimensions]
            weights += math.prod(sizes) * size_bytes.get(tensor.dataType, 0)
    counts = dict(sorted(Counter(op.type for op in operations if op.type != "const").items()))
    return GraphStats(
        operators=counts, delegates=0, weight_bytes=weights, delegated={ENGINE: counts}
    )


def _describe(proto: Any, spec: ModelSpec) -> None:
    """Replace coremltools' metadata, which holds the day of conversion, by the model's contract."""
    geometry = spec.geometry
    metadata = proto.description.metadata
    metadata.Clear()
    metadata.shortDescription = f"{spec.name}: speaker segmentation ({spec.activation} scores)"
    metadata.license = spec.licence
    for key, value in {
        "architecture": spec.architecture,
        "classes": ",".join(spec.classes),
        "frame_step_samples": geometry.frame_step_samples,
        "receptive_field_samples": geometry.receptive_field_samples,
        "sample_rate_hz": geometry.sample_rate_hz,
    }.items():
        metadata.userDefined[key] = str(value)


def _normalise(package: Path, proto: Any) -> None:
    """Leave nothing in the package that depends on the run rather than on the inputs."""
    path = package / MANIFEST
    manifest = json.loads(path.read_text())
    renamed = {
        old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"]))
        for old, item in manifest["itemInfoEntries"].items()
    }
    root = manifest["rootModelIdentifier"]
    model_file = package / "Data" / manifest["itemInfoEntries"][root]["path"]
    model_file.write_bytes(proto.SerializeToString(deterministic=True))
    model_file.chmod(0o644)  # coremltools makes it from a temporary file that only its owner reads
    manifest["itemInfoEntries"] = {
        renamed[old]: item for old, item in manifest["itemInfoEntries"].items()
    }
    manifest["rootModelIdentifier"] = renamed[root]
    path.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, log lines below errors or progress bars; exceptions pass as ever."""
    from tqdm import tqdm

    disabled, make_bar = logging.root.manager.disable, tqdm.__init__
    logging.disable(logging.WARNING)
    tqdm.__init__ = functools.partialmethod(make_bar, disable=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = make_bar
        logging.disable(disabled)
