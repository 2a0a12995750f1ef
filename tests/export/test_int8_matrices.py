"""Weight matrices of linear and recurrent layers on int8 grids."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.compress.base import COMPRESSIONS
from export.compress.int8_matrices import int8_rows
from export.errors import RecipeError

finite = st.floats(-1e6, 1e6, width=32)
rows = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(finite, min_size=width, max_size=width), min_size=1, max_size=4)
)


def product(weight: Tensor) -> Tensor:
    integers, scales = int8_rows(weight)
    return integers.float() * scales[:, None]


@settings(deadline=None, max_examples=60)
@given(rows)
def test_every_weight_is_at_most_half_a_step_off(values: list[list[float]]) -> None:
    weight = torch.tensor(values, dtype=torch.float32)
    integers, scales = int8_rows(weight)
    assert integers.dtype is torch.int8 and integers.abs().max() <= 127
    off = (product(weight).double() - weight.double()).abs()
    assert (off <= 0.501 * scales.double()[:, None]).all()


@settings(deadline=None, max_examples=60)
@given(rows)
def test_a_product_of_integers_gives_these_integers_again(values: list[list[float]]) -> None:
    """Or a backend would round what was compared with the model a second time."""
    weight = torch.tensor(values, dtype=torch.float32)
    integers, scales = int8_rows(weight)
    again, scales_again = int8_rows(product(weight))
    largest = weight.abs().amax(dim=1)
    kept = largest > 1e-30  # nothing is kept of rows among the denormals
    assert torch.equal(again[kept], integers[kept])
    torch.testing.assert_close(scales_again[kept], scales[kept], rtol=2e-7, atol=0)


def test_rows_keep_their_own_scales_and_zeros_stay_zero() -> None:
    integers, scales = int8_rows(torch.tensor([[0.5, -1.0, 0.26], [0.0, 0.0, 0.0]]))
    assert integers.tolist() == [[64, -127, 33], [0, 0, 0]]
    torch.testing.assert_close(scales, torch.tensor([1 / 127, 1.0]))


@pytest.fixture(scope="module")
def rounded(zoo_canonical: nn.Module) -> nn.Module:
    return COMPRESSIONS["int8_matrices"].apply(zoo_canonical)


def test_matrices_of_linear_and_recurrent_layers_change_and_nothing_else(
    zoo_canonical: nn.Module, rounded: nn.Module
) -> None:
    before = dict(zoo_canonical.named_parameters())
    changed = {name for name, p in rounded.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {
        *(f"recurrent.0.weight_{k}_l0{d}" for k in ("ih", "hh") for d in ("", "_reverse")),
        "linear.0.weight",
        "classifier.weight",
    }
    for name in changed:
        weight = rounded.get_parameter(name)
        assert max(len(row.unique()) for row in weight) <= 255
        torch.testing.assert_close(weight, product(before[name].detach()), rtol=0, atol=0)


def test_the_lstm_computes_with_its_rounded_weights(
    zoo_canonical: nn.Module, rounded: nn.Module
) -> None:
    x = torch.randn(1, 20, 60, generator=torch.Generator().manual_seed(0))
    manual: Any = copy.deepcopy(zoo_canonical.get_submodule("recurrent.0"))
    with torch.no_grad():
        for name, parameter in manual.named_parameters():
            if parameter.ndim == 2:
                parameter.copy_(product(parameter))
            assert torch.equal(parameter, rounded.get_parameter(f"recurrent.0.{name}"))
        expected, given_ = manual(x)[0], rounded.get_submodule("recurrent.0")(x)[0]
        before = zoo_canonical.get_submodule("recurrent.0")(x)[0]
    assert torch.equal(given_, expected)
    assert float((given_ - before).abs().max()) > 1e-4


def test_a_weight_that_is_not_finite_is_named(zoo_canonical: nn.Module) -> None:
    model: Any = copy.deepcopy(zoo_canonical)
    with torch.no_grad():
        model.recurrent[0].weight_hh_l0[3, 4] = float("nan")
    with pytest.raises(RecipeError, match=r"recurrent\.0\.weight_hh_l0: .*not finite"):
        COMPRESSIONS["int8_matrices"].apply(model)
