"""How an ONNX file holds its weights: smaller than it computes with them, and each once.

What makes floats of them in the graph are operators on constants, which ONNX Runtime computes when
it loads the file: storing small costs no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

SMALLEST_FP16_TENSOR = 256  # elements; below this a cast node costs more than it saves


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
