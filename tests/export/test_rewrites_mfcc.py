"""MFCC as matrix products against torchaudio's own, and through every backend."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel, with_window
from export.models.base import MODELS
from export.models.students import student_design
from export.pipeline import Exporter
from export.pyannote_import import pyannote_audio
from export.rewrites.base import apply_rewrites
from export.rewrites.mfcc_4d import MfccFrontEnd4d
from export.rewrites.mfcc_dft import MfccDft
from export.types import Artifact
from runtime_checks.runners.base import RUNNERS

len(BACKENDS)  # recipes are registered by their backends
COEFFICIENTS = (80, 120, 150)
KINDS = ("speech", "silence", "full scale", "quiet", "offset", "half silent")


def transform(n_mfcc: int, **settings: Any) -> Any:
    pyannote_audio()
    from torchaudio.transforms import MFCC

    given = {"n_fft": 400, "hop_length": 270, "n_mels": n_mfcc, "center": False} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mel bands without a bin
        return MFCC(16000, n_mfcc, melkwargs=given)


def inputs(kind: str, speech: NDArray[np.float32]) -> Tensor:
    """Waveforms [batch, 1, samples] in float32."""
    x = torch.from_numpy(speech)[:, None]
    half = torch.cat([x[:, :, :40000], torch.zeros(len(x), 1, 40000)], dim=2)
    made = {
        "speech": x,
        "silence": torch.zeros_like(x),
        "full scale": (x * 100).clamp(-1, 1),
        "quiet": x * 1e-4,
        "offset": 0.5 + 0.5 * x,
        "half silent": half,
    }
    return made[kind]


def distance(got: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return ((got.double() - expected).abs().max() / expected.abs().max()).item()


@cache
def student(name: str) -> LoadedModel:
    """Random weights as large as trained ones."""
    torch.manual_seed(0)
    architecture, config = student_design(name, window_s=2.0)
    entry = MODELS[architecture]
    module: Any = entry.build(config)
    for parameter in module.lstm.parameters():
        nn.init.normal_(parameter, std=0.15)
    for layer in (*module.linear, module.classifier):
        nn.init.normal_(layer.weight, std=0.3)
    spec = entry.spec(module, name=name, licence="MIT", trained_on="nothing")
    return LoadedModel(module, spec, name, "0" * 64, "", "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_mfcc", COEFFICIENTS)
def test_equal_to_torchaudio(n_mfcc: int, kind: str, speech: NDArray[np.float32]) -> None:
    theirs, x = transform(n_mfcc), inputs(kind, speech)
    exact = copy.deepcopy(theirs).double()(x.double())
    assert exact.shape == (4, 1, n_mfcc, 295)
    assert distance(MfccDft(copy.deepcopy(theirs).double())(x.double()), exact) < 1e-12
    mine = distance(MfccDft(theirs)(x), exact)
    assert mine < 5e-6
    assert mine < 2 * distance(theirs(x), exact) + 2e-7


@settings(max_examples=40, deadline=None)
@given(
    n_fft=st.integers(8, 130),
    window=st.floats(0.3, 1),
    hop=st.integers(1, 150),
    more=st.integers(0, 300),
    mels=st.integers(2, 12),
)
def test_equal_to_torchaudio_for_any_frames(
    n_fft: int, window: float, hop: int, more: int, mels: int
) -> None:
    theirs = transform(
        mels, n_fft=n_fft, hop_length=hop, win_length=max(2, int(window * n_fft))
    ).double()
    x = torch.randn(2, 1, n_fft + more, generator=torch.Generator().manual_seed(more)).double()
    x[1] *= 1e-3  # the floor below the loudest is each entry's own
    expected = theirs(x)
    got = MfccDft(theirs)(x)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-6


def test_only_real_products(zoo_model: LoadedModel) -> None:
    model = apply_rewrites(Exporter(student("mfcc80-1uni")).canonical, ["mfcc_dft"])
    frontend = model.get_submodule("frontend")
    graph = torch.export.export(frontend, (torch.zeros(1, 1, 32000),)).graph
    values = [node.meta["val"] for node in graph.nodes if node.op == "call_function"]
    assert {value.dtype for value in values} == {torch.float32}
    called = {str(node.target) for node in graph.nodes if node.op == "call_function"}
    assert not {name for name in called if "fft" in name or "complex" in name}
    assert "aten.linear.default" in called


def test_the_matrices_are_a_third_of_the_transforms(speech: NDArray[np.float32]) -> None:
    bands = MfccDft(transform(80)).bands
    assert sum(buffer.numel() for buffer in bands.buffers()) < 0.35 * 2 * 201 * 400


def test_settings_that_it_does_not_have_are_left_alone() -> None:
    canonical: Any = Exporter(student("mfcc80-1uni")).canonical
    for name, value in (("center", True), ("power", 1.0), ("normalized", True), ("pad", 3)):
        other = copy.deepcopy(canonical)
        setattr(other.frontend.mfcc.MelSpectrogram.spectrogram, name, value)
        left: Any = apply_rewrites(other, ["mfcc_dft", "mfcc_4d"])
        assert type(left.frontend.mfcc) is type(canonical.frontend.mfcc)


@pytest.mark.parametrize("kind", KINDS)
def test_front_ends_in_float32(kind: str, speech: NDArray[np.float32]) -> None:
    """No worse than PyTorch's own; silence is silence and an offset costs nothing."""
    canonical = Exporter(student("mfcc120-1uni")).canonical
    rewritten = apply_rewrites(canonical, ["mfcc_dft", "mfcc_4d"])
    assert isinstance(rewritten.get_submodule("frontend"), MfccFrontEnd4d)
    x = inputs(kind, speech)
    with torch.inference_mode():
        exact = copy.deepcopy(canonical).double().get_submodule("frontend")(x.double())
        own = canonical.get_submodule("frontend")(x)
        mine = rewritten.get_submodule("frontend")(x)
        wide = apply_rewrites(canonical.double(), ["mfcc_dft", "mfcc_4d"])
        assert torch.allclose(wide.get_submodule("frontend")(x.double()), exact, rtol=0, atol=1e-9)
    error, floor = ((y.double() - exact).abs().max().item() for y in (mine, own))
    assert error < max(2e-4, 1.5 * floor)
    if kind == "silence":
        assert error < 1e-6
    if kind == "offset":
        assert error < floor / 10


