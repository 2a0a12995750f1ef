"""Rewrites that leave the function as it is and take rounding out of it, on trained weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.models.pyannet import SincFrontEnd
from export.rewrites.base import apply_rewrites
from export.rewrites.centred_rectifier import RestingNorm

ORDER = ("sincnet_filterbank", "wav_norm_affine", "centred_convolutions", "centred_rectifier")


def scores(module: nn.Module, samples: NDArray[np.float32], dtype: torch.dtype) -> Tensor:
    with torch.inference_mode():
        out: Tensor = copy.deepcopy(module).to(dtype)(torch.from_numpy(samples)[:, None].to(dtype))
    return out.double()


def frontend(module: nn.Module) -> SincFrontEnd:
    found = module.get_submodule("frontend")
    assert isinstance(found, SincFrontEnd)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_is_exact_on_trained_weights(
    zoo_canonical: nn.Module, speech: NDArray[np.float32], count: int
) -> None:
    exact = copy.deepcopy(zoo_canonical).double()
    rewritten = apply_rewrites(exact, ORDER[:count])
    expected = scores(exact, speech, torch.float64)
    assert torch.allclose(scores(rewritten, speech, torch.float64), expected, rtol=0, atol=1e-10)


def test_each_is_in_effect(zoo_canonical: nn.Module) -> None:
    before, after = frontend(zoo_canonical), frontend(apply_rewrites(zoo_canonical, ORDER))
    assert isinstance(before.wav_norm1d, nn.InstanceNorm1d) and before.wav_norm1d.affine
    assert isinstance(after.wav_norm1d, nn.InstanceNorm1d) and not after.wav_norm1d.affine
    assert isinstance(after.conv1d[0], nn.Conv1d) and after.conv1d[0].bias is not None
    assert not torch.equal(
        before.conv1d[1].get_parameter("bias"), after.conv1d[1].get_parameter("bias")
    )
    assert isinstance(after.norm1d[0], RestingNorm)
    assert {p.dtype for p in after.parameters()} == {torch.float32}


def test_together_they_take_most_of_the_rounding_away(
    zoo_canonical: nn.Module, speech: NDArray[np.float32]
) -> None:
    expected = scores(zoo_canonical, speech, torch.float64)
    before = (scores(zoo_canonical, speech, torch.float32) - expected).abs().max().item()
    rewritten = apply_rewrites(zoo_canonical, ORDER)
    after = (scores(rewritten, speech, torch.float32) - expected).abs().max().item()
    assert after < before / 10
    assert after < 1e-5


def test_silence_stays_silence_in_float32(zoo_canonical: nn.Module) -> None:
    """Rounding that a norm has nothing else to divide by grows 300-fold in each of three norms."""
    silence = np.zeros((1, 80000), np.float32)
    expected = scores(zoo_canonical, silence, torch.float64)
    rewritten = apply_rewrites(zoo_canonical, ORDER)
    after = (scores(rewritten, silence, torch.float32) - expected).abs().max().item()
    before = (scores(zoo_canonical, silence, torch.float32) - expected).abs().max().item()
    assert after < 2e-6
    assert after < before / 10


def test_filters_that_are_not_baked_are_left_alone(zoo_canonical: nn.Module) -> None:
    for name in ("wav_norm_affine", "centred_rectifier"):
        same = apply_rewrites(zoo_canonical, [name])
        for mine, theirs in zip(same.parameters(), zoo_canonical.parameters(), strict=True):
            assert torch.equal(mine, theirs)
