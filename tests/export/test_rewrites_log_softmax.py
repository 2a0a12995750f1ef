"""Log-softmax without the logarithm of something that underflows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray
from torch import nn

from export.rewrites.base import REWRITES
from export.rewrites.log_softmax import ShiftedLogSoftmax


@given(
    logits=stn.arrays(
        "float64", stn.array_shapes(min_dims=2, max_dims=3), elements=st.floats(-500, 500)
    )
)
def test_equals_torch_far_beyond_where_a_softmax_underflows(logits: NDArray) -> None:  # type: ignore[type-arg]
    x = torch.from_numpy(logits)
    rewritten = REWRITES["log_softmax"].replace(nn.LogSoftmax(dim=-1))
    assert isinstance(rewritten, ShiftedLogSoftmax)
    torch.testing.assert_close(rewritten(x), torch.log_softmax(x, -1), rtol=1e-12, atol=1e-12)


def test_stays_finite_in_float16() -> None:
    x = torch.tensor([[0.0, -30.0, -200.0]], dtype=torch.float16)
    out = ShiftedLogSoftmax(-1)(x)
    assert out.tolist() == [[0.0, -30.0, -200.0]]
    assert torch.isinf(torch.log(torch.softmax(x, -1))).any()  # what it is there to avoid


def test_other_dimensions_and_other_modules() -> None:
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    rewritten = REWRITES["log_softmax"].replace(nn.LogSoftmax(dim=1))
    assert rewritten is not None
    torch.testing.assert_close(rewritten(x), torch.log_softmax(x, 1))
    for module in (nn.Softmax(-1), nn.Sigmoid(), nn.LogSoftmax()):
        assert REWRITES["log_softmax"].replace(module) is None
