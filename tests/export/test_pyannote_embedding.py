"""pyannote's embedding networks: front-end, pooling, checkpoints, and ONNX of plausible weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, load_model
from export.models.base import MODELS
from export.models.embedding import AveragedWeights, NearestWeights, settle
from export.models.pyannote_embedding import UnbiasedStatistics
from export.models.wespeaker_resnet34 import KaldiLogMel, kaldi_fbank
from export.pipeline import Exporter
from export.pyannote_import import pyannote_audio
from export.types import Role
from runtime_checks.inputs import speaker_weights
from runtime_checks.runners.base import RUNNERS

len(BACKENDS)  # recipes are registered by their backends
NAMES = ("XVectorSincNet", "WeSpeakerResNet34")


def seeded(name: str) -> nn.Module:
    """Published shape, random weights, statistics of batch norms as training might leave them."""
    torch.manual_seed(0)
    module = MODELS[name].build({"frames": {"window_s": 2.0}})
    norms: list[Any] = [
        m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    for norm in norms:
        torch.nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_pyannote_loads_and_exports(
    name: str, speech: NDArray[np.float32], tmp_path: Path
) -> None:
    module: Any = seeded(name)
    checkpoint = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "pyannote.audio": {
            "versions": {},
            "architecture": {"module": "pyannote.audio.models.embedding", "class": name},
            "specifications": None,
        },
    }
    torch.save(checkpoint, tmp_path / "pytorch_model.bin")
    loaded = load_model(tmp_path / "pytorch_model.bin")
    assert loaded.spec.role is Role.EMBEDDING
    assert loaded.spec.inputs[1].shape == (1, 3, 293)
    architecture = MODELS[name]
    spec = architecture.with_window(loaded.module, loaded.spec, 2.0)
    model = LoadedModel(**{**vars(loaded), "spec": spec})
    artifact = Exporter(model).export(RECIPES["onnx_ort/fp32"], tmp_path)
    runner = RUNNERS["onnx_ort"].open(tmp_path / artifact.path, spec, threads=1)
    given = {
        "waveform": speech[0][None, None, :32000],
        "weights": speaker_weights(speakers=3, frames=spec.geometry.num_frames),
    }
    found = runner.run(given)["embeddings"]
    with torch.inference_mode():
        exact = module.double()(*(torch.from_numpy(each).double() for each in given.values()))
    lengths = exact.norm(dim=2, keepdim=True)
    assert (np.abs(found - exact.numpy()) / lengths.numpy()).max() < 1e-5
    assert not np.allclose(found[0, 0], found[0, 1], atol=1e-3)
    assert not artifact.graph_stats.portable


def test_the_filter_bank_is_kaldis(speech: NDArray[np.float32]) -> None:
    module: Any = seeded("WeSpeakerResNet34").double()
    waveform = torch.from_numpy(speech[:2, None]).double()
    expected = module.compute_fbank(waveform)
    found = KaldiLogMel(kaldi_fbank(module.hparams)).double()(waveform)
    assert (found[:, 0].transpose(1, 2) - expected).abs().max() < 1e-9
    silence = torch.zeros(1, 1, 16000).double()
    quiet = KaldiLogMel(kaldi_fbank(module.hparams)).double()(silence)
    assert quiet.abs().max() < 1e-12


def test_pooling_is_that_of_pyannote() -> None:
    pyannote_audio()
    from pyannote.audio.models.blocks.pooling import StatsPool

    generator = torch.manual_seed(0)
    x = torch.randn(2, 5, 40, generator=generator).double()
    weights = torch.rand(2, 3, 40, generator=generator).double()
    weights[0, 1] = 0  # nobody
    weights[1, 2] = (weights[1, 2] > 0.5).double()
    expected = StatsPool()(x, weights=weights)
    assert torch.allclose(UnbiasedStatistics()(x, weights), expected, rtol=0, atol=1e-12)


def test_weights_find_the_frames_they_are_of() -> None:
    weights = torch.arange(293.0)[None, None]
    expected = torch.nn.functional.interpolate(weights, size=63, mode="nearest")
    assert torch.equal(NearestWeights()(weights, 63), expected)
    align = AveragedWeights(
        step_samples=1280, centre_samples=200, weights_step=270, weights_field=991
    )
    found = align(weights, 63)[0, 0]
    # A weight's number is its time: (centre - field / 2) / step, within half a weight's step.
    places = (200 + 1280 * torch.arange(63.0) - 991 / 2) / 270
    inside = slice(2, 61)
    assert (found - places)[inside].abs().max() < 0.51
    assert float(found[0]) == pytest.approx(0.25)  # before the first weight there is none


def test_settled_indices_are_a_constant_for_one_length() -> None:
    model = MODELS["SpeakerCnn"].build(MODELS["SpeakerCnn"].tiny_config())
    spec = MODELS["SpeakerCnn"].spec(model, name="n", licence="l", trained_on="t")
    inputs = MODELS["SpeakerCnn"].example_inputs(spec)
    with torch.inference_mode():
        before = model(*inputs)
        settle(model, inputs)
        assert torch.equal(model(*inputs), before)
        align: Any = model.get_submodule("align")
        assert align.settled_for == (56, 13) and len(align.settled) == 4 * 13
        longer = MODELS["SpeakerCnn"].with_window(model, spec, 1.5)
        assert model(*MODELS["SpeakerCnn"].example_inputs(longer)).shape == before.shape
