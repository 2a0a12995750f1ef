"""Artifacts that were broken on purpose: each must fail on the rung that is meant to catch it.

All are real ONNX files of the shipped, trained model, and all go through one check together with
an intact one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.bundle import hash_path
from export.checkpoint import LoadedModel
from export.pyannote_import import sample_recording
from export.rewrites.base import apply_rewrites
from export.types import RUNGS, Artifact, ParityReport, Role, RungName, Verdict
from runtime_checks.check import CheckResult, check

Sabotage = Callable[[nn.Module], nn.Module]


class AfterScores(nn.Module):
    """A network with something done to its scores."""

    def __init__(self, network: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        for name, child in network.named_children():
            setattr(self, name, child)
        self._network, self._change = [network], change

    def forward(self, waveform: Tensor) -> Tensor:
        x: Tensor = self.get_submodule("frontend")(waveform).transpose(1, 2)
        for layer in self.get_submodule("recurrent").children():
            x, _ = layer(x)
        for linear in self.get_submodule("linear").children():
            x = F.leaky_relu(linear(x))
        scores = self.get_submodule("activation")(self.get_submodule("classifier")(x))
        return self._change(scores)


def lstm(network: nn.Module) -> nn.LSTM:
    layer = network.get_submodule("recurrent.0")
    assert isinstance(layer, nn.LSTM)
    return layer


def swap_gates(network: nn.Module) -> nn.Module:
    for parameter in lstm(network).parameters():
        i, f, g, o = parameter.data.chunk(4)
        parameter.data = torch.cat([f, i, g, o])
    return network


def swap_directions(network: nn.Module) -> nn.Module:
    state = lstm(network).state_dict()
    for name in [name for name in state if not name.endswith("_reverse")]:
        state[name], state[f"{name}_reverse"] = state[f"{name}_reverse"], state[name]
    lstm(network).load_state_dict(state)
    return network


def raise_epsilon(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm1d):
            assert module.eps == 1e-5
            module.eps = 1e-3
    return network


def permute_speakers(network: nn.Module) -> nn.Module:
    classifier = network.get_submodule("classifier")
    assert isinstance(classifier, nn.Linear)
    for parameter in classifier.parameters():
        parameter.data = parameter.data[[1, 2, 0]]
    return network


def permute_late_frames(scores: Tensor) -> Tensor:
    middle = scores.shape[1] // 2
    return torch.cat([scores[:, :middle], scores[:, middle:, [1, 0, 2]]], dim=1)


def drop_activation(network: nn.Module) -> nn.Module:
    network.activation = nn.Identity()
    return network


def train_on(network: nn.Module) -> nn.Module:
    """The same network some steps of training later: another checkpoint of the same name."""
    samples = load_recording(sample_recording()[0], sample_rate_hz=16000).samples
    batch = torch.from_numpy(samples[: 4 * 80000].reshape(4, 1, 80000).copy())
    target = (network(batch) > 0.5).float().detach()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy(network(batch), target)
        torch.autograd.backward(loss)
        optimizer.step()
    return network.eval()


@dataclass(frozen=True)
class Broken:
    """How to break a network, where that must show and which layer must be named."""

    sabotage: Sabotage
    rung: RungName
    layer: str | None


BROKEN = {
    "gates-swapped": Broken(swap_gates, RungName.SCORES, "recurrent.0"),
    "directions-swapped": Broken(swap_directions, RungName.SCORES, "recurrent.0"),
    "norm-epsilon": Broken(raise_epsilon, RungName.SCORES, "frontend.wav_norm1d"),
    "frame-missing": Broken(
        lambda network: AfterScores(network, lambda s: s[:, :-1]), RungName.CONTRACT, None
    ),
    "frames-shifted": Broken(
        lambda network: AfterScores(network, lambda s: s.roll(1, dims=1)),
        RungName.BOUNDARIES,
        "activation",
    ),
    "speakers-permuted-late": Broken(
        lambda network: AfterScores(network, permute_late_frames),
        RungName.DECISIONS,
        "activation",
    ),
    "speakers-permuted": Broken(permute_speakers, RungName.DECISIONS, "classifier"),
    "sigmoid-missing": Broken(drop_activation, RungName.CONTRACT, "activation"),
    "other-checkpoint": Broken(train_on, RungName.SCORES, "frontend.conv1d.0"),
}


def export(network: nn.Module, model: LoadedModel, path: Path) -> tuple[Artifact, Path]:
    recipe, backend = RECIPES["onnx_ort/fp32"], BACKENDS["onnx_ort"]
    module = apply_rewrites(network, backend.rewrites)
    stats = backend.export(module, model.spec, recipe, path)
    artifact = Artifact(
        path=path.name,
        sha256=hash_path(path),
        size_bytes=path.stat().st_size,
        recipe=recipe,
        rewrites=backend.rewrites,
        dynamic_length=False,
        tool_versions=backend.tool_versions(),
        graph_stats=stats,
    )
    return artifact, path


def perturb_weight(intact: Path, path: Path) -> None:
    """One tensor of the file, off by one per cent; the file stays a valid ONNX model."""
    network = onnx.load(str(intact))
    node = next(node for node in network.graph.node if node.op_type == "LSTM")
    tensor = next(t for t in network.graph.initializer if t.name == node.input[2])
    values = numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).standard_normal(values.shape).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values * (1 + 0.01 * noise), tensor.name))
    path.write_bytes(network.SerializeToString())


@pytest.fixture(scope="module")
def result(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> CheckResult:
    """One check of the intact artifact and of every broken one."""
    len(BACKENDS)
    folder = tmp_path_factory.mktemp("artifacts")
    intact, intact_path = export(zoo_canonical, zoo_model, folder / "intact.onnx")
    artifacts = [(intact, intact_path)]
    for name, broken in BROKEN.items():
        network = broken.sabotage(copy.deepcopy(zoo_canonical))
        artifacts.append(export(network, zoo_model, folder / f"{name}.onnx"))
    perturb_weight(intact_path, folder / "weight-perturbed.onnx")
    (folder / "truncated.onnx").write_bytes(intact_path.read_bytes()[:100_000])
    for name in ("weight-perturbed.onnx", "truncated.onnx"):
        artifacts.append((intact.model_copy(update={"path": name}), folder / name))
    audio, rttm = sample_recording()
    return check(
        artifacts,
        spec=zoo_model.spec,
        reference=zoo_model.module,
        compressed=lambda recipe: zoo_canonical,
        recordings=[load_recording(audio, sample_rate_hz=16000)],
        rttm=rttm,
    )


def reports(result: CheckResult, name: str) -> list[ParityReport]:
    found = [report for report in result.reports if report.artifact_path == f"{name}.onnx"]
    assert [report.against for report in found] == ["compressed", "float"]
    return found


def failed(report: ParityReport) -> set[RungName]:
    return {rung.name for rung in report.rungs if rung.verdict is Verdict.FAIL}


def value(report: ParityReport, rung: RungName, name: str) -> float:
    metrics = next(each.metrics for each in report.rungs if each.name is rung)
    return next(metric.value for metric in metrics if metric.name == name)


def test_the_intact_artifact_passes_every_rung(result: CheckResult) -> None:
    for report in reports(result, "intact"):
        assert {rung.name: rung.verdict for rung in report.rungs} == dict.fromkeys(
            RUNGS[Role.SEGMENTATION], Verdict.PASS
        )
        assert report.verdict is Verdict.PASS
        assert report.first_diverging_layer is None
        assert report.der is not None
        assert report.der.artifact == report.der.reference == result.reference_der


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_artifact_fails_on_its_rung(result: CheckResult, name: str) -> None:
    for report in reports(result, name):
        assert report.verdict is Verdict.FAIL
        assert BROKEN[name].rung in failed(report), report.reason
        assert report.first_diverging_layer == BROKEN[name].layer, report.reason


def test_a_weight_changed_in_the_file_is_found(result: CheckResult) -> None:
    for report in reports(result, "weight-perturbed"):
        assert RungName.SCORES in failed(report)
        assert report.first_diverging_layer == "recurrent.0"


def test_what_cannot_be_opened_fails_and_holds_nothing_up(result: CheckResult) -> None:
    for report in reports(result, "truncated"):
        assert failed(report) == {RungName.CONTRACT}
        assert report.rungs[0].reason and "cannot be opened" in report.rungs[0].reason
        assert report.rungs[2].verdict is Verdict.NOT_RUN
    assert len(result.summaries) == len(BROKEN) + 3


def test_only_what_is_wrong_is_blamed(result: CheckResult) -> None:
    compressed, _ = reports(result, "frame-missing")
    assert failed(compressed) == {RungName.CONTRACT}
    assert "(1, 292, 3)" in str(compressed.rungs[0].reason)
    compressed, _ = reports(result, "sigmoid-missing")
    assert "expected [0, 1]" in str(compressed.rungs[0].reason)
    compressed, _ = reports(result, "frames-shifted")
    step_ms = 270 / 16
    assert value(compressed, RungName.BOUNDARIES, "shift_median") == pytest.approx(step_ms)


def test_a_swap_is_told_from_a_loss(result: CheckResult) -> None:
    swapped, _ = reports(result, "speakers-permuted")
    assert value(swapped, RungName.DECISIONS, "flips_as_they_stand") > 10
    assert value(swapped, RungName.DECISIONS, "decision_flips") == 0
    assert value(swapped, RungName.DECISIONS, "speaker_swaps") > 5
    assert RungName.BOUNDARIES not in failed(swapped)
    assert RungName.DER not in failed(swapped)
    lost, _ = reports(result, "speakers-permuted-late")
    assert value(lost, RungName.DECISIONS, "decision_flips") > 1


def test_every_broken_artifact_is_summed_up(result: CheckResult) -> None:
    verdicts = {summary.artifact_path: summary.verdict for summary in result.summaries}
    assert verdicts.pop("intact.onnx") is Verdict.PASS
    assert set(verdicts.values()) == {Verdict.FAIL}
    assert result.verdict is Verdict.FAIL
