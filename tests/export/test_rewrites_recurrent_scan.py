"""Scans against the recurrent layers of torch: every kind, direction, length and state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.rewrites.base import REWRITES, apply_rewrites
from export.rewrites.recurrent_scan import RecurrentScan

KINDS: list[type[nn.RNNBase]] = [nn.LSTM, nn.GRU, nn.RNN]
TIME = 13


def as_scan(layer: nn.RNNBase, *, steps: int = 1) -> RecurrentScan:
    scan = REWRITES["recurrent_scan"].replace(layer)
    assert isinstance(scan, RecurrentScan)
    scan.steps = steps
    return scan.eval()


def make_layer(kind: type[nn.RNNBase], **options: bool | int | str) -> nn.RNNBase:
    torch.manual_seed(0)
    layer: nn.RNNBase = kind(6, 8, **options).double().eval()  # type: ignore[arg-type]
    for parameter in layer.parameters():  # the default is small: gates would be all but linear
        nn.init.normal_(parameter, std=0.7)
    return layer.requires_grad_(False)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    """With gradients a scan is traced anew at each call."""
    with torch.no_grad():
        yield


def tensors(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


@pytest.mark.parametrize("steps", [1, 2, 5, TIME])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_states_equal_those_of_torch(
    kind: type[nn.RNNBase], bidirectional: bool, batch: int, steps: int
) -> None:
    layer = make_layer(kind, batch_first=True, bidirectional=bidirectional)
    scan = as_scan(layer, steps=steps)
    x = torch.randn(batch, TIME, 6, dtype=torch.double)
    given = torch.randn(2, 1 + bidirectional, batch, 8, dtype=torch.double)
    pair = (given[0], given[1])
    for state in (None, pair if kind is nn.LSTM else given[0]):
        expected, expected_state = layer(x, state)
        outputs, final = scan(x, state)
        assert torch.allclose(outputs, expected, rtol=0, atol=1e-13)
        for one, other in zip(tensors(final), tensors(expected_state), strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_time_first_and_no_biases(kind: type[nn.RNNBase]) -> None:
    layer = make_layer(kind, bidirectional=True, bias=False)
    x = torch.randn(TIME, 2, 6, dtype=torch.double)
    assert torch.allclose(as_scan(layer, steps=4)(x)[0], layer(x)[0], rtol=0, atol=1e-13)


def test_relu_networks() -> None:
    layer = make_layer(nn.RNN, nonlinearity="relu", batch_first=True)
    x = torch.randn(1, TIME, 6, dtype=torch.double) * 0.1
    assert torch.allclose(as_scan(layer)(x)[0], layer(x)[0], rtol=1e-12, atol=1e-13)


def test_trained_weights_on_speech(zoo_canonical: nn.Module, speech: NDArray[np.float32]) -> None:
    exact = apply_rewrites(zoo_canonical, []).double()
    rewritten = apply_rewrites(exact, ["recurrent_scan"])
    assert not any(isinstance(module, nn.RNNBase) for module in rewritten.modules())
    x = torch.from_numpy(speech[:1]).double().reshape(1, 1, -1)
    with torch.inference_mode():
        difference = rewritten(x) - exact(x)
    assert difference.abs().max() < 1e-12


def test_what_it_cannot_do_is_left_alone() -> None:
    rewrite = REWRITES["recurrent_scan"]
    assert rewrite.replace(nn.LSTM(6, 8, num_layers=2)) is None
    assert rewrite.replace(nn.LSTM(6, 8, proj_size=4)) is None
    assert rewrite.replace(nn.Linear(6, 8)) is None
