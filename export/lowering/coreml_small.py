"""Weights of a Core ML program stored small, with coremltools' own compression.

The weights that come here lie on their grids already (`export.compress`), and coremltools finds the
same grids in them: what it writes is what the compressed PyTorch model computes with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..compress.small_weights import SMALLEST, block_size, palette_rows
from .coreml_program import MainFunction, Weight

Shape = tuple[int, ...]


def store_small(model: Any, method: str) -> Any:
    """A converted model (coremltools' MLModel) with its weights as a compression method made them.

    Raises KeyError for a method that has no form in Core ML.
    """
    import coremltools.optimize.coreml as cto

    found = [weight for weight in MainFunction(model.get_spec()).weights() if _is_layers(weight)]
    filters = [weight for weight in found if weight.kind == "conv"]
    others = [weight for weight in found if weight.kind != "conv"]
    if filters:
        model = cto.linear_quantize_weights(model, _config(filters, _rows))
    return _METHODS[method](model, others) if others else model


def _is_layers(weight: Weight) -> bool:
    """Whether it is large enough, and a layer's: a linear operation in float32 is a transform of
    the front-end, as MFCCs have them."""
    transform = weight.kind == "linear" and weight.stored == "float32"
    return weight.values >= SMALLEST and not transform


def _config(weights: Sequence[Weight], make: Callable[[Any, Shape], Any]) -> Any:
    import coremltools.optimize.coreml as cto

    return cto.OptimizationConfig(
        op_name_configs={weight.name: make(cto, weight.shape) for weight in weights}
    )


def _rows(cto: Any, shape: Shape) -> Any:
    return cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=SMALLEST - 1)


def _blocks(cto: Any, shape: Shape) -> Any:
    return cto.OpLinearQuantizerConfig(
        mode="linear",
        dtype="int4",
        granularity="per_block",
        block_size=block_size(shape[1]),
        weight_threshold=SMALLEST - 1,
    )


def _one_palette(cto: Any, shape: Shape) -> Any:
    return cto.OpPalettizerConfig(mode="unique", weight_threshold=SMALLEST - 1)


def _palettes(cto: Any, shape: Shape) -> Any:
    return cto.OpPalettizerConfig(
        mode="unique",
        granularity="per_grouped_channel",
        group_size=palette_rows(shape[0]),
        weight_threshold=SMALLEST - 1,
    )


def _zeros(cto: Any, shape: Shape) -> Any:
    return cto.OpThresholdPrunerConfig(
        threshold=0.0, minimum_sparsity_percentile=0.0, weight_threshold=SMALLEST - 1
    )


def _quantize(make: Callable[[Any, Shape], Any]) -> Callable[[Any, Sequence[Weight]], Any]:
    def apply(model: Any, weights: Sequence[Weight]) -> Any:
        import coremltools.optimize.coreml as cto

        return cto.linear_quantize_weights(model, _config(weights, make))

    return apply


def _palettize(make: Callable[[Any, Shape], Any]) -> Callable[[Any, Sequence[Weight]], Any]:
    def apply(model: Any, weights: Sequence[Weight]) -> Any:
        import coremltools.optimize.coreml as cto

        return cto.palettize_weights(model, _config(weights, make))

    return apply


def _prune_and_quantize(model: Any, weights: Sequence[Weight]) -> Any:
    """Zeros are left out first; the values between them are then known by their operation."""
    import coremltools.optimize.coreml as cto

    sparse = cto.prune_weights(model, _config(weights, _zeros))
    operations = {weight.operation: _rows(cto, ()) for weight in weights}
    between = cto.OptimizationConfig(op_name_configs=operations)
    return cto.linear_quantize_weights(sparse, between, joint_compression=True)


_METHODS: Mapping[str, Callable[[Any, Sequence[Weight]], Any]] = {
    "int8": _quantize(_rows),
    "int4": _quantize(_blocks),
    "palette-8": _palettize(_one_palette),
    "palette-6": _palettize(_one_palette),
    "palette-4": _palettize(_palettes),
    "pruned-int8": _prune_and_quantize,
}
