"""The SincNet block in two dimensions, on trained weights and real speech."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, with_window
from export.pipeline import Exporter
from export.rewrites.base import apply_rewrites
from export.rewrites.sincnet_conv2d import SincFrontEndConv2d

BEFORE = ["sincnet_filterbank", "wav_norm_affine", "centred_convolutions", "centred_rectifier"]
REWRITE = "sincnet_conv2d"


def scores(module: nn.Module, samples: NDArray[np.float32], dtype: torch.dtype) -> Tensor:
    with torch.inference_mode():
        out: Tensor = copy.deepcopy(module).to(dtype)(torch.from_numpy(samples)[:, None].to(dtype))
    return out.double()


@pytest.mark.parametrize("before", [BEFORE[:1], BEFORE[:2], BEFORE])
@pytest.mark.parametrize("samples", [80000, 79991, 32003])
def test_it_is_exact(
    zoo_canonical: nn.Module, speech: NDArray[np.float32], before: list[str], samples: int
) -> None:
    baked = apply_rewrites(copy.deepcopy(zoo_canonical).double(), before)
    rewritten = apply_rewrites(baked, [REWRITE])
    assert isinstance(rewritten.get_submodule("frontend"), SincFrontEndConv2d)
    windows = speech[:, :samples]
    expected = scores(baked, windows, torch.float64)
    assert torch.allclose(scores(rewritten, windows, torch.float64), expected, rtol=0, atol=1e-10)


def test_it_rounds_little_in_float32(zoo_canonical: nn.Module, speech: NDArray[np.float32]) -> None:
    silent = speech.copy()
    silent[:, 40000:] = 0
    for windows in (speech, silent):
        expected = scores(zoo_canonical, windows, torch.float64)
        after = scores(apply_rewrites(zoo_canonical, [*BEFORE, REWRITE]), windows, torch.float32)
        assert (after - expected).abs().max() < 1e-5


def test_a_filterbank_that_computes_its_filters_is_left_alone(zoo_canonical: nn.Module) -> None:
    rewritten = apply_rewrites(zoo_canonical, [REWRITE])
    assert type(rewritten.get_submodule("frontend")) is type(
        zoo_canonical.get_submodule("frontend")
    )


def test_onnx_runtime_takes_its_blocked_kernels(zoo_model: LoadedModel, tmp_path: Path) -> None:
    """The graph that ONNX Runtime makes of the file: convolutions and rectifier in one node."""
    len(BACKENDS)
    artifact = Exporter(with_window(zoo_model, 1.0)).export(RECIPES["onnx_ort/fp32"], tmp_path)
    optimised = tmp_path / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        str(tmp_path / artifact.path), options, providers=["CPUExecutionProvider"]
    )
    nodes = onnx.load(str(optimised)).graph.node
    if not any(node.domain == "com.microsoft.nchwc" for node in nodes):
        pytest.skip("ONNX Runtime has no blocked kernels for this processor")
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 3
    assert {node.domain for node in convolutions} == {"com.microsoft.nchwc"}
    fused = {a.name: a.s for a in convolutions[0].attribute}
    assert fused["activation"] == b"LeakyRelu"
    assert "Abs" not in {node.op_type for node in nodes}
