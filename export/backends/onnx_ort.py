"""ONNX for ONNX Runtime: native LSTM nodes, one file, any platform.

The TorchScript exporter keeps `LSTM` as one node a layer; torch 2.13's dynamo exporter fails on it.
fp16 is storage only: a fully fp16 graph crashes ONNX Runtime 1.31 when the session is made, so
weights that float16 holds exactly are stored as such and cast to float32 in the graph, which the
runtime folds when it loads.

Recipes with integers (`lowering/onnx_integers.py`): `int8-dynamic` multiplies in LSTM and linear
layers on int8, `int8-static` in SincNet's last convolution too, `int8-qat` in all of them, on
what training has found (`lowering/integer_convolutions.py`). Norms, poolings and the sigmoid stay
float32; what is left of convolutions is stored in float16.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..calibration.ranges import CALIBRATED, FLOAT_LAYERS
from ..calibration.trained import TRAINED
from ..compress.layers import stays_float
from ..errors import RecipeError
from ..lowering.integer_convolutions import integer_convolutions
from ..lowering.onnx_convolutions import with_plain_convolutions, write_convolutions
from ..lowering.onnx_integers import quantise_convolutions, quantise_products
from ..lowering.onnx_storage import (
    store_as_fp16,
    store_as_int8,
    store_halves,
    store_once,
    stored_counts,
)
from ..lowering.static_convolutions import (
    static_convolutions,
    why_no_ranges,
    without_integers,
)
from ..models.base import example_inputs
from ..ort_session import profile_session
from ..recipes import refuse
from ..types import GraphStats, ModelSpec, Precision, Recipe, RuntimeOption
from .base import fp_recipes, register_backend, register_recipe

if TYPE_CHECKING:
    import onnx

OPSET = 17
STORED_IN_HALVES = (Precision.FP16, Precision.INT8)
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})

fp_recipes("onnx_ort", fp16_compute=False)
register_recipe(
    Recipe(
        name="int8-dynamic",
        backend="onnx_ort",
        weight_precision=Precision.INT8,
        activation_precision=Precision.INT8,
        options={
            "compression": "int8_and_half",
            "limits": {"decision_flips": 0.3, "delta_der": 0.3},
            "promises": {"size": 0.6, "time": 1.0},
        },
    )
)
register_recipe(
    Recipe(
        name="int8-static",
        backend="onnx_ort",
        weight_precision=Precision.INT8,
        activation_precision=Precision.INT8,
        options={
            "compression": "int8_and_half",
            CALIBRATED: True,
            FLOAT_LAYERS: ["frontend.conv1d.0", "frontend.conv1d.1"],
            # A single frame that flips is two boundaries.
            "limits": {"decision_flips": 0.5, "unmatched_boundaries": 10.0},
            "promises": {"size": 0.6, "time": 1.0},
        },
    )
)
register_recipe(
    Recipe(
        name="int8-qat",
        backend="onnx_ort",
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
register_recipe(
    Recipe(
        name="int8-weights",
        backend="onnx_ort",
        weight_precision=Precision.INT8,
        activation_precision=Precision.FP32,
        options={"promises": {"size": 0.6}},  # of MFCC students the transforms stay in float32
    )
)
refuse(
    "onnx_ort",
    {
        "w8a16": "ONNX Runtime's CPU kernels multiply 16-bit activations in float32, between two "
        "more nodes: 1.5 times as long as fp32",
        "palette-8": "ONNX has no tables of weights, but as Gather: int8-weights is as small",
        "palette-6": "ONNX packs no 6-bit indices",
        "palette-4": "ONNX Runtime does not unpack 4-bit indices when it loads, but in every run",
        "int4-weights": "ONNX Runtime unpacks 4-bit weights of an LSTM in every run, not once",
        "pruned-int8": "ONNX Runtime does not run sparse weights",
    },
)


@register_backend("onnx_ort")
class OnnxOrt:
    """Canonical module -> checked, shape-inferred, simplified ONNX."""

    suffix = ".onnx"
    skips_layers = True
    forms: tuple[str, ...] = ("streaming",)
    rewrites: tuple[str, ...] = (
        "sincnet_filterbank",
        "wav_norm_affine",
        "centred_convolutions",
        "centred_rectifier",
        "sincnet_conv2d",
        "mfcc_dft",
        "fbank_dft",
        "repeated_rows",
    )

    def unavailable(self) -> str | None:
        """Always available: onnx is a dependency."""
        return None

    def refuses(self, spec: ModelSpec, recipe: Recipe) -> str | None:
        """Ranges for a model that has no convolutions."""
        return why_no_ranges(spec, recipe)

    def export(self, module: nn.Module, spec: ModelSpec, recipe: Recipe, out: Path) -> GraphStats:
        """Write the ONNX file; windows have a fixed length unless the recipe says otherwise."""
        import onnx
        import onnxslim

        dynamic = bool(recipe.options.get("dynamic_length", False))
        integers = recipe.activation_precision is Precision.INT8
        _trace(with_plain_convolutions(without_integers(module)), spec, out, dynamic=dynamic)
        # A linear layer's product and sum apart, as integers take them.
        model = onnxslim.slim(
            onnx.load_model(str(out)), skip_fusion_patterns=["FusionGemm"] if integers else None
        )
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        if integers:
            model = quantise_convolutions(model, dict(static_convolutions(module)))
            model = quantise_products(model, _products(module, recipe))
            write_convolutions(model, integer_convolutions(module))
        if recipe.weight_precision is Precision.INT8:
            store_as_int8(model)
            store_halves(model)
        if recipe.weight_precision in STORED_IN_HALVES:
            store_as_fp16(model)
        _normalise(model, spec)
        onnx.checker.check_model(model, full_check=True)
        out.write_bytes(model.SerializeToString(deterministic=True))
        return _stats(model, _providers(out, spec))

    def tool_versions(self) -> dict[str, str]:
        """The exporter, what simplified its graph, and what told where its nodes run."""
        return {name: version(name) for name in ("torch", "onnx", "onnxslim", "onnxruntime")}

    def runtime_options(self) -> dict[str, RuntimeOption]:
        """For one window at a time on a phone; docs/performance.md has what each gives.

        Spinning does nothing on one thread; on more it burns a core while it waits.
        """
        return {
            "enable_cpu_mem_arena": True,
            "execution_mode": "ORT_SEQUENTIAL",
            "graph_optimization_level": "ORT_ENABLE_ALL",
            "inter_op_num_threads": 1,
            "intra_op_num_threads": 1,
            "session.intra_op.allow_spinning": False,
        }

    def fallbacks(self, stats: GraphStats, recipe: Recipe) -> dict[str, int]:
        """Shape chains and control flow: not even windows of free length need them."""
        return stats.portable


def _trace(module: nn.Module, spec: ModelSpec, out: Path, *, dynamic: bool) -> None:
    inputs = example_inputs(spec)
    axes = {spec.inputs[0].name: {2: "samples"}, spec.outputs[0].name: {1: "frames"}}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notice that it is the older one
        torch.onnx.export(
            module,
            inputs,
            str(out),
            dynamo=False,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            dynamic_axes=axes if dynamic else None,
        )


def _products(module: nn.Module, recipe: Recipe) -> list[str]:
    """The layers whose products are computed on integers."""
    kinds = (nn.Linear, nn.LSTM)
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and not stays_float(name, recipe)
    ]


def _normalise(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Leave nothing in the file that depends on the run rather than on the inputs."""
    model.producer_name, model.producer_version = "diarport", ""
    model.graph.name = "segmentation"
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    initializers = store_once(model)
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    del model.metadata_props[:]
    geometry = spec.geometry
    for key, value in {
        "architecture": spec.architecture,
        "classes": ",".join(spec.classes),
        "frame_step_samples": geometry.frame_step_samples,
        "receptive_field_samples": geometry.receptive_field_samples,
        "sample_rate_hz": geometry.sample_rate_hz,
        "licence": spec.licence,
    }.items():
        model.metadata_props.add(key=key, value=str(value))


