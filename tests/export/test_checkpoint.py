"""Checkpoints in and out, and everything that is not one."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.checkpoint import (
    LoadedModel,
    load_model,
    save_model,
    save_pyannote,
    with_window,
    zoo_dir,
    zoo_names,
)
from export.errors import CheckpointError, ExitCode
from export.models.base import MODELS
from export.models.pyannet import student_config
from export.pyannote_import import pyannote_audio

Checkpoint = dict[str, Any]


def make_model(**specifications: Any) -> LoadedModel:
    """A small random model; the keywords replace specifications."""
    torch.manual_seed(1)
    config = student_config("sinc-1uni", window_s=1.0)
    config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 8
    config["specifications"] |= specifications
    module = MODELS["PyanNet"].build(config)
    spec = MODELS["PyanNet"].spec(module, name="small", licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, "small", "0" * 64, "", "")


@pytest.fixture
def small() -> LoadedModel:
    return make_model()


@pytest.fixture
def saved(small: LoadedModel, tmp_path: Path) -> Path:
    path = tmp_path / "small.bin"
    save_pyannote(path, small.module)
    return path


def contents(path: Path) -> Checkpoint:
    """A checkpoint that this test has written, unpickled whole."""
    loaded: Checkpoint = torch.load(path, weights_only=False)
    return loaded


def message(path: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert "\n" not in str(caught.value)
    return str(caught.value)


def scores(module: Any, samples: int = 16000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        out: torch.Tensor = module(torch.randn(1, 1, samples, generator=generator) * 0.1)
    return out


def test_the_embedded_default(zoo_model: LoadedModel) -> None:
    assert "sinc-1bi" in zoo_names()
    assert zoo_model.spec.name == "sinc-1bi"
    assert zoo_model.spec.geometry.num_frames == 293
    assert len(zoo_model.spec.classes) == 3
    assert sum(p.numel() for p in zoo_model.module.parameters()) == 270_445
    assert not zoo_model.module.training
    assert zoo_model.card and zoo_model.licence_text
    beside = zoo_dir() / "sinc-1bi"
    assert load_model(beside).sha256 == zoo_model.sha256
    assert load_model(beside / "model.safetensors").spec == zoo_model.spec


def test_a_multi_label_checkpoint_goes_both_ways(zoo_model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "here" / "pytorch_model.bin"
    path.parent.mkdir()
    save_pyannote(path, zoo_model.module)
    loaded = load_model(path)
    assert loaded.spec.name == "here"
    assert loaded.spec.geometry == zoo_model.spec.geometry
    assert torch.equal(scores(loaded.module), scores(zoo_model.module))
    theirs = pyannote_audio().Model.from_pretrained(path).eval()
    assert torch.equal(scores(theirs), scores(zoo_model.module))
    assert theirs.specifications == zoo_model.module.specifications


def test_a_powerset_checkpoint_goes_both_ways(tmp_path: Path) -> None:
    model = make_model(powerset_max_classes=2)
    assert model.spec.outputs[0].shape == (1, 56, 7)
    path = tmp_path / "powerset.bin"
    save_pyannote(path, model.module)
    loaded = load_model(path)
    assert loaded.spec == model.spec.model_copy(
        update={"name": "powerset", "licence": "unknown", "trained_on": "unknown"}
    )
    assert loaded.spec.activation == "log_softmax"
    theirs = pyannote_audio().Model.from_pretrained(path).eval()
    assert theirs.specifications.num_powerset_classes == 7
    for module in (loaded.module, theirs):
        out = scores(module)
        assert torch.equal(out, scores(model.module))
        torch.testing.assert_close(out.exp().sum(-1), torch.ones(1, 56))


def test_permutation_invariance_is_what_the_checkpoint_says(tmp_path: Path) -> None:
    model = make_model(permutation_invariant=False, classes=["speech", "music"])
    save_pyannote(tmp_path / "types.bin", model.module)
    save_model(tmp_path / "ours", model.module, model.spec, source="test")
    for path in (tmp_path / "types.bin", tmp_path / "ours"):
        spec = load_model(path).spec
        assert (spec.permutation_invariant, spec.classes) == (False, ("speech", "music"))


def test_a_window_of_another_length_changes_the_contract_alone(small: LoadedModel) -> None:
    longer = with_window(small, 2.0)
    assert longer.spec.geometry.window_samples == 32000
    assert longer.spec.inputs[0].shape == (1, 1, 32000)
    assert longer.spec.outputs[0].shape == (1, 115, 3)
    assert longer.module is small.module
    assert with_window(small, None) is small
    with pytest.raises(CheckpointError, match="too short for two output frames"):
        with_window(small, 0.06)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "nothing.bin: no such file or zoo model" in message(tmp_path / "nothing.bin")
    assert "sinc-1bi" in message("sinc-9bi")
    assert "missing/model.safetensors: no such file" in message("missing/model.safetensors")
    assert "no model in this folder" in message(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "config.json" in message(tmp_path)


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_checkpoint(kept: float, saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * kept)])
    said = message(saved)
    assert said.startswith(f"{saved}: not loadable (the file is truncated)")
    assert "Download it again" in said


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello world\n", "neither an archive nor a pickle: it starts with b'hell'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "neither an archive nor a pickle"),
        (pickle.dumps({"a": 1})[:-4], "a pickle that holds more than tensors"),
        (pickle.dumps([1, 2], protocol=2), "a pickle that holds more than tensors"),
    ],
)
def test_what_is_not_a_checkpoint(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    assert reason in message(path)


@pytest.mark.parametrize("value", [{"state_dict": {}}, torch.zeros(3), 5, "text"])
def test_a_torch_file_of_something_else(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "model.bin")
    assert "a file without pyannote's fields" in message(tmp_path / "model.bin")


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("where", ["archive", "raw pickle", "raw pickle, protocol 4"])
def test_a_checkpoint_that_would_run_code_is_refused_by_name(
    where: str, saved: Path, tmp_path: Path
) -> None:
    marker, path = tmp_path / "executed", tmp_path / "bomb.bin"
    checkpoint = contents(saved) | {"callbacks": Bomb(marker)}
    if where == "archive":
        torch.save(checkpoint, path)
    else:
        path.write_bytes(pickle.dumps({"x": Bomb(marker)}, protocol=4 if "4" in where else 2))
    said = message(path)
    if "4" in where:  # the restricted unpickler stops before it comes to the class
        assert "a pickle that holds more than tensors" in said
    else:
        assert "it would run code of posix.system, which is not on the allow-list" in said
    assert not marker.exists()
    contents(path) if where == "archive" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the bomb is a real one


def without_bias(checkpoint: Checkpoint) -> None:
    del checkpoint["state_dict"]["classifier.bias"]


def other_shape(checkpoint: Checkpoint) -> None:
    checkpoint["state_dict"]["classifier.bias"] = torch.zeros(5)


def with_nan(checkpoint: Checkpoint) -> None:
    checkpoint["state_dict"]["classifier.bias"][1] = torch.nan


def other_class(checkpoint: Checkpoint) -> None:
    checkpoint["pyannote.audio"]["architecture"]["class"] = "SSeRiouSS"


def unknown_argument(checkpoint: Checkpoint) -> None:
    checkpoint["hyper_parameters"]["attention"] = 4


def two_tasks(checkpoint: Checkpoint) -> None:
    task = checkpoint["pyannote.audio"]["specifications"]
    checkpoint["pyannote.audio"]["specifications"] = (task, task)


def regression(checkpoint: Checkpoint) -> None:
    task = copy.copy(checkpoint["pyannote.audio"]["specifications"])
    task.problem = type(task.problem).REGRESSION
    checkpoint["pyannote.audio"]["specifications"] = task


def no_weights(checkpoint: Checkpoint) -> None:
    checkpoint["state_dict"] = None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_bias, 'Missing key(s) in state_dict: "classifier.bias"'),
        (other_shape, "size mismatch for classifier.bias"),
        (with_nan, "classifier.bias holds NaN or infinity"),
        (other_class, "unknown architecture SSeRiouSS; expected one of"),
        (unknown_argument, "unexpected keyword argument 'attention'"),
        (two_tasks, "a model of tuple"),
        (regression, "a model of REGRESSION; expected one segmentation task"),
        (no_weights, "a file without pyannote's fields"),
    ],
)
def test_a_checkpoint_that_is_not_a_segmentation_model_we_know(
    damage: Callable[[Checkpoint], None], reason: str, saved: Path
) -> None:
    checkpoint = contents(saved)
    damage(checkpoint)
    torch.save(checkpoint, saved)
    said = message(saved)
    assert said.startswith(f"{saved}: ")
    assert reason in said


def test_safetensors_that_do_not_fit(small: LoadedModel, tmp_path: Path) -> None:
    save_model(tmp_path, small.module, small.spec, source="test")
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    state, described = load_file(weights), json.loads(config.read_text())

    wider = copy.deepcopy(described)
    wider["config"]["lstm"]["hidden_size"] = 9
    config.write_text(json.dumps(wider))
    assert "size mismatch for lstm.weight_ih_l0" in message(tmp_path)

    config.write_text(json.dumps(described | {"architecture": "SSeRiouSS"}))
    assert "SSeRiouSS: no such architecture" in message(tmp_path)
    config.write_text(json.dumps({k: v for k, v in described.items() if k != "licence"}))
    assert "no 'licence' in it" in message(tmp_path)
    config.write_text("{")
    assert "not loadable (Expecting property name" in message(tmp_path)

    config.write_text(json.dumps(described))
    save_file({k: v for k, v in state.items() if k != "classifier.bias"}, weights)
    assert 'Missing key(s) in state_dict: "classifier.bias"' in message(weights)
    weights.write_bytes(b"0" * 100)
    assert str(weights) in message(tmp_path)
