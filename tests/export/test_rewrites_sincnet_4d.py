"""The 4-D SincNet block against pyannote's own, on trained weights and real speech."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.rewrites.base import apply_rewrites
from export.rewrites.sincnet_4d import InstanceNorm4d, SincFrontEnd4d

BEFORE = ["sincnet_filterbank", "wav_norm_affine", "centred_convolutions", "centred_rectifier"]


def features(module: nn.Module, window: NDArray[np.float32]) -> Tensor:
    with torch.inference_mode():
        out: Tensor = module.get_submodule("frontend")(
            torch.from_numpy(window).double().reshape(1, 1, -1)
        )
    return out


def test_features_equal_those_of_pyannote(
    zoo_canonical: nn.Module, speech: NDArray[np.float32]
) -> None:
    baked = apply_rewrites(zoo_canonical, BEFORE).double()
    rewritten = apply_rewrites(baked, ["sincnet_4d"])
    assert isinstance(rewritten.get_submodule("frontend"), SincFrontEnd4d)
    for window in speech:
        expected = features(baked, window)
        assert expected.abs().max() > 0.5
        assert torch.allclose(features(rewritten, window), expected, rtol=0, atol=1e-10)


def test_layers_keep_their_names(zoo_canonical: nn.Module) -> None:
    baked = apply_rewrites(zoo_canonical, BEFORE)
    rewritten = apply_rewrites(baked, ["sincnet_4d"])
    names = {name for name, _ in rewritten.named_modules()}
    assert names == {name for name, _ in baked.named_modules()} - {"frontend.norm1d.0.norm"}


def test_a_filterbank_that_computes_its_filters_is_left_alone(zoo_canonical: nn.Module) -> None:
    rewritten = apply_rewrites(zoo_canonical, ["sincnet_4d"])
    assert type(rewritten.get_submodule("frontend")) is type(
        zoo_canonical.get_submodule("frontend")
    )


@pytest.mark.parametrize("affine", [True, False])
def test_the_norm_is_instance_norm(affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.InstanceNorm1d(5, affine=affine, eps=1e-3).double()
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    # One channel is so quiet that eps decides.
    x = torch.randn(2, 5, 40, dtype=torch.double) * torch.tensor([1, 1, 1e-2, 1, 9.0])[:, None] + 3
    out = InstanceNorm4d(norm)(x.unsqueeze(2))
    assert torch.allclose(out.squeeze(2), norm(x), rtol=0, atol=1e-12)
