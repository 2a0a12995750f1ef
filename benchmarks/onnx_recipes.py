"""What recipes that ONNX Runtime refuses would give, and what types ConvInteger is fast with.

    PYTHONPATH=. python benchmarks/onnx_recipes.py sinc-1bi --rounds 150

First the whole model as `w8a16`: int8 weights and 16-bit activations around every convolution and
linear layer, by onnxruntime.quantization, beside fp32. Then SincNet's first convolution alone, on
2 s windows: in float32, and as ConvInteger with weights and inputs of either sign, as it is and by
phases. Bytes, and first deciles of processor time in turns on one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from quantised import Windows

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import load_model, with_window
from export.ort_session import open_session
from export.pipeline import Exporter
from export.rewrites.polyphase_convolution import by_phases

CHANNELS, TAPS, STRIDE, SAMPLES = 80, 251, 10, 32_000
MIDDLES = {np.int8: 0, np.uint8: 128}
Run = Callable[[], Any]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="sinc-1bi")
    parser.add_argument("--rounds", type=int, default=150)
    options = parser.parse_args()
    len(BACKENDS)
    with tempfile.TemporaryDirectory() as folder:
        _print(_w8a16(options.model, Path(folder)), rounds=options.rounds)
        _print(_convolutions(Path(folder)), rounds=options.rounds)


def _w8a16(source: str, folder: Path) -> dict[str, Run]:
    from onnxruntime.quantization import QuantType, quantize_static

    exporter = Exporter(with_window(load_model(source), 2.0))
    drawn, name = exporter.calibration.drawn, exporter.model.spec.inputs[0].name
    plain = folder / exporter.export(RECIPES["onnx_ort/fp32"], folder).path
    wide = folder / "w8a16.onnx"
    reader: Any = Windows(drawn, name)
    quantize_static(
        plain,
        wide,
        reader,
        activation_type=QuantType.QUInt16,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        extra_options={"UseQDQContribOps": True},
    )
    window = {name: drawn.windows[0][None, None]}
    whole = plain.stat().st_size
    sys.stdout.write(f"w8a16: {wide.stat().st_size / whole:.2f} of fp32's {whole} bytes\n")
    return {"fp32": _run(plain, window), "w8a16": _run(wide, window)}


def _convolutions(folder: Path) -> dict[str, Run]:
    """The first convolution by its types; float32 first."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (CHANNELS, 1, 1, TAPS))
    phased = by_phases(torch.from_numpy(weight), STRIDE).numpy()
    frames = (SAMPLES - TAPS) // STRIDE + 1
    whole, rows = (1, 1, 1, SAMPLES), (1, STRIDE, 1, frames - 1 + phased.shape[3])
    floats = helper.make_node("Conv", ["x", "w"], ["y"], strides=[1, STRIDE])
    path = _save(folder / "floats.onnx", floats, {"w": weight.astype(np.float32)}, whole)
    runs = {"float32": _run(path, {"x": rng.standard_normal(whole).astype(np.float32)})}
    for form, values, shape, stride in (
        ("as it is", weight, whole, STRIDE),
        ("by phases", phased, rows, 1),
    ):
        for weights, middle in MIDDLES.items():
            for inputs, zero in MIDDLES.items():
                name = f"weights {weights.__name__}, inputs {inputs.__name__}, {form}"
                node = helper.make_node(
                    "ConvInteger", ["x", "w", "xz", "wz"], ["y"], strides=[1, stride]
                )
                constants = {
                    "w": (values + middle).astype(weights),
                    "xz": np.array(zero, inputs),
                    "wz": np.array(middle, weights),
                }
                path = _save(folder / f"{name}.onnx", node, constants, shape)
                runs[name] = _run(path, {"x": rng.integers(0, 100, shape).astype(inputs)})
    return runs


def _save(path: Path, node: Any, constants: Mapping[str, Any], shape: tuple[int, ...]) -> Path:
    types = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
    given = constants["xz"].dtype.name if "xz" in constants else "float32"
    made = TensorProto.INT32 if "xz" in constants else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", types[given], shape)],
        [helper.make_tensor_value_info("y", made, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save_model(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


def _run(path: Path, inputs: Mapping[str, Any]) -> Run:
    session = open_session(str(path), {}, threads=1)
    return lambda: session.run(None, dict(inputs))


def _print(runs: Mapping[str, Run], *, rounds: int) -> None:
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            taken[name].append((time.process_time() - begin) * 1e3)
    first = next(iter(runs))
    for name, times in taken.items():
        p10, base = (float(np.quantile(t, 0.1)) for t in (times, taken[first]))
        sys.stdout.write(f"{name}: {p10:.2f} ms, {p10 / base:.2f} of {first}\n")


if __name__ == "__main__":
    main()
