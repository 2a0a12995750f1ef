"""Peers on a real model: the stock lowering runs, and what does not work is left out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.checkpoint import LoadedModel
from export.models.base import MODELS
from runtime_checks.timing.peers import COMPILED, STOCK, OpenCompiled, find_peers


def tiny_model() -> LoadedModel:
    """The least PyanNet, of 0.1 s windows: the stock lowering takes seconds a frame and layer."""
    architecture = MODELS["PyanNet"]
    torch.manual_seed(0)
    config = architecture.tiny_config()
    config["lstm"]["num_layers"] = 1
    module = architecture.build(config).eval()
    spec = architecture.spec(module, name="tiny", licence="none", trained_on="nothing")
    spec = architecture.with_window(module, spec, 0.1)
    return LoadedModel(module, spec, source="tiny", sha256="", card="", licence_text="")


def broken_model() -> LoadedModel:
    """A model that cannot be loaded in another process."""
    raise OSError("the weights are gone")


@pytest.mark.slow
def test_the_stock_lowering_computes_what_pytorch_computes(tmp_path: Path) -> None:
    model = tiny_model()
    (peer,), not_run = find_peers(
        [STOCK], load=tiny_model, spec=model.spec, folder=tmp_path, limit_s=200
    )
    assert not_run == {} and peer.name == STOCK
    window = np.random.default_rng(0).normal(0, 0.1, (1, 1, model.spec.geometry.window_samples))
    found: Any = peer.open(1)(window.astype(np.float32))
    with torch.inference_mode():
        expected = model.module(torch.from_numpy(window).float()).numpy()
    np.testing.assert_allclose(found["scores"], expected, rtol=0, atol=1e-4)


def test_a_peer_that_takes_too_long_or_fails_is_left_out_with_its_reason(tmp_path: Path) -> None:
    spec = tiny_model().spec
    find = partial(find_peers, spec=spec, folder=tmp_path)
    assert find([STOCK], load=tiny_model, limit_s=0.1) == (
        [],
        {STOCK: "it was not done after 0.1 s"},
    )
    found, not_run = find([COMPILED, STOCK], load=broken_model, limit_s=100)
    assert found == []
    assert not_run == dict.fromkeys([COMPILED, STOCK], "OSError: the weights are gone")


def test_compiled_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def note(module: nn.Module) -> nn.Module:
        compiled.append(module)
        return module

    # Compiling itself takes a C++ compiler and minutes; what is tested is that it is asked for.
    monkeypatch.setattr(torch, "compile", note)
    module = nn.Identity()
    OpenCompiled(lambda: module)(1)(np.zeros((1, 1, 4), np.float32))
    assert compiled == [module]
