"""Networks that go on where they stopped: what they compute, what they take, who has none."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from export.checkpoint import LoadedModel, load_model
from export.errors import RecipeError
from export.models.base import MODELS
from export.models.running import RunningNorm, as_heard, keeps, stream_spec, why_not_streaming
from export.models.students import student_design
from export.pipeline import Exporter, artifact_name, hop_of, plan
from export.rewrites.streaming import streaming_form
from export.types import Artifact, Initial, StreamSpec
from runtime_checks.runners.base import RUNNERS
from runtime_checks.stateful import StatefulStream, StreamedWindows

LIMITS = {"onnx_ort": 1e-5, "executorch_xnnpack": 1e-5, "coreml_mlprogram": 1e-5}


@pytest.fixture(scope="module")
def student() -> LoadedModel:
    return load_model("mfcc80-1uni")


def small(name: str) -> LoadedModel:
    torch.manual_seed(0)
    architecture, config = student_design(name, window_s=1.0)
    config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 16
    entry = MODELS[architecture]
    module = entry.build(config)
    spec = entry.spec(module, name=name, licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, name, "0" * 64, "", "")


def canonical(model: LoadedModel) -> nn.Module:
    return MODELS[model.spec.architecture].canonical(model.module)


def hop_by_hop(net: nn.Module, stream: StreamSpec, audio: Tensor) -> Tensor:
    states = [torch.zeros([n or 1 for n in t.shape], dtype=audio.dtype) for t in stream.inputs[1:]]
    states[0] = audio[:, :, : stream.lead_samples]
    scores = []
    for begin in range(
        stream.lead_samples, audio.shape[2] - stream.hop_samples + 1, stream.hop_samples
    ):
        given = audio[:, :, begin : begin + stream.hop_samples]
        with torch.inference_mode():
            now, *states = net(given, *states)
        scores.append(now)
    return torch.cat(scores, dim=1)


@pytest.mark.parametrize("gain", [1.0, 1e-3, 0.0])
def test_hops_give_what_the_whole_recording_gives(
    gain: float, student: LoadedModel, speech: NDArray[np.float32]
) -> None:
    # Two windows end to end, 10 s, in which everything that is carried has long been forgotten.
    audio = torch.from_numpy(speech[:2].reshape(1, 1, -1) * gain)
    # From float64 weights, so that constants are not rounded before they are compared.
    net, stream = streaming_form(canonical(student).double(), student.spec, hop_s=0.5)
    with torch.inference_mode():
        heard = as_heard(student.module, student.spec)
        whole = copy.deepcopy(heard).double()(audio.double())
    for heard_as, limit in ((audio.double(), 1e-10), (audio, 1e-4)):
        found = hop_by_hop(copy.deepcopy(net).to(heard_as.dtype), stream, heard_as)
        assert found.shape[1] == 20 * 29
        assert (found - whole[:, : found.shape[1]]).abs().max() < limit


@settings(max_examples=10, deadline=None)
@given(hop_s=st.floats(0.017, 1.5), layers=st.integers(1, 3), seed=st.integers(0, 99))
def test_any_hop_gives_the_same(hop_s: float, layers: int, seed: int) -> None:
    model = small(f"mfcc80-{layers}uni")
    torch.manual_seed(seed)
    audio = torch.randn(1, 1, 40000, dtype=torch.float64)
    net, stream = streaming_form(canonical(model).double(), model.spec, hop_s=hop_s)
    assert stream.hop_samples <= max(round(hop_s * 16000), 270)
    found = hop_by_hop(net, stream, audio)
    with torch.inference_mode():
        whole = as_heard(model.module, model.spec).double()(audio)
    assert (found - whole[:, : found.shape[1]]).abs().max() < 1e-10


def test_the_running_norm_is_the_mean_and_deviation_of_what_was_heard() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 40, dtype=torch.float64) * 5 - 300
    found = RunningNorm(epsilon=1.0, keeps=0.9)(x)
    weights = 0.9 ** torch.arange(24, -1, -1, dtype=torch.float64)
    heard = x[0, :, :25]
    mean = (heard * weights).sum(1) / weights.sum()
    variance = ((heard - mean[:, None]) ** 2 * weights).sum(1) / weights.sum()
    expected = (heard[:, -1] - mean) / torch.sqrt(variance + 1)
    torch.testing.assert_close(found[0, :, 24], expected, rtol=1e-9, atol=1e-9)


def test_what_is_remembered_is_as_old_as_the_frames_of_a_window() -> None:
    ages = torch.arange(100_000, dtype=torch.float64)
    weights = keeps(293) ** ages
    assert float((weights * ages).sum() / weights.sum()) == pytest.approx(293 / 2, abs=1)


def test_an_artifact_says_what_it_takes_and_gives(student: LoadedModel) -> None:
    stream = stream_spec(student.spec, canonical(student), hop_s=0.5)
    assert (stream.hop_samples, stream.hop_frames, stream.lead_samples) == (7830, 29, 810)
    shapes = {tensor.name: tensor.shape for tensor in (*stream.inputs, *stream.outputs)}
    assert shapes == {
        "waveform": (1, 1, 7830),
        "scores": (1, 29, 3),
        "tail0": (1, 1, 810),
        "tail": (1, 1, 810),
        "norm0": (1, 4, 80),
        "norm": (1, 4, 80),
        "h0": (1, 1, 128),
        "h": (1, 1, 128),
        "c0": (1, 1, 128),
        "c": (1, 1, 128),
    }
    assert {s.input: s.output for s in stream.states} == {
        "tail0": "tail", "norm0": "norm", "h0": "h", "c0": "c"
    }  # fmt: skip
    assert [s.initial for s in stream.states] == [Initial.AUDIO, *[Initial.ZEROS] * 3]


@pytest.mark.parametrize("backend", sorted(LIMITS))
def test_every_backend_carries_two_layers_states(
    backend: str, speech: NDArray[np.float32], tmp_path: Path
) -> None:
    model = small("mfcc80-2uni")
    (_, recipe) = plan(model, backends=[backend], recipes=[], streaming_hop_s=0.25).recipes
    artifact = Exporter(model).export(recipe, tmp_path)
    stream = artifact.stream
    assert stream is not None
    assert stream.hop_samples == 14 * 270
    runner = RUNNERS[backend].open(
        tmp_path / artifact.path, artifact.contract(model.spec), threads=1
    )
    assert (runner.inputs, runner.outputs) == (stream.inputs, stream.outputs)
    window = speech[0][:24000]
    with torch.inference_mode():
        heard = as_heard(model.module, model.spec).double()
        whole = heard(torch.from_numpy(window)[None, None].double())[0].numpy()
    found = StreamedWindows(runner, stream, num_frames=len(whole)).run(
        {"waveform": window[None, None]}
    )["scores"][0]
    assert np.abs(found - whole).max() < LIMITS[backend]


def test_a_hop_of_another_length_is_an_error(student: LoadedModel) -> None:
    stream = stream_spec(student.spec, canonical(student), hop_s=0.5)
    runner: Any = None
    run = StatefulStream(runner, stream)
    assert run.needs == 7830 + 810
    with pytest.raises(ValueError, match="7830 samples, the next hop takes 8640"):
        run.push(np.zeros(7830, np.float32))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mfcc80-1bi", "looks ahead"),
        ("sinc-1bi", "looks ahead"),
        ("sinc-1uni", "SincNet normalises over the whole window four times"),
        ("mfcc80-1uni-gru", "no LSTMs"),
    ],
)
def test_who_cannot_stream_is_told_why(name: str, reason: str, tmp_path: Path) -> None:
    model = small(name)
    assert reason in (why_not_streaming(canonical(model)) or "")
    with pytest.raises(RecipeError, match=f"{name}: .*{reason}.*mfcc80-1uni"):
        plan(model, backends=[], recipes=[], streaming_hop_s=0.5)
    recipe = plan(model, backends=["onnx_ort"], recipes=[]).recipes[0]
    asked = recipe.model_copy(update={"options": {"streaming": 0.5}})
    with pytest.raises(RecipeError, match=reason):
        Exporter(model).export(asked, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_stateful_artifact_with_integers_is_refused_by_executorch(student: LoadedModel) -> None:
    with pytest.raises(RecipeError, match=r"executorch_xnnpack/int8-dynamic: .*expand_copy"):
        plan(
            student, backends=["executorch_xnnpack"], recipes=["int8-dynamic"], streaming_hop_s=0.5
        )


def test_a_stateful_artifact_is_made_beside_the_one_for_windows(student: LoadedModel) -> None:
    planned = plan(student, backends=["onnx_ort"], recipes=["fp32", "fp16"], streaming_hop_s=0.5)
    assert [(r.name, hop_of(r)) for r in planned.recipes] == [
        ("fp32", None), ("fp32", 0.5), ("fp16", None), ("fp16", 0.5)
    ]  # fmt: skip
    from export.backends.base import BACKENDS

    names = [
        artifact_name(r, BACKENDS["onnx_ort"], role=student.spec.role) for r in planned.recipes[:2]
    ]
    assert names == ["segmentation.fp32.onnx", "segmentation.fp32.streaming.onnx"]


@pytest.mark.parametrize("value", [True, "often", -1])
def test_a_hop_that_is_no_length_is_refused(value: object, student: LoadedModel) -> None:
    recipe = plan(student, backends=["onnx_ort"], recipes=[]).recipes[0]
    with pytest.raises(RecipeError, match=r"streaming is .*expected seconds"):
        hop_of(recipe.model_copy(update={"options": {"streaming": value}}))


def test_artifacts_of_older_bundles_have_no_stream() -> None:
    assert Artifact.model_fields["stream"].default is None
