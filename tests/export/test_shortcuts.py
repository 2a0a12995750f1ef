"""What is left out of lowering and converting changes nothing, and is put back."""

from __future__ import annotations

import copy
import gc
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from export.backends import coreml_mlprogram, executorch_xnnpack
from export.backends.base import RECIPES
from export.checkpoint import load_model
from export.lowering.shortcuts import FEW_COLLECTIONS, convert_quickly, lower_quickly
from export.pipeline import Exporter


def lowered(shortcut: AbstractContextManager[None]) -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3), nn.Tanh()).eval()
    with shortcut, torch.no_grad():
        return bytes(executorch_xnnpack._lower(module, (torch.rand(1, 1, 32),)).buffer)


def test_histories_that_are_shared_lower_to_the_same_bytes() -> None:
    assert lowered(lower_quickly()) == lowered(nullcontext())


def test_fewer_checks_convert_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, recipe = load_model("mfcc80-1uni"), RECIPES["coreml_mlprogram/int8-weights"]
    hashes = []
    for index, shortcut in enumerate((convert_quickly, nullcontext)):
        monkeypatch.setattr(coreml_mlprogram, "convert_quickly", shortcut)
        folder = tmp_path / str(index)
        folder.mkdir()
        hashes.append(Exporter(model).export(recipe, folder).sha256)
    assert hashes[0] == hashes[1]


def program() -> Any:
    from coremltools.converters.mil import Builder

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 4))])  # type: ignore[untyped-decorator]
    def made(x: Any) -> Any:
        return Builder.tanh(x=Builder.relu(x=x))

    return made


def test_a_broken_program_is_still_found_once_dead_code_is_gone() -> None:
    from coremltools.converters.mil.mil.block import InvalidBlockStateError
    from coremltools.converters.mil.mil.passes.pass_pipeline import (
        PassPipeline,
        PassPipelineManager,
    )

    broken = program()
    relu = broken.functions["main"].find_ops(op_type="relu")[0]
    relu.outputs[0].child_ops.append(relu.outputs[0].child_ops[0])  # counted as used twice
    dead = PassPipeline(["common::dead_code_elimination"])
    with convert_quickly():
        PassPipelineManager.apply_pipeline(program(), dead)
        with pytest.raises(InvalidBlockStateError, match="consumed"):
            PassPipelineManager.apply_pipeline(broken, dead)


def test_everything_is_put_back() -> None:
    from coremltools.converters.mil.mil import Program
    from torch.fx.traceback import NodeSource

    validate, collections = Program.validate, gc.get_threshold()
    for shortcut in (lower_quickly, convert_quickly):
        with pytest.raises(KeyError), shortcut():
            assert gc.get_threshold()[0] == FEW_COLLECTIONS
            raise KeyError
    assert Program.validate is validate
    assert gc.get_threshold() == collections
    source = NodeSource(None, "a pass")
    assert copy.deepcopy(source) is not source
    with lower_quickly():
        assert copy.deepcopy(source) is source
