"""What recipes that ExecuTorch refuses would give: parts of a network, alone, in XNNPACK.

A linear layer as the LSTM's input projections are (60 -> 1024, 115 rows) in float32, float16 and
with int8 weights for float32 inputs; SincNet's second convolution in float32, in int8 with a
calibrated range of inputs and outputs, and as int8-qat has it, with a range of inputs alone.
Prints bytes of the program, what runs outside the delegate, how far its outputs are from float32's,
and its time beside float32's.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.calibration.trained import ConvGrids
from export.compress.int8_matrices import int8_rows
from export.lowering.integer_convolutions import IntegerConv2d
from export.lowering.xnnpack_convolutions import PinnedConv2d
from export.quiet import quiet_tools

ROUNDS = 300


class WeightOnly(nn.Module):
    """A linear layer whose int8 weights are made floats where they are used."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # registers the operators

        integers, scales = int8_rows(linear.weight.detach())
        self.register_buffer("weight", integers)
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int64))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Linear with float32 inputs."""
        operators: Any = torch.ops.quantized_decomposed
        weight = operators.dequantize_per_channel(
            self.weight, self.scales, self.zeros, 0, -128, 127, torch.int8
        )
        return nn.functional.linear(x, weight, self.bias)


def calibrated(module: nn.Module, inputs: Tensor) -> Any:
    """PT2E with XNNPACK's quantiser, per channel."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)
    quantizer = XNNPACKQuantizer().set_global(config)
    prepared = prepare_pt2e(torch.export.export(module, (inputs,)).module(), quantizer)
    prepared(inputs)
    return convert_pt2e(prepared)


def program(module: nn.Module, inputs: Tensor) -> tuple[bytes, list[str]]:
    """A lowered program, and the operators that no delegate took."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with quiet_tools():
        edge = to_edge_transform_and_lower(
            torch.export.export(module, (inputs,)), partitioner=[XnnpackPartitioner()]
        )
        made = edge.to_executorch()
    called = [
        str(node.target).rpartition(".")[0]
        for node in made.exported_program().graph.nodes
        if node.op == "call_function" and "delegate" not in str(node.target)
    ]
    return made.buffer, [name for name in called if "getitem" not in name and "alloc" not in name]


def main() -> None:
    """Time all candidates in turns."""
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(1)
    torch.manual_seed(0)
    linear, rows = nn.Linear(60, 1024), torch.randn(115, 60)
    conv, frames = nn.Conv2d(80, 60, (1, 5)), torch.randn(1, 80, 1, 1058)
    half = copy.deepcopy(linear).half()
    ends = ConvGrids(inputs=(float(frames.min()), float(frames.max())), gains=(1.0,) * 80)
    pinned = PinnedConv2d(IntegerConv2d(conv, ends), pooled=3)
    candidates: dict[str, tuple[nn.Module, Tensor]] = {
        "linear float32": (linear.eval(), rows),
        "linear float16": (half.eval(), rows.half()),
        "linear int8 weights": (WeightOnly(linear).eval(), rows),
        "convolution float32": (conv.eval(), frames),
        "convolution int8, calibrated": (calibrated(conv.eval(), frames), frames),
        "convolution int8, int8-qat": (pinned.eval(), frames),
    }
    loaded: dict[str, Any] = {}
    kept = []  # a runtime does not keep its program alive
    for name, (module, inputs) in candidates.items():
        try:
            buffer, outside = program(module, inputs)
            kept.append(buffer)
            loaded[name] = portable_lib._load_for_executorch_from_buffer(buffer)
            found = loaded[name].forward((inputs,))[0].float()
            exact = candidates[f"{name.split()[0]} float32"][0](inputs.float())
            off = float((found[..., : exact.shape[-1]] - exact).abs().mean())
            print(  # noqa: T201
                f"{name}: {len(buffer)} bytes; outside: {', '.join(outside) or 'nothing'}; "
                f"{off:.4f} from float32 on average"
            )
        except Exception as error:
            # Lowering and runtime raise bare exceptions of many classes; each is an answer here.
            loaded.pop(name, None)
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[:1]}")  # noqa: T201
    times: dict[str, list[float]] = {name: [] for name in loaded}
    for _ in range(ROUNDS):
        for name, runnable in loaded.items():
            begin = time.process_time()
            runnable.forward((candidates[name][1],))
            times[name].append(time.process_time() - begin)
    for name, taken in times.items():
        base = times[f"{name.split()[0]} float32"]
        print(f"{name}: {np.quantile(taken, 0.1) / np.quantile(base, 0.1):.2f} of float32 (p10)")  # noqa: T201


if __name__ == "__main__":
    main()
