"""PyanNet: geometry as the network has it, and a canonical form that computes the same."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.checkpoint import LoadedModel, with_window
from export.errors import CheckpointError
from export.models.base import MODELS
from export.models.pyannet import split_recurrence, student_config

ENTRY = MODELS["PyanNet"]


def build(*, layers: int, kind: str, linear: int, monolithic: bool, powerset: int | None) -> Any:
    torch.manual_seed(layers)
    config = student_config(f"sinc-{layers}{kind}-{linear}lin", window_s=1.0)
    config["lstm"] |= {"hidden_size": 8, "monolithic": monolithic, "dropout": 0.5}
    config["linear"]["hidden_size"] = 8
    config["specifications"]["powerset_max_classes"] = powerset
    model: Any = ENTRY.build(config)
    # Trained weights are larger than fresh ones; fresh ones would hide a swapped layer.
    for parameter in model.lstm.parameters():
        parameter.data.mul_(4)
    return model


def scores(module: nn.Module, waveform: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = module(waveform)
    return out


@pytest.mark.parametrize(
    ("layers", "kind", "monolithic", "linear", "powerset"),
    [
        pytest.param(*case, id="-".join(map(str, case)))
        for case in product((1, 2, 4), ("uni", "bi"), (True, False), (0, 2), (None, 2))
    ],
)
def test_canonical_equals_pyannote_in_float64(
    layers: int, kind: str, monolithic: bool, linear: int, powerset: int | None
) -> None:
    model = build(
        layers=layers, kind=kind, linear=linear, monolithic=monolithic, powerset=powerset
    ).double()
    canonical: Any = ENTRY.canonical(model)
    waveform = torch.randn(2, 1, 16000, generator=torch.Generator().manual_seed(0)).double()
    expected, got = scores(model, waveform), scores(canonical, waveform)
    assert got.shape == (2, 56, 3 if powerset is None else 7)
    assert (got - expected).abs().max() < 1e-9
    assert expected.std(1).min() > 1e-4  # the scores move, so that equality says something
    assert len(canonical.recurrent) == layers
    assert len(canonical.linear) == linear
    total = got.exp().sum(-1)
    if powerset is not None:
        torch.testing.assert_close(total, torch.ones_like(total))


def test_canonical_keeps_nothing_of_pyannote_but_the_filterbank(zoo_canonical: nn.Module) -> None:
    modules = {type(m).__module__.split(".")[0] for m in zoo_canonical.modules()}
    assert modules == {"torch", "export", "asteroid_filterbanks"}
    assert not zoo_canonical.training


def test_canonical_equals_trained_weights_on_speech(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, speech: Any
) -> None:
    waveforms = torch.from_numpy(speech)[:, None]
    expected = scores(zoo_model.module, waveforms)
    assert (scores(zoo_canonical, waveforms) - expected).abs().max() < 1e-5
    assert (expected > 0.5).float().mean() > 0.1  # somebody speaks


def test_a_split_stack_has_copies() -> None:
    lstm: Any = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    layers: list[Any] = list(split_recurrence(lstm))
    assert [layer.input_size for layer in layers] == [3, 8]
    with torch.no_grad():
        lstm.weight_hh_l1_reverse.zero_()
    assert layers[1].weight_hh_l0_reverse.abs().sum() > 0


@pytest.mark.parametrize(
    ("window_s", "samples", "frames"),
    [(5.0, 80_000, 293), (2.0, 32_000, 115), (10.0, 160_000, 589)],
)
def test_geometry_of_published_windows(
    window_s: float, samples: int, frames: int, zoo_model: LoadedModel
) -> None:
    geometry = with_window(zoo_model, window_s).spec.geometry
    assert (geometry.window_samples, geometry.num_frames) == (samples, frames)
    assert (geometry.frame_step_samples, geometry.receptive_field_samples) == (270, 991)
    assert geometry.sample_rate_hz == 16000


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1261, 40_000))
def test_geometry_is_what_the_network_gives(samples: int) -> None:
    model = TINY
    spec = ENTRY.with_window(model, TINY_SPEC, samples / 16000)
    assert spec.geometry.window_samples == samples
    assert spec.geometry.num_frames == (samples - 721) // 270
    out = scores(model, torch.zeros(1, 1, samples))
    assert out.shape == spec.outputs[0].shape
    assert spec.inputs[0].shape == (1, 1, samples)


TINY = ENTRY.build(ENTRY.tiny_config())
TINY_SPEC = ENTRY.spec(TINY, name="tiny", licence="MIT", trained_on="nothing")


def test_a_frame_sees_its_receptive_field_and_nothing_else(zoo_canonical: Any) -> None:
    """The geometry's step and field against gradients through the convolutions and pools."""
    frontend = zoo_canonical.frontend
    waveform = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    waveform.requires_grad_()
    x = waveform
    for index, (conv, pool) in enumerate(zip(frontend.conv1d, frontend.pool1d, strict=True)):
        x = pool(conv(x).abs() if index == 0 else conv(x))
    frame = 7
    (gradient,) = torch.autograd.grad(x[0, :, frame].sum(), waveform)
    seen = gradient[0, 0].nonzero()
    assert frame * 270 <= int(seen.min()) < frame * 270 + 30
    assert frame * 270 + 991 - 30 <= int(seen.max()) < frame * 270 + 991


def test_a_window_of_a_single_frame_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"window of 1260 samples.*at least 1261 samples"):
        ENTRY.with_window(TINY, TINY_SPEC, 1260 / 16000)


def test_specification_of_a_powerset_model() -> None:
    model = build(layers=1, kind="bi", linear=1, monolithic=True, powerset=2)
    spec = ENTRY.spec(model, name="x", licence="MIT", trained_on="y")
    assert spec.classes == ("speaker#1", "speaker#2", "speaker#3")
    assert (spec.powerset_max_classes, spec.activation) == (2, "log_softmax")
    assert spec.outputs[0].shape == (1, 56, 7)
    assert TINY_SPEC.activation == "sigmoid"


def test_names_of_students() -> None:
    config = student_config("sinc-2uni-3lin")
    assert config["lstm"]["num_layers"] == 2
    assert config["lstm"]["bidirectional"] is False
    assert config["linear"]["num_layers"] == 3
    assert student_config("sinc-1bi")["linear"]["num_layers"] == 1
    for name in ("sinc-0bi", "sinc-1", "sinc-1bi-", "transformer"):
        with pytest.raises(CheckpointError, match="not the name of a student"):
            student_config(name)


def test_example_inputs_are_the_same_every_time() -> None:
    first, second = ENTRY.example_inputs(TINY_SPEC), ENTRY.example_inputs(TINY_SPEC)
    assert torch.equal(first[0], second[0])
    assert first[0].shape == (1, 1, 16000)