def _providers(path: Path, spec: ModelSpec) -> dict[str, dict[str, int]]:
    """Nodes by execution provider after the optimisations that do not depend on the machine."""
    inputs = example_inputs(spec)
    window = {tensor.name: value.numpy() for tensor, value in zip(spec.inputs, inputs, strict=True)}
    basic: dict[str, RuntimeOption] = {"graph_optimization_level": "ORT_ENABLE_BASIC"}
    found: dict[str, Counter[str]] = {}
    try:
        nodes = profile_session(str(path), [window], options=basic, threads=1, warmup_runs=0)
    except Exception as error:
        # ONNX Runtime raises bare exceptions of a dozen classes; all mean: it does not run.
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise RecipeError(
            f"onnx_ort: {path.name}", found=f"ONNX Runtime cannot run what was exported ({reason})"
        ) from error
    for node in nodes:
        found.setdefault(node.provider, Counter())[node.operator] += 1
    return {provider: dict(sorted(found[provider].items())) for provider in sorted(found)}


def _stats(model: onnx.ModelProto, providers: dict[str, dict[str, int]]) -> GraphStats:
    operators = Counter(node.op_type for node in model.graph.node)
    return GraphStats(
        operators=dict(sorted(operators.items())),
        delegates=0,
        weight_bytes=sum(len(tensor.raw_data) for tensor in model.graph.initializer),
        delegated=providers,
        portable=_shape_chains(model),
        stored=stored_counts(model),
    )


def _shape_chains(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes that compute integers, so shapes and indices, or decide what is computed next."""
    from onnx import TensorProto

    integers = {
        value.name
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type in (TensorProto.INT32, TensorProto.INT64)
    }
    found = Counter(
        node.op_type
        for node in model.graph.node
        if node.op_type in CONTROL_FLOW or integers & set(node.output)
    )
    return dict(sorted(found.items()))
