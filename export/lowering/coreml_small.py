"""Weights of a Core ML program stored small, with coremltools' own compression.

The weights that come here lie on their grids already (`export.compress`), and coremltools finds the
same grids in them: what it writes is what the compressed PyTorch model computes with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..compress.small_weights import MOSTLY_ZERO, SMALLEST, block_size, palette_rows
from .coreml_program import MainFunction, Weight
from .coreml_repairs import sound_unique

Shape = tuple[int, ...]

LEFT = ""
"""In place of the name of a layer whose weights stay as they are."""


def store_small(
    model: Any, method: str, *, layers: Sequence[str], halves: Collection[str] = ()
) -> Any:
    """A converted model (coremltools' MLModel) with its weights as a compression method made them.

    `layers` are the names of all layers with such a weight, once for each in the program's order:
    those in `halves` become float16, and `LEFT` stands for one that is left as it is. Raises
    KeyError for a method that has no form in Core ML, ValueError where there are other weights.
    """
    found = [weight for weight in _large(model) if not _is_transform(weight)]
    named = list(zip(found, layers, strict=True))
    small = [weight for weight, name in named if name not in {LEFT, *halves}]
    filters = [weight for weight in small if weight.kind == "conv"]
    others = [weight for weight in small if weight.kind != "conv"]
    if wide := [w.name for w, name in named if name in halves and w.stored == "float32"]:
        model = store_half(model, wide)
    if filters:
        model = quantize_rows(model, filters)
    return _METHODS[method](model, others) if others else model


def quantize_rows(model: Any, weights: Sequence[Weight]) -> Any:
    """A converted model with these weights in int8, a scale a row."""
    import coremltools.optimize.coreml as cto

    return cto.linear_quantize_weights(model, _config(weights, _rows))


def store_half(model: Any, constants: Collection[str]) -> Any:
    """A converted model that stores these float32 constants as float16; the numbers are the same
    where float16 has them."""
    from coremltools.converters.mil.mil import Builder
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.models.utils import _apply_graph_pass

    class StoreHalf(AbstractGraphPass):  # type: ignore[misc]
        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                for op in [op for op in function.operations if op.name in constants]:
                    with function:
                        cast = Builder.constexpr_cast(
                            source_val=op.val.val.astype(np.float16),
                            output_dtype="fp32",
                            before_op=op,
                            name=f"{op.name}_half",
                        )
                    function.try_replace_uses_of_var_after_op(
                        anchor_op=op, old_var=op.outputs[0], new_var=cast
                    )
                    function.remove_ops([op])

    # coremltools' own compression goes this way; it has no public one.
    return _apply_graph_pass(model, StoreHalf())


def store_transforms(model: Any) -> Any:
    """A converted model whose front-end's transforms (those of MFCCs) are stored small and stay
    what they are: zeros left out where most are, other values in a palette if at most 256 differ.

    Layers' weights come first (`store_small`): one in float32 is known by what it is stored as.
    """
    import coremltools.optimize.coreml as cto

    if transforms := [weight for weight in _large(model) if _is_transform(weight)]:
        model = cto.prune_weights(model, _config(transforms, _mostly_zeros))
        left = [weight for weight in _large(model) if _is_transform(weight)]
        model = _palettized(model, _config(left, _one_palette)) if left else model
    return model


def _large(model: Any) -> list[Weight]:
    found = MainFunction(model.get_spec()).weights()
    return [weight for weight in found if weight.values >= SMALLEST]


def _is_transform(weight: Weight) -> bool:
    """Whether it is no layer's: linear operations in float32 are before the recurrence."""
    return weight.kind == "linear" and weight.stored == "float32"


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


def _mostly_zeros(cto: Any, shape: Shape) -> Any:
    return cto.OpThresholdPrunerConfig(
        threshold=0.0, minimum_sparsity_percentile=MOSTLY_ZERO, weight_threshold=SMALLEST - 1
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
        return _palettized(model, _config(weights, make))

    return apply


def _palettized(model: Any, config: Any) -> Any:
    import coremltools.optimize.coreml as cto

    with sound_unique():
        return cto.palettize_weights(model, config)


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
