"""Strided convolutions by phases: trained filters, and any geometry."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from export.rewrites.base import apply_rewrites
from export.rewrites.polyphase_convolution import PolyphaseConv2d

BEFORE = [
    "sincnet_filterbank",
    "wav_norm_affine",
    "centred_convolutions",
    "centred_rectifier",
    "sincnet_4d",
]
REWRITE = "polyphase_convolution"


@settings(max_examples=60, deadline=None)
@given(
    stride=st.integers(2, 12),
    more_taps=st.integers(1, 60),
    beyond=st.integers(0, 40),
    bias=st.booleans(),
)
def test_any_geometry_gives_the_same(stride: int, more_taps: int, beyond: int, bias: bool) -> None:
    torch.manual_seed(stride)
    taps = stride + more_taps
    conv = nn.Conv2d(1, 3, (1, taps), stride=(1, stride), bias=bias).double()
    made = apply_rewrites(nn.Sequential(conv), [REWRITE])
    assert isinstance(made.get_submodule("0"), PolyphaseConv2d)
    x = torch.randn(2, 1, 1, taps + beyond, dtype=torch.double)
    with torch.inference_mode():
        expected, out = conv(x), made(x)
    assert out.shape == expected.shape
    assert torch.allclose(out, expected, rtol=0, atol=1e-12)


def test_the_bias_is_added_to_the_finished_sum(zoo_canonical: nn.Module) -> None:
    """XNNPACK starts from a convolution's own bias: on quiet speech scores were off by 1e-2."""
    made = apply_rewrites(zoo_canonical, [*BEFORE, REWRITE]).get_submodule("frontend.conv1d.0")
    assert isinstance(made, PolyphaseConv2d)
    assert made.conv.bias is None
    assert made.shift is not None and made.shift.abs().max() > 0.1


@pytest.mark.parametrize("samples", [80000, 79991, 32003])
def test_scores_on_trained_weights(
    zoo_canonical: nn.Module, speech: NDArray[np.float32], samples: int
) -> None:
    baked = apply_rewrites(copy.deepcopy(zoo_canonical).double(), BEFORE)
    rewritten = apply_rewrites(baked, [REWRITE])
    assert isinstance(rewritten.get_submodule("frontend.conv1d.0"), PolyphaseConv2d)
    windows = torch.from_numpy(speech[:, None, :samples])
    with torch.inference_mode():
        expected = baked(windows.double())
        assert torch.allclose(rewritten(windows.double()), expected, rtol=0, atol=1e-10)
        rounding = (rewritten.float()(windows).double() - expected).abs().max()
    assert rounding < 1e-5


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 3, (1, 9), stride=(1, 2)),
        nn.Conv2d(1, 3, (1, 9)),
        nn.Conv2d(1, 3, (1, 9), stride=(1, 9)),
        nn.Conv2d(1, 3, (1, 9), stride=(1, 2), padding=(0, 1)),
        nn.Conv2d(1, 3, (1, 9), stride=(1, 2), dilation=(1, 2)),
        nn.Conv2d(1, 3, (2, 9), stride=(1, 2)),
    ],
    ids=["two channels", "no stride", "no overlap", "padded", "dilated", "two rows"],
)
def test_other_convolutions_are_left_alone(conv: nn.Conv2d) -> None:
    made = apply_rewrites(nn.Sequential(conv), [REWRITE])
    assert isinstance(made, nn.Sequential) and type(made[0]) is nn.Conv2d


@given(st.integers(2, 12), st.integers(0, 30), st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_convolution_that_it_was_made_of_comes_back(
    stride: int, more: int, biased: bool
) -> None:
    conv = nn.Conv2d(1, 3, (1, stride + 1 + more), stride=(1, stride), bias=biased)
    plain = PolyphaseConv2d(conv).plain()
    assert (plain.kernel_size, plain.stride) == (conv.kernel_size, conv.stride)
    assert torch.equal(plain.weight, conv.weight)
    assert (plain.bias is None) == (conv.bias is None)
    if plain.bias is not None and conv.bias is not None:
        assert torch.equal(plain.bias, conv.bias)
