"""Compression by what a recipe asks for, and rounding through float16."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.compress.base import COMPRESSIONS, compress_for
from export.compress.half_weights import first_in_float32
from export.errors import RecipeError
from export.types import Precision, Recipe


def recipe(precision: Precision) -> Recipe:
    return Recipe(
        name=precision.value,
        backend="onnx_ort",
        weight_precision=precision,
        activation_precision=Precision.FP32,
    )


@pytest.fixture(scope="module")
def rounded(zoo_canonical: nn.Module) -> nn.Module:
    return compress_for(recipe(Precision.FP16), zoo_canonical)


def test_matrices_are_rounded_and_nothing_else(
    zoo_canonical: nn.Module, rounded: nn.Module
) -> None:
    changed: set[str] = set()
    kept: set[str] = set()
    before = dict(zoo_canonical.named_parameters())
    for name, after in rounded.named_parameters():
        values = before[name].detach().numpy()
        same = np.array_equal(after.detach().numpy(), values)
        (kept if same else changed).add(name)
        if not same:
            expected = values.astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(after.detach().numpy(), expected)
    assert changed == {
        "frontend.conv1d.1.weight",
        "frontend.conv1d.2.weight",
        *(f"recurrent.0.weight_{k}_l0{d}" for k in ("ih", "hh") for d in ("", "_reverse")),
        "linear.0.weight",
        "classifier.weight",
    }
    assert {"frontend.conv1d.0.filterbank.low_hz_", "frontend.wav_norm1d.weight"} <= kept
    assert {"recurrent.0.bias_ih_l0", "frontend.norm1d.0.weight", "linear.0.bias"} <= kept
    assert {p.dtype for p in rounded.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_other_recurrences_are_rounded_too(kind: type[nn.GRU] | type[nn.RNN]) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(kind(8, 8))
    rounded = compress_for(recipe(Precision.FP16), layer)
    for (name, before), after in zip(layer.named_parameters(), rounded.parameters(), strict=True):
        expected = before.half().float() if before.ndim == 2 else before
        assert torch.equal(after, expected), name
        assert torch.equal(after, before) == (before.ndim == 1)


def test_the_lstm_computes_with_its_rounded_weights(
    zoo_canonical: nn.Module, rounded: nn.Module
) -> None:
    """An LSTM holds its weights twice, as parameters and as a flat list: both must change."""
    x = torch.randn(1, 50, 60, generator=torch.Generator().manual_seed(0))
    original: Any = zoo_canonical
    lstm: Any = rounded
    expected = copy.deepcopy(original.recurrent[0])
    for parameter in expected.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.half().float()
    with torch.inference_mode():
        got, want, unrounded = (
            layer(x)[0] for layer in (lstm.recurrent[0], expected, original.recurrent[0])
        )
    assert torch.equal(got, want)
    assert not torch.equal(got, unrounded)


def test_the_model_is_left_alone_and_rounding_again_changes_nothing(
    zoo_canonical: nn.Module, rounded: nn.Module
) -> None:
    assert compress_for(recipe(Precision.FP32), zoo_canonical) is zoo_canonical
    shared = {p.data_ptr() for p in zoo_canonical.parameters()} & {
        p.data_ptr() for p in rounded.parameters()
    }
    assert not shared
    again = COMPRESSIONS["half_weights"].apply(rounded)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), rounded.parameters(), strict=True)
    )


@pytest.mark.parametrize("value", [65520.0, -1e6, float("nan")])
def test_a_weight_beyond_float16_names_its_layer(value: float, zoo_canonical: nn.Module) -> None:
    model: Any = copy.deepcopy(zoo_canonical)
    with torch.no_grad():
        model.recurrent[0].weight_hh_l0_reverse[3, 5] = value
    with pytest.raises(RecipeError, match=r"recurrent\.0\.weight_hh_l0_reverse.*at most 65504"):
        compress_for(recipe(Precision.FP16), model)


def test_the_largest_float16_passes(zoo_canonical: nn.Module) -> None:
    model: Any = copy.deepcopy(zoo_canonical)
    with torch.no_grad():
        model.classifier.weight[0, 0] = 65504.0
    compressed: Any = compress_for(recipe(Precision.FP16), model)
    assert compressed.classifier.weight[0, 0].item() == 65504.0


def test_a_method_that_does_not_exist_is_refused(zoo_canonical: nn.Module) -> None:
    named = recipe(Precision.INT8).model_copy(update={"options": {"compression": "int3"}})
    with pytest.raises(RecipeError, match=r"onnx_ort/int8: no compression method 'int3'.*int8"):
        compress_for(named, zoo_canonical)


@pytest.mark.parametrize(("layers", "half", "small"), [(1, 0, 0), (2, 1, 1), (3, 1, 2), (4, 2, 3)])
def test_the_first_half_of_the_recurrences_is_float32(layers: int, half: int, small: int) -> None:
    net = nn.ModuleList(nn.LSTM(4, 4) for _ in range(layers))
    assert first_in_float32(net) == half
    assert first_in_float32(net, small=True) == small
    assert COMPRESSIONS["half_behind"].keeps(net) == (  # type: ignore[attr-defined]
        "frontend.",
        *(f"recurrent.{i}." for i in range(half)),
    )
