"""Baking SincNet's filterbank, on trained weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from asteroid_filterbanks import Encoder
from numpy.typing import NDArray
from torch import nn

from export.checkpoint import LoadedModel
from export.rewrites.base import REWRITES, apply_rewrites


def scores(module: nn.Module, windows: NDArray[np.float32], *, dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = module(torch.from_numpy(windows)[:, None].to(dtype))
    return out.double()


def test_baked_filters_are_exact_in_float64(
    zoo_canonical: nn.Module, speech: NDArray[np.float32]
) -> None:
    exact = copy.deepcopy(zoo_canonical).double()
    baked = apply_rewrites(exact, ["sincnet_filterbank"])
    assert not any(isinstance(module, Encoder) for module in baked.modules())
    difference = scores(baked, speech, dtype=torch.float64) - scores(
        exact, speech, dtype=torch.float64
    )
    assert difference.abs().max() < 1e-12


def test_baked_filters_are_rounded_once(zoo_canonical: Any) -> None:
    """Filters are computed in float64, so that the only rounding is that of storing them."""
    baked: Any = apply_rewrites(zoo_canonical, ["sincnet_filterbank"])
    conv = baked.frontend.conv1d[0]
    exact = copy.deepcopy(zoo_canonical.frontend.conv1d[0].filterbank).double().filters().detach()
    assert conv.weight.dtype == torch.float32
    assert torch.equal(conv.weight, exact.float())
    assert (conv.stride, conv.padding, conv.bias) == ((10,), (0,), None)
    assert conv.weight.shape == (80, 1, 251)
    # Filters 0-39 are even, 40-79 odd (Ravanelli and Bengio's, and asteroid's extension).
    assert torch.equal(conv.weight[:40], conv.weight[:40].flip(-1))
    assert torch.equal(conv.weight[40:], -conv.weight[40:].flip(-1))


def test_baking_shares_nothing_with_the_model(zoo_model: LoadedModel, zoo_canonical: Any) -> None:
    before = copy.deepcopy(zoo_canonical.state_dict())
    baked = apply_rewrites(zoo_canonical, ["sincnet_filterbank"])
    with torch.no_grad():
        for parameter in baked.parameters():
            parameter.zero_()
    after = zoo_canonical.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_it_concerns_filterbanks_alone() -> None:
    rewrite = REWRITES["sincnet_filterbank"]
    for module in (nn.Conv1d(1, 80, 251), nn.Linear(3, 3), nn.LSTM(3, 3)):
        assert rewrite.replace(module) is None
