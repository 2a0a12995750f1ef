"""Core ML ML Programs for iOS 17 and macOS 14: native LSTM operations, one package directory.

Exporting needs no Mac, running does (`runtime_checks/runners/coreml_mlprogram.py`).

In fp16 everything before the first LSTM stays in float32: SincNet divides by the deviation of the
window and its filters cancel what they do not pass. So does the first half of the LSTMs, whose
rounding all others see. Inputs and outputs are float32. docs/coreml.md has the figures.

Embedding networks compute in float32 in all recipes, which store their weights smaller.

Recipes with small weights compute as fp16 does and store their weights by coremltools' compression;
4-bit blocks, several palettes a matrix and pruned integers need iOS 18.
"""

from __future__ import annotations

import functools
import json
import logging
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ..compress.base import COMPRESSIONS, method_of
from ..compress.layers import layers_in_float
from ..compress.small_weights import SMALLEST, SmallWeights, matrices, transforms
from ..errors import RecipeError
from ..lowering.coreml_convert import convert, why_not_convertible
from ..lowering.coreml_exact import store_rounded
from ..lowering.coreml_small import LEFT, store_small, store_transforms
from ..lowering.coreml_stats import CONTROL_FLOW, program_stats
from ..lowering.shortcuts import convert_quickly
from ..models.pyannet import SegmentationNet
from ..recipes import refuse
from ..types import GraphStats, ModelSpec, Precision, Recipe, Role, RuntimeOption
from .base import FORMS, fp_recipes, register_backend, register_recipe

MANIFEST = "Manifest.json"
# Methods that leave the weights to the types of what they are computed with.
FLOATS = (None, "half_behind")

fp_recipes("coreml_mlprogram", fp16_compute=None)
# Promised sizes beside fp32 hold for the smallest students, whose front-ends weigh most.
for _name, _precision, _size, _options in (
    ("fp16", Precision.FP16, 0.7, {"compression": "half_behind"}),
    ("int8-weights", Precision.INT8, 0.3, {}),
    ("palette-8", Precision.PALETTE_8, 0.3, {}),
    ("palette-6", Precision.PALETTE_6, 0.3, {}),
    ("palette-4", Precision.PALETTE_4, 0.3, {"target": "iOS18"}),
    ("int4-weights", Precision.INT4, 0.3, {"target": "iOS18"}),
    ("pruned-int8", Precision.INT8, 0.3, {"target": "iOS18", "compression": "pruned-int8"}),
):
    register_recipe(
        Recipe(
            name=_name,
            backend="coreml_mlprogram",
            weight_precision=_precision,
            activation_precision=Precision.FP16,
            options={**_options, "promises": {"size": _size}},
        )
    )

_FLOATS = "coremltools quantises activations by running Core ML, which takes a Mac"
refuse(
    "coreml_mlprogram",
    {
        "int8-dynamic": "Core ML computes in floats: int8-weights is stored as small",
        "int8-static": _FLOATS,
        "int8-qat": _FLOATS,
        "w8a16": _FLOATS,
    },
)


@register_backend("coreml_mlprogram")
class CoreMLProgram:
    """Canonical module -> .mlpackage with float32 inputs and outputs."""

    suffix = ".mlpackage"
    forms: tuple[str, ...] = FORMS
    rewrites: tuple[str, ...] = (
        "sincnet_filterbank",
        "wav_norm_affine",
        "mfcc_dft",
        "fbank_dft",
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
        """A target or lengths that do not exist."""
        return why_not_convertible(spec, recipe)

    def export(self, module: nn.Module, spec: ModelSpec, recipe: Recipe, out: Path) -> GraphStats:
        """Write the package directory; raises `RecipeError` on what `refuses` refuses."""
        if reason := self.refuses(spec, recipe):
            raise RecipeError(f"{recipe.backend}/{recipe.name}", found=reason)
        method, small = method_of(recipe), _small(module, recipe)
        with _quiet(), convert_quickly():
            model = convert(module, spec, recipe)
            if spec.role is Role.EMBEDDING:
                model = store_rounded(model) if method is not None else model
            elif method not in FLOATS:
                model = store_small(model, str(method), layers=small.names, halves=small.halves)
            if method is not None:
                model = store_transforms(model)
            model.save(str(out))
            proto = model.get_spec()
        stats = program_stats(proto, expected=small.values, smallest=SMALLEST)
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


class _Small(NamedTuple):
    """What a recipe stores smaller: for each matrix of the network its layer's name (`LEFT` where
    it is skipped), the layers that are float16, and how many values are neither."""

    names: tuple[str, ...]
    halves: frozenset[str]
    values: int


def _small(module: nn.Module, recipe: Recipe) -> _Small:
    method = method_of(recipe)
    compression = None if method in FLOATS else COMPRESSIONS[str(method)]
    if not isinstance(compression, SmallWeights):
        return _Small((), frozenset(), 0)
    net = next((part for part in module.modules() if isinstance(part, SegmentationNet)), None)
    if net is None:
        return _Small((), frozenset(), sum(weight.numel() for _, _, weight in matrices(module)))
    skip = layers_in_float(recipe, net)
    halves = compression.halves(net, skip=skip)
    names = tuple(LEFT if name in skip else name for name, _, _ in matrices(net))
    values = [w.numel() for name, _, w in matrices(net, skip=skip) if name not in halves]
    return _Small(names, halves, sum(values) + sum(t.numel() for t in transforms(net)))


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
