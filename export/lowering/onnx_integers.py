"""Integers in an ONNX graph, written by onnxruntime.quantization with scales of our own.

Convolutions that have ranges (`static_convolutions`) stand between QuantizeLinear and
DequantizeLinear, which ONNX Runtime makes one QLinearConv of. LSTM and linear layers get int8
weights, a scale a row, and quantise what comes in by its own range: DynamicQuantizeLSTM and
DynamicQuantizeMatMul. Nothing else is touched: left to itself the tool makes ConvInteger of every
convolution, which is several times slower than float32.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .static_convolutions import Grid, StaticConv2d

if TYPE_CHECKING:
    import onnx

RECTIFIER, POOL = "LeakyRelu", "MaxPool"
PRODUCTS = ("MatMul", "LSTM")


def scope(layer: str) -> str:
    """`frontend.conv1d.0` -> `/frontend/conv1d.0/`, as the exporter begins its nodes' names: list
    members keep their dot."""
    parts: list[str] = []
    for part in layer.split("."):
        if part.isdigit() and parts:
            parts[-1] = f"{parts[-1]}.{part}"
        else:
            parts.append(part)
    return "/" + "/".join(parts) + "/"


def quantise_convolutions(
    model: onnx.ModelProto, layers: Mapping[str, StaticConv2d]
) -> onnx.ModelProto:
    """The graph with the named convolutions between quantisation and dequantisation.

    What directly follows the first convolution of a front-end, |x| and its max-pooling, is computed
    on integers too when that convolution is.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    if not layers:
        return model
    nodes, overrides, weights = [], {}, {}
    for layer, static in layers.items():
        (conv,) = _nodes(model, layer, ("Conv",))
        nodes.append(conv.name)
        overrides[conv.input[0]] = [_of(static.inputs, np.uint8)]
        weights[conv.input[1]] = _rows(static)
        overrides[conv.output[0]] = [_of(static.outputs, np.uint8)]
        rectifier = _reader(model, conv.output[0], RECTIFIER)
        if rectifier is not None:
            nodes.append(rectifier.name)
            low, high = static.ranges.outputs
            overrides[rectifier.output[0]] = [_of(Grid.over((0.0, max(-low, high))), np.uint8)]
    with _silent():
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            # The tool asks for the range of every tensor, though the grid is given below.
            tensors_range={
                name: TensorData(lowest=np.float32(0), highest=np.float32(1)) for name in overrides
            },
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=["Conv", RECTIFIER],
            extra_options={"TensorQuantOverrides": overrides | weights},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    return made


def quantise_products(model: onnx.ModelProto, layers: Sequence[str]) -> onnx.ModelProto:
    """The graph with the named LSTM and linear layers on int8 weights.

    Layers of other kinds are left out: ONNX Runtime has no GRU or RNN on integers.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    nodes = [node.name for layer in layers for node in _nodes(model, layer, PRODUCTS)]
    if not nodes:
        return model
    with _silent():
        quantizer = ONNXQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            mode=QuantizationMode.IntegerOps,
            static=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=None,
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=list(PRODUCTS),
            extra_options={"MatMulConstBOnly": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _nodes(model: onnx.ModelProto, layer: str, kinds: Sequence[str]) -> list[onnx.NodeProto]:
    start = scope(layer)
    return [n for n in model.graph.node if n.name.startswith(start) and n.op_type in kinds]


def _reader(model: onnx.ModelProto, tensor: str, kind: str) -> onnx.NodeProto | None:
    """The node of a kind that alone reads a tensor."""
    readers = [node for node in model.graph.node if tensor in node.input]
    return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


def _of(grid: Grid, integers: type[np.integer[Any]]) -> dict[str, Any]:
    return {
        "scale": np.array(grid.scale, np.float32),
        "zero_point": np.array(grid.zero_point, integers),
    }


def _rows(static: StaticConv2d) -> list[dict[str, Any]]:
    scales = static.get_buffer("weight_scales").float().numpy()
    return [{"axis": 0, **_of(Grid(float(scale), 0), np.int8)} for scale in scales]


@contextmanager
def _silent() -> Iterator[None]:
    """Without the tool's advice to pre-process, which has been followed already."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
