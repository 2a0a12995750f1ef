"""How an ONNX file holds its weights: smaller than it computes with them, and each once.

What makes floats of them in the graph are operators on constants, which ONNX Runtime computes when
it loads the file: storing small costs no time.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

SMALLEST_FP16_TENSOR = 256  # elements; below this a cast node costs more than it saves
SMALLEST_INT8_TENSOR = 512
ROUNDING = 3e-7  # of a float32 that was an integer times a scale

Floats = NDArray[np.float32]


def store_as_fp16(model: onnx.ModelProto) -> None:
    """Float tensors that float16 holds exactly, stored in it and cast to float32 in the graph.

    Those are what the compressed model has rounded: storing changes nothing.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < SMALLEST_FP16_TENSOR:
            continue
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(
            helper.make_node(
                "Cast", [f"{name}.fp16"], [name], name=f"{name}.cast", to=TensorProto.FLOAT
            )
        )
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def store_as_int8(model: onnx.ModelProto) -> None:
    """Matrices that lie on a grid of int8 with a scale a row, stored so, and made floats in the
    graph by a cast and a product."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, scales = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.ndim < 2:
            continue
        found = _grid(values) if values.size >= SMALLEST_INT8_TENSOR else None
        if found is None:
            continue
        name, (integers, steps) = tensor.name, found
        tensor.CopyFrom(numpy_helper.from_array(integers, f"{name}.int8"))
        scales.append(numpy_helper.from_array(steps, f"{name}.scales"))
        floats = f"{name}.floats"
        nodes += [
            helper.make_node(
                "Cast", [f"{name}.int8"], [floats], name=f"{name}.cast", to=TensorProto.FLOAT
            ),
            helper.make_node("Mul", [floats, f"{name}.scales"], [name], name=f"{name}.scale"),
        ]
    model.graph.initializer.extend(scales)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def _grid(values: Floats) -> tuple[NDArray[np.int8], Floats] | None:
    """Integers and scales whose product is the values, with a scale for each row: what lies along
    the last axis, behind the first, or (of a transposed matrix) along the first."""
    axes = range(values.ndim)
    for along in ((values.ndim - 1,), tuple(axes[1:]), tuple(axes[:-1])):
        largest = np.abs(values).max(axis=along, keepdims=True)
        if largest.size > values.size // 2:  # of a vector each value would be a row
            continue
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        integers = np.round(values / scales)
        if np.abs(integers * scales - values).max() <= ROUNDING * np.abs(values).max():
            return integers.astype(np.int8), scales
    return None


def store_halves(model: onnx.ModelProto) -> None:
    """Filters that are even or odd, as SincNet's are, stored up to their middle; the other half is
    the first, reversed, with a sign a filter."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, added = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        taps = values.shape[-1] if values.ndim else 0
        if tensor.data_type != TensorProto.FLOAT or values.size < SMALLEST_INT8_TENSOR:
            continue
        signs = np.where(values[..., :1] == values[..., -1:], 1, -1).astype(np.float32)
        first = np.ascontiguousarray(values[..., : taps // 2 + 1])
        second = np.arange(taps // 2)[::-1].astype(np.int64)
        if taps % 2 == 0 or not np.array_equal(
            np.concatenate([first, signs * first[..., second]], axis=-1), values
        ):
            continue
        name, axis = tensor.name, values.ndim - 1
        tensor.CopyFrom(numpy_helper.from_array(first, f"{name}.first"))
        added += [
            numpy_helper.from_array(second, f"{name}.order"),
            numpy_helper.from_array(signs, f"{name}.signs"),
        ]
        steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
            ("Gather", [f"{name}.first", f"{name}.order"], f"{name}.reversed", {"axis": axis}),
            ("Mul", [f"{name}.reversed", f"{name}.signs"], f"{name}.second", {}),
            ("Concat", [f"{name}.first", f"{name}.second"], name, {"axis": axis}),
        )
        nodes += [
            helper.make_node(kind, given, [made], name=f"{made}.{kind.lower()}", **attributes)
            for kind, given, made, attributes in steps
        ]
    model.graph.initializer.extend(added)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def stored_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Values of the matrices that are stored in less than float32, by type."""
    from onnx import TensorProto

    names = {TensorProto.INT8: "int8", TensorProto.FLOAT16: "float16"}
    counts: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        size = int(np.prod(tensor.dims))
        if tensor.data_type in names and len(tensor.dims) > 1 and size >= SMALLEST_INT8_TENSOR:
            counts[names[tensor.data_type]] += size
    return dict(sorted(counts.items()))


def store_once(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The graph's constants as raw bytes, sorted by name, with those that equal another left out;
    nodes read the one that stays."""
    from onnx import numpy_helper

    kept: dict[tuple[object, ...], onnx.TensorProto] = {}
    instead: dict[str, str] = {}
    for tensor in sorted(model.graph.initializer, key=lambda each: each.name):
        values = numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), values.tobytes())
        if key in kept:
            instead[tensor.name] = kept[key].name
        else:
            kept[key] = numpy_helper.from_array(values, tensor.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = instead.get(name, name)
    return list(kept.values())
