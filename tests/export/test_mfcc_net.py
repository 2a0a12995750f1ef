"""MfccNet: geometry as the network has it, pyannote's side, and its canonical form."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from export.checkpoint import LoadedModel, load_model, save_pyannote
from export.errors import CheckpointError
from export.models.base import MODELS
from export.models.mfcc_net import MfccFrontEnd
from export.models.students import student_design
from export.pyannote_import import pyannote_audio

ENTRY = MODELS["MfccNet"]
PYANNET = MODELS["PyanNet"]


def build(name: str = "mfcc80-1bi", *, powerset: int | None = None, **mfcc: Any) -> Any:
    torch.manual_seed(0)
    config = student_design(name, window_s=1.0)[1]
    config["mfcc"] |= mfcc
    config["lstm"] |= {"hidden_size": 8, "dropout": 0.5}
    config["linear"]["hidden_size"] = 8
    config["specifications"]["powerset_max_classes"] = powerset
    model: Any = ENTRY.build(config)
    # Trained weights are larger than fresh ones; fresh ones would hide a swapped layer.
    for parameter in model.lstm.parameters():
        parameter.data.mul_(4)
    return model


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def scores(module: nn.Module, waveform: Tensor) -> Tensor:
    with torch.inference_mode():
        out: Tensor = module(waveform)
    return out


TINY: Any = ENTRY.build(ENTRY.tiny_config())
TINY_SPEC = ENTRY.spec(TINY, name="tiny", licence="MIT", trained_on="nothing")


@pytest.mark.parametrize(
    ("layers", "kind", "linear", "powerset"),
    [
        pytest.param(*case, id="-".join(map(str, case)))
        for case in product((1, 3), ("uni", "bi"), (0, 2), (None, 2))
    ],
)
def test_canonical_equals_the_model_in_float64(
    layers: int, kind: str, linear: int, powerset: int | None
) -> None:
    model = build(f"mfcc80-{layers}{kind}-{linear}lin", powerset=powerset).double()
    canonical: Any = ENTRY.canonical(model)
    waveform = noise(2, 1, 16000).double()
    expected, got = scores(model, waveform), scores(canonical, waveform)
    assert got.shape == (2, 56, 3 if powerset is None else 7)
    assert (got - expected).abs().max() < 1e-9
    assert expected.std(1).min() > 1e-4  # the scores move, so that equality says something
    assert isinstance(canonical.frontend, MfccFrontEnd)
    assert (len(canonical.recurrent), len(canonical.linear)) == (layers, linear)


def test_a_checkpoint_goes_both_ways(tmp_path: Path) -> None:
    model = build("mfcc120-2uni-2lin", powerset=2)
    path = tmp_path / "small.bin"
    save_pyannote(path, model)
    loaded = load_model(path)
    theirs: Any = pyannote_audio().Model.from_pretrained(path).eval()
    assert type(theirs) is type(loaded.module) is type(model)
    assert loaded.spec.architecture == "MfccNet"
    assert loaded.spec.geometry.num_frames == 56
    assert theirs.specifications == model.specifications
    for module in (loaded.module, theirs):
        assert torch.equal(scores(module, noise(1, 1, 16000)), scores(model, noise(1, 1, 16000)))


def test_weights_of_another_number_of_coefficients_are_refused(tmp_path: Path) -> None:
    model = build("mfcc80-1uni")
    model.hparams["mfcc"]["n_mfcc"] = 120
    path = tmp_path / "small.bin"
    save_pyannote(path, model)
    with pytest.raises(CheckpointError, match="do not fit MfccNet"):
        load_model(path)


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(1261, 40_000))
def test_geometry_is_what_the_network_gives(samples: int) -> None:
    spec = ENTRY.with_window(TINY, TINY_SPEC, samples / 16000)
    assert spec.geometry.window_samples == samples
    assert scores(TINY, torch.zeros(1, 1, samples)).shape == spec.outputs[0].shape


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(2000, 5000),
    n_fft=st.integers(16, 600),
    beside=st.integers(0, 200),
    hop=st.integers(1, 700),
)
def test_geometry_of_other_frames(samples: int, n_fft: int, beside: int, hop: int) -> None:
    model = build(n_mfcc=8, n_mels=8, n_fft=n_fft, hop_length=hop, field_length=n_fft + beside)
    spec = ENTRY.with_window(model, TINY_SPEC, samples / 16000)
    assert scores(model, noise(1, 1, samples)).shape == spec.outputs[0].shape
    assert spec.geometry.frame_step_samples == hop
    assert spec.geometry.receptive_field_samples == n_fft + beside


def test_frames_lie_where_those_of_pyannet_lie(zoo_model: LoadedModel) -> None:
    other: Any = zoo_model.module
    for window_s in (0.1, 1.0, 5.0, 10.0):
        mine = ENTRY.with_window(TINY, TINY_SPEC, window_s).geometry
        assert mine == PYANNET.with_window(other, zoo_model.spec, window_s).geometry
    for frame in (0, 1, 100):
        assert TINY.receptive_field_center(frame) == other.receptive_field_center(frame)


@pytest.mark.parametrize(("n_fft", "field"), [(400, 991), (400, 400), (320, 401)])
def test_a_frame_looks_at_the_middle_of_its_field(n_fft: int, field: int) -> None:
    """Gradients of a frame's coefficients, before the norm, which looks at all of the window.

    Hann's window is zero at its first sample: of n_fft samples n_fft - 1 count.
    """
    canonical: Any = ENTRY.canonical(build(n_fft=n_fft, field_length=field).double())
    frontend = canonical.frontend
    frontend.norm = nn.Identity()
    frontend.mfcc.amplitude_to_DB.top_db = None  # the floor looks at all of the window too
    waveform = noise(1, 1, 8000).double().requires_grad_()
    frame = 7
    (gradient,) = torch.autograd.grad(frontend(waveform)[0, :, frame].sum(), waveform)
    seen = gradient[0, 0].nonzero()
    start, beside = frame * 270, field - n_fft
    assert int(seen.min()) == start + beside // 2 + 1
    assert int(seen.max()) == start + beside // 2 + n_fft - 1
    assert abs((int(seen.min()) + int(seen.max()) + 1) / 2 - (start + field / 2)) <= 1


def test_windows_of_a_batch_do_not_look_at_each_other() -> None:
    """The floor of the decibel scale belongs to a window: a loud one must not silence others."""
    loud, quiet = noise(1, 1, 16000), noise(1, 1, 16000).flip(2) * 1e-6
    together = scores(TINY, torch.cat([loud, quiet]))
    assert torch.allclose(together[:1], scores(TINY, loud), rtol=0, atol=1e-6)
    assert torch.allclose(together[1:], scores(TINY, quiet), rtol=0, atol=1e-6)


def test_gain_changes_nothing(speech: Any) -> None:
    waveforms = torch.from_numpy(speech)[:, None].double()
    frontend = TINY.frontend.double()
    expected = frontend(waveforms)
    assert expected.std() > 0.5
    assert torch.allclose(frontend(waveforms * 10), expected, rtol=0, atol=1e-6)
    TINY.float()


@pytest.mark.parametrize("mfcc", [{"n_fft": 992}, {"hop_length": 0}, {"n_fft": 0}])
def test_frames_that_fit_no_field_are_refused(mfcc: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="do not fit fields of 991"):
        build(**mfcc)


def test_a_window_of_a_single_frame_is_refused() -> None:
    with pytest.raises(CheckpointError, match="at least 1261 samples"):
        ENTRY.with_window(TINY, TINY_SPEC, 1260 / 16000)
