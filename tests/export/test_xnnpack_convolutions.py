"""ExecuTorch's int8-qat: the integers of training on kernels that choose ranges themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.budget import over_budget
from export.calibration.trained import ConvGrids
from export.checkpoint import LoadedModel, load_model, with_window
from export.distil.fake_quant import qat_recipe
from export.distil.first_grids import found_grids
from export.errors import RecipeError
from export.lowering.integer_convolutions import IntegerConv2d
from export.lowering.xnnpack_convolutions import PinnedConv2d
from export.pipeline import Exporter, plan
from export.pyannote_import import sample_recording
from export.types import Artifact
from runtime_checks.runners.base import RUNNERS

len(BACKENDS)  # recipes are registered by their backends
BACKEND = "executorch_xnnpack"
RECIPE = RECIPES[f"{BACKEND}/int8-qat"]


@pytest.fixture(scope="module")
def windows() -> Tensor:
    samples = load_recording(sample_recording()[0], sample_rate_hz=16000).samples
    return torch.from_numpy(samples[: 6 * 80000].reshape(6, 1, 80000)[:, :, :32000].copy())


@pytest.fixture(scope="module")
def exporter(windows: Tensor) -> Exporter:
    model: LoadedModel = with_window(load_model("sinc-1uni"), 2.0)
    grids = found_grids(model.module, qat_recipe(RECIPE.name), windows)
    return Exporter(replace(model, grids=grids))


@pytest.fixture(scope="module")
def exported(exporter: Exporter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("qat")
    artifact = exporter.export(RECIPE, folder)
    return artifact, folder / artifact.path


@pytest.fixture(scope="module")
def run(exporter: Exporter, exported: tuple[Artifact, Path]) -> Callable[[Tensor], Tensor]:
    runner = RUNNERS[BACKEND].open(exported[1], exporter.model.spec, threads=1)

    def scores(window: Tensor) -> Tensor:
        (found,) = runner.run({"waveform": window[None].numpy()}).values()
        return torch.from_numpy(found)

    return scores


def test_artifact_computes_what_training_rounded(
    exporter: Exporter, run: Callable[[Tensor], Tensor], windows: Tensor
) -> None:
    found = torch.cat([run(window) for window in windows])
    with torch.inference_mode():
        rounded = exporter.compressed(RECIPE)(windows)
        exact = exporter.model.module(windows)
    # What is left are the inputs of linear and recurrent layers, quantised as they come.
    assert (found - rounded).abs().mean() < 1e-3
    assert (found - rounded).abs().max() < 2e-2
    assert (found - rounded).abs().mean() < (found - exact).abs().mean()
    flips = ((found > 0.5) != (exact > 0.5)).any(2).float().mean()
    assert flips < 0.02


def test_both_backends_round_alike(exporter: Exporter, windows: Tensor) -> None:
    with torch.inference_mode():
        mine = exporter.compressed(RECIPE)(windows[:2])
        other = exporter.compressed(qat_recipe(RECIPE.name))(windows[:2])
    assert (mine - other).abs().max() < 1e-2  # a norm's float32 tips what lies between two steps


def test_every_weight_is_multiplied_as_an_integer(
    exporter: Exporter, exported: tuple[Artifact, Path]
) -> None:
    stats = exported[0].graph_stats
    matrices = sum(
        p.numel()
        for name, p in exporter.canonical.named_parameters()
        if p.ndim == 2 and "filterbank" not in name
    )
    assert stats.stored == {"int8": matrices + 80 * 260 + 80 * 60 * 5 + 60 * 60 * 5}
    assert stats.not_smaller == {}
    assert stats.delegated["XnnpackBackend 1"]["aten.convolution.default"] == 6
    assert BACKENDS[BACKEND].fallbacks(stats, RECIPE) == {}
    assert over_budget(exported[0]) == {}
    integers = exporter.compressed(RECIPE).get_buffer("frontend.conv1d.2.integers").numpy()
    data = exported[1].read_bytes()
    assert np.ascontiguousarray(integers.transpose(0, 2, 3, 1)).tobytes() in data or (
        integers.tobytes() in data
    )


@pytest.mark.parametrize("samples", [16, 17, 18])
@pytest.mark.parametrize("loudness", [0.1, 30.0])
def test_ranges_are_those_of_training_whatever_is_heard(samples: int, loudness: float) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (1, 3))
    grids = ConvGrids(inputs=(-0.3, 5.0), gains=(1.0,) * 4)
    integer = IntegerConv2d(conv, grids)
    pinned = PinnedConv2d(integer, pooled=3)
    x = loudness * torch.randn(2, 4, 1, samples)
    expected, found = integer(x), pinned(x)
    torch.testing.assert_close(found[..., : expected.shape[3]], expected, rtol=1e-5, atol=1e-5)
    pool = nn.MaxPool2d((1, 3), (1, 3))
    assert pool(found).shape == pool(expected).shape


def test_a_model_without_ranges_is_refused_with_what_to_do() -> None:
    with pytest.raises(RecipeError, match="distill --qat int8-qat --start-from sinc-1uni"):
        plan(load_model("sinc-1uni"), backends=[BACKEND], recipes=["int8-qat"])
    with pytest.raises(RecipeError, match="int8-dynamic is all of it"):
        plan(load_model("mfcc80-1uni"), backends=[BACKEND], recipes=["int8-qat"])
