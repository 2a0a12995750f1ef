"""The GE2E encoder: its front-end, which frames it hears, and how published weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, load_model
from export.errors import CheckpointError
from export.models.base import MODELS
from export.models.ge2e import Ge2eEncoder, LastState, Partials
from export.pipeline import Exporter
from export.pyannote_import import torchaudio
from export.rewrites.base import apply_rewrites
from export.types import Role
from runtime_checks.runners.base import RUNNERS

len(BACKENDS)  # recipes are registered by their backends

PUBLISHED = {
    "sample_rate_hz": 16000,
    "mel_window_ms": 25,
    "mel_step_ms": 10,
    "n_mels": 40,
    "partial_window_frames": 160,
    "source": "somewhere",
    "license": "Apache-2.0",
}


@pytest.fixture(scope="module")
def encoder() -> Any:
    torch.manual_seed(0)
    return Ge2eEncoder(hidden_size=32, num_layers=2, dimension=16).double().eval()


def waves(speech: NDArray[np.float32], index: int) -> Tensor:
    return torch.from_numpy(speech[index])[None, None].double()


def test_mel_energies_are_torchaudios(encoder: Any, speech: NDArray[np.float32]) -> None:
    mel = torchaudio().transforms.MelSpectrogram(
        n_fft=400, hop_length=160, n_mels=40, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )
    waveform = waves(speech, 0)
    expected = mel.double()(waveform[:, 0]).transpose(1, 2)
    found = encoder.frontend(waveform)
    assert found.shape == expected.shape == (1, 501, 40)
    assert (found - expected).abs().max() < 1e-6 * expected.max()  # its window is float32


def test_parts_are_what_gathering_by_hand_gives() -> None:
    x = torch.arange(20.0)[None, :, None]
    counts = torch.zeros(1, 3, 20)
    counts[0, 0, 5:12] = 1  # longer than a part
    counts[0, 1, [2, 9, 17]] = 1  # shorter: repeated
    found = Partials(length=4, count=3)(x, counts)[0, :, :, 0].reshape(3, 3, 4)
    assert found[0].tolist() == [[5, 6, 7, 8], [6, 7, 8, 9], [8, 9, 10, 11]]
    assert found[1].tolist() == [[2, 9, 17, 2]] * 3
    assert not found[2].any()  # of a speaker who has no frame


def test_nothing_is_heard_of_frames_that_do_not_count(
    encoder: Any, speech: NDArray[np.float32]
) -> None:
    weights = torch.zeros(1, 2, 293).double()
    weights[0, 0, 40:150] = 0.8
    weights[0, 0, 60] = 0.1  # below half of the speaker's largest
    weights[0, 1, 200:290] = 1
    one, other = waves(speech, 0), waves(speech, 1)
    mixed = one.clone()
    mixed[..., 45000:] = other[..., 45000:]
    with torch.inference_mode():
        alone, both = encoder(one, weights), encoder(mixed, weights)
    assert torch.equal(alone[0, 0], both[0, 0])
    assert (alone[0, 1] - both[0, 1]).abs().max() > 1e-3


def test_quiet_speech_is_brought_to_the_loudness_of_training(
    encoder: Any, speech: NDArray[np.float32]
) -> None:
    weights = torch.ones(1, 1, 293).double()
    quiet = waves(speech, 0) / waves(speech, 0).square().mean().sqrt() * 1e-2
    with torch.inference_mode():
        first, second = encoder(quiet, weights), encoder(quiet / 30, weights)
        assert torch.allclose(first, second, rtol=0, atol=1e-9)
        assert not torch.allclose(first, encoder(quiet * 30, weights), rtol=0, atol=1e-4)


def test_published_weights_are_read_from_their_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = MODELS["Ge2eEncoder"].build({})
    save_file(made.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    loaded = load_model(tmp_path)
    assert loaded.spec.role is Role.EMBEDDING
    assert loaded.spec.name == tmp_path.name
    assert loaded.spec.licence == "Apache-2.0"
    assert [tensor.shape for tensor in loaded.spec.inputs] == [(1, 1, 80000), (1, 3, 293)]
    assert loaded.spec.outputs[0].shape == (1, 3, 256)
    inputs = MODELS["Ge2eEncoder"].example_inputs(loaded.spec)
    with torch.inference_mode():
        assert torch.equal(loaded.module(*inputs), made(*inputs))
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED | {"n_mels": 80}))
    with pytest.raises(CheckpointError, match="not loadable"):
        load_model(tmp_path)


@pytest.mark.parametrize("rows", [[0, 0, 0], [1, 1, 1], [0, 1, 2], [1, 1, 0], [2, 0, 0], [1, 2, 1]])
def test_rows_that_repeat_have_the_states_of_the_rows_before(rows: list[int]) -> None:
    torch.manual_seed(0)
    kinds = torch.cat([torch.zeros(1, 5, 4), torch.randn(2, 5, 4)]).double()
    lstm = LastState(4, 6, 2, steps=5).double().eval()
    found: Any = apply_rewrites(torch.nn.Sequential(lstm), ["repeated_rows"])
    x = kinds[rows]
    with torch.inference_mode():
        assert torch.allclose(found(x), lstm(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("spoken", "rows"), [([], 1), ([1], 2), ([0, 2], 3), ([0, 1, 2], 5)])
def test_the_artifact_computes_the_rows_that_differ_alone(
    spoken: list[int], rows: int, tmp_path: Path, speech: NDArray[np.float32]
) -> None:
    import onnx
    import onnxruntime

    architecture = MODELS["Ge2eEncoder"]
    torch.manual_seed(0)
    module = architecture.build(architecture.tiny_config())
    spec = architecture.spec(module, name="n", licence="l", trained_on="t")
    model = LoadedModel(module, spec, "n", "0" * 64, card="", licence_text="")
    artifact = Exporter(model).export(RECIPES["onnx_ort/fp32"], tmp_path)
    assert not artifact.graph_stats.portable
    weights = np.zeros((1, 3, spec.geometry.num_frames), np.float32)
    for place, frames in ((0, 12), (1, 50), (2, 50)):  # a part is 40 frames of 10 ms, 24 of these
        if place in spoken:
            weights[0, place, :frames] = 1
    given = {"waveform": speech[0][None, None, :16000], "weights": weights}
    runner = RUNNERS["onnx_ort"].open(tmp_path / artifact.path, spec, threads=1)
    with torch.inference_mode():
        expected = module(*(torch.from_numpy(each) for each in given.values())).numpy()
    assert np.abs(runner.run(given)["embeddings"] - expected).max() < 1e-6
    graph = onnx.load(str(tmp_path / artifact.path))
    (kept,) = (node.output[0] for node in graph.graph.node if node.op_type == "Compress")
    graph.graph.output.append(onnx.ValueInfoProto(name=kept))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    assert session.run([kept], given)[0].shape[0] == rows