@pytest.fixture(
    scope="module",
    params=["onnx_ort/fp32", "executorch_xnnpack/fp32"],
    ids=lambda key: str(key).split("/")[0],
)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("mfcc")
    artifact = Exporter(student("mfcc120-1bi")).export(RECIPES[request.param], folder)
    return artifact, folder / artifact.path


@pytest.mark.parametrize("kind", KINDS)
def test_artifacts_give_the_models_scores(
    exported: tuple[Artifact, Path], kind: str, speech: NDArray[np.float32]
) -> None:
    model = student("mfcc120-1bi")
    runner = RUNNERS[exported[0].recipe.backend].open(exported[1], model.spec, threads=1)
    exact = copy.deepcopy(Exporter(model).canonical).double()
    for waveform in inputs(kind, speech)[:, None, :, 8000:40000].contiguous():
        with torch.inference_mode():
            expected = exact(waveform.double()).numpy()
        scores = runner.run({"waveform": waveform.numpy()})["scores"]
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
        if kind == "speech":
            assert expected.std(axis=1).max() > 0.1


def test_the_front_end_is_one_delegate(exported: tuple[Artifact, Path]) -> None:
    artifact = exported[0]
    if artifact.recipe.backend != "executorch_xnnpack":
        pytest.skip("of ExecuTorch only")
    stats = artifact.graph_stats
    # As with SincNet: all before the loop, its body, all after it.
    assert stats.operators["XnnpackBackend"] == 3
    assert BACKENDS["executorch_xnnpack"].fallbacks(stats, artifact.recipe) == {}
    assert artifact.size_bytes < 1.08 * stats.weight_bytes


def test_onnx_of_free_length(tmp_path: Path, speech: NDArray[np.float32]) -> None:
    model = student("mfcc80-1uni")
    recipe = RECIPES["onnx_ort/fp32"].model_copy(update={"options": {"dynamic_length": True}})
    artifact = Exporter(model).export(recipe, tmp_path)
    exact = copy.deepcopy(Exporter(model).canonical).double()
    for samples in (1261, 16001, 32000, 80000):
        other = with_window(model, samples / 16000)
        runner = RUNNERS["onnx_ort"].open(tmp_path / artifact.path, other.spec, threads=1)
        waveform = np.ascontiguousarray(speech[1:2, None, :samples])
        with torch.inference_mode():
            expected = exact(torch.from_numpy(waveform).double()).numpy()
        scores = runner.run({"waveform": waveform})["scores"]
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)


def test_core_ml_keeps_the_front_end_in_float32(tmp_path: Path) -> None:
    backend = BACKENDS["coreml_mlprogram"]
    if reason := backend.unavailable():
        pytest.skip(f"coreml_mlprogram: {reason}")
    from coremltools.models.utils import load_spec
    from coremltools.proto import MIL_pb2

    artifact = Exporter(student("mfcc80-1uni")).export(RECIPES["coreml_mlprogram/fp16"], tmp_path)
    function = load_spec(str(tmp_path / artifact.path)).mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    types = {
        kind: {op.outputs[0].type.tensorType.dataType for op in operations if op.type == kind}
        for kind in ("log", "reduce_max", "maximum", "instance_norm", "lstm")
    }
    assert types.pop("lstm") == {MIL_pb2.DataType.FLOAT16}
    assert set(map(tuple, types.values())) == {(MIL_pb2.DataType.FLOAT32,)}
