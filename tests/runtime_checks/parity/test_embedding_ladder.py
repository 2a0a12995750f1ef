"""The ladder of embedding models: the shipped student passes, and what is broken fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.bundle import hash_path, read_golden, write_goldens
from export.checkpoint import LoadedModel, load_model, with_window
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import RUNGS, Artifact, ParityReport, Role, RungName, Verdict
from runtime_checks.check import check
from runtime_checks.inputs import speaker_weights, window_inputs
from runtime_checks.parity.goldens import make_goldens
from runtime_checks.verification import Segments

len(BACKENDS)  # recipes are registered by their backends


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """The shipped student on short windows."""
    return with_window(load_model("cnn4"), 2.0)


@pytest.fixture(scope="module")
def trials() -> Segments:
    """Seconds of the sample recording in which only one of its two speakers talks."""
    samples = load_recording(sample_recording()[0], sample_rate_hz=16000).samples
    starts = {"a": (11.0, 12.0, 13.0, 19.0, 20.0), "b": (15.0, 16.0, 22.0, 23.0, 25.0)}
    pieces = [
        (samples[round(at * 16000) : round((at + 1) * 16000)], name)
        for name, places in starts.items()
        for at in places
    ]
    return Segments(tuple(p for p, _ in pieces), tuple(name for _, name in pieces), 1.0)


@pytest.fixture(scope="module")
def exported(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("bundle")
    artifact = Exporter(model).export(RECIPES["onnx_ort/fp32"], folder)
    assert artifact.path == "embedding.fp32.onnx"
    return artifact, folder / artifact.path


def climb(
    model: LoadedModel, artifact: Artifact, path: Path, trials: Segments | None = None
) -> ParityReport:
    result = check(
        [(artifact, path)],
        spec=model.spec,
        reference=model.module,
        compressed=Exporter(model).compressed,
        recordings=[load_recording(sample_recording()[0], sample_rate_hz=16000)],
        hop_s=6.0,
        trials=trials,
    )
    assert not result.timelines and result.reference_der is None
    return next(report for report in result.reports if report.against == "float")


def value(report: ParityReport, name: str) -> float:
    found = [m.value for rung in report.rungs for m in rung.metrics if m.name == name]
    assert len(found) == 1, name
    return found[0]


def test_the_shipped_student_passes_every_rung(
    model: LoadedModel, exported: tuple[Artifact, Path], trials: Segments
) -> None:
    report = climb(model, *exported, trials=trials)
    assert tuple(rung.name for rung in report.rungs) == RUNGS[Role.EMBEDDING]
    assert {rung.verdict for rung in report.rungs} == {Verdict.PASS}, report.reason
    assert value(report, "cosine_distance") < 1e-9
    assert value(report, "relative_error") < 1e-4
    assert value(report, "delta_eer") == pytest.approx(0, abs=1e-9)
    assert value(report, "eer") == value(report, "reference_eer")
    assert value(report, "trials") == 45


def without_a_filter(graph: onnx.ModelProto) -> None:
    """The first convolution's first filter is lost."""
    node = next(n for n in graph.graph.node if n.op_type == "Conv")
    weights = next(t for t in graph.graph.initializer if t.name == node.input[1])
    values = numpy_helper.to_array(weights).copy()
    values[0] = 0
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))


def speakers_swapped(graph: onnx.ModelProto) -> None:
    """The embeddings come in another order."""
    (output,) = graph.graph.output
    last = next(n for n in graph.graph.node if output.name in n.output)
    last.output[list(last.output).index(output.name)] = "inner"
    order = numpy_helper.from_array(np.array([1, 0, 2]), "order")
    graph.graph.initializer.append(order)
    graph.graph.node.append(
        onnx.helper.make_node("Gather", ["inner", "order"], [output.name], axis=1)
    )


def weights_ignored(graph: onnx.ModelProto) -> None:
    """Every speaker has the whole window."""
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == "weights":
                node.input[index] = "ones"
    shape = [d.dim_value for d in graph.graph.input[1].type.tensor_type.shape.dim]
    graph.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "ones"))


@pytest.mark.parametrize("breaks", [without_a_filter, speakers_swapped, weights_ignored])
def test_what_is_broken_fails_on_its_rung(
    breaks: Callable[[onnx.ModelProto], None],
    model: LoadedModel,
    exported: tuple[Artifact, Path],
    tmp_path: Path,
) -> None:
    artifact, path = exported
    graph = onnx.load(str(path))
    breaks(graph)
    broken = tmp_path / artifact.path
    onnx.save(graph, str(broken))
    report = climb(model, artifact.model_copy(update={"sha256": hash_path(broken)}), broken)
    failed = {rung.name for rung in report.rungs if rung.verdict is Verdict.FAIL}
    assert failed == {RungName.EMBEDDINGS}
    assert value(report, "cosine_distance") > 1e-5


def test_weights_are_those_of_a_segmentation() -> None:
    weights: NDArray[np.float32] = speaker_weights(speakers=5, frames=90)
    assert weights.shape == (1, 5, 90) and weights.min() >= 0 and weights.max() == 1
    assert weights[0, 0].all()
    assert weights[0, 1].nonzero()[0].tolist() == list(range(30, 60))
    assert (np.diff(weights[0, 2]) > 0).all()
    assert (weights[0, 3:].sum(0) == 1).all()


def test_goldens_hold_the_weights(model: LoadedModel, tmp_path: Path) -> None:
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    made = make_goldens(model.module, model.spec, [recording])
    (golden, *_) = write_goldens(tmp_path, made)
    assert golden.weights_path == "goldens/00.weights.f32" and golden.weights_shape is not None
    stored = np.fromfile(tmp_path / golden.weights_path, "<f4").reshape(golden.weights_shape)
    inputs, outputs = read_golden(tmp_path, golden)
    expected = window_inputs(model.spec.inputs, inputs[0, 0])
    assert np.array_equal(stored, expected["weights"])
    assert outputs.shape == model.spec.outputs[0].shape
