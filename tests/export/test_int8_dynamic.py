"""ExecuTorch's recipe int8-dynamic: products on integers inside and outside of loops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.audio import cut_windows, load_recording
from export.backends.base import BACKENDS, RECIPES
from export.budget import over_budget
from export.checkpoint import LoadedModel
from export.compress.base import compress_for
from export.compress.int8_matrices import int8_rows
from export.errors import RecipeError
from export.lowering.int8_dynamic import (
    NOT_MULTIPLIED,
    DynamicLinear,
    count_int8,
    int8_values,
    quantise_dynamically,
)
from export.lowering.scan_delegate import delegate_recurrence
from export.pipeline import Exporter, plan
from export.pyannote_import import sample_recording
from export.quiet import quiet_tools
from export.rewrites.recurrent_scan import RecurrentScans
from export.types import Artifact, Precision, Rung, RungName, Verdict
from runtime_checks.parity.ladder import climb, execute
from runtime_checks.parity.limits import limits_for
from runtime_checks.parity.reference import evaluate
from runtime_checks.parity.rungs import not_run
from runtime_checks.runners.base import RUNNERS

len(BACKENDS)  # recipes are registered by their backends
BACKEND = "executorch_xnnpack"
RECIPE = RECIPES[f"{BACKEND}/int8-dynamic"]
HIDDEN = 16
MATRICES = {
    *(f"recurrent.0.weight_{kind}_l0{end}" for kind in ("ih", "hh") for end in ("", "_reverse")),
    "linear.0.weight",
    "classifier.weight",
}
Rungs = dict[RungName, Rung]


@pytest.fixture(scope="module")
def compressed(zoo_canonical: nn.Module) -> nn.Module:
    return compress_for(RECIPE, zoo_canonical)


@pytest.fixture(scope="module")
def exported(
    zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Path]:
    folder = tmp_path_factory.mktemp("int8")
    artifact = Exporter(zoo_model).export(RECIPE, folder)
    return artifact, folder / artifact.path


@pytest.fixture(scope="module")
def climbed(compressed: nn.Module, zoo_model: LoadedModel) -> Callable[[Path], Rungs]:
    """The ladder of a file against the compressed model, at the recipe's limits."""
    spec = zoo_model.spec
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    windows = cut_windows(recording, spec.geometry, hop_s=4.0)
    reference = evaluate(compressed, windows, spec=spec)

    def climb_it(path: Path) -> Rungs:
        result = climb(
            execute(RUNNERS[BACKEND].open(path, spec, threads=1), windows, spec=spec),
            reference,
            windows=windows,
            spec=spec,
            limits=limits_for(RECIPE, Precision.INT8)[0],
            features=lambda: not_run(RungName.FEATURES, "not here"),
            der=None,
        )
        return {rung.name: rung for rung in result.rungs}

    return climb_it


def value(rung: Rung, name: str) -> float:
    return next(metric.value for metric in rung.metrics if metric.name == name)


def test_decisions_are_those_of_the_compressed_model(
    exported: tuple[Artifact, Path], climbed: Callable[[Path], Rungs]
) -> None:
    found = climbed(exported[1])
    judged = {name: rung.verdict for name, rung in found.items()}
    assert judged.pop(RungName.FEATURES) is judged.pop(RungName.DER) is Verdict.NOT_RUN
    assert set(judged.values()) == {Verdict.PASS}
    # Were activations not quantised, it would be closer; were weights of another kind, further.
    assert 1e-3 < value(found[RungName.SCORES], "max_abs") < 0.06
    assert value(found[RungName.SCORES], "mean_abs") < 5e-3


def test_a_corrupted_scale_is_caught(
    exported: tuple[Artifact, Path],
    climbed: Callable[[Path], Rungs],
    compressed: nn.Module,
    tmp_path: Path,
) -> None:
    """One of the file's 2179 scales, that of the first speaker, a quarter of what it was."""
    scales = int8_rows(compressed.get_parameter("classifier.weight").detach())[1].numpy()
    data = exported[1].read_bytes()
    assert data.count(scales.tobytes()) == 1
    wrong = np.concatenate([scales[:1] / 4, scales[1:]])
    broken = tmp_path / "broken.pte"
    broken.write_bytes(data.replace(scales.tobytes(), wrong.tobytes()))
    found = climbed(broken)
    assert found[RungName.CONTRACT].verdict is Verdict.PASS
    assert found[RungName.DECISIONS].verdict is Verdict.FAIL


def test_integers_are_stored_and_every_matrix_product_is_one_of_them(
    exported: tuple[Artifact, Path], compressed: nn.Module
) -> None:
    artifact, path = exported
    data = path.read_bytes()
    for name in ("linear.0.weight", "classifier.weight"):  # gates are in another order
        integers, scales = int8_rows(compressed.get_parameter(name).detach())
        assert integers.numpy().tobytes() in data
        assert scales.numpy().tobytes() in data
    stats = artifact.graph_stats
    products = [ops for ops in stats.delegated.values() if "aten.linear.default" in ops]
    assert [ops["aten.linear.default"] for ops in products] == [2, 2, 2]
    for ops in stats.delegated.values():
        assert "aten.bmm.default" not in ops
        dequantised = "quantized_decomposed.dequantize_per_channel.default"
        assert ops["aten.linear.default"] == ops[dequantised]
    matrices = sum(p.numel() for n, p in compressed.named_parameters() if n in MATRICES)
    assert (stats.stored, stats.not_smaller) == ({"int8": matrices}, {})
    # In float32: filters, biases and what the loop is padded with, and a scale for each row.
    assert stats.weight_bytes < matrices + 4 * 75_000
    assert artifact.size_bytes < 0.45 * (4 * matrices + stats.weight_bytes - matrices)
    assert over_budget(artifact) == {}


def test_a_product_that_is_left_in_floats_is_found() -> None:
    """XNNPACK's partitioner for float32 takes a quantised linear layer as one, and says nothing."""
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    module = nn.Sequential(DynamicLinear(torch.randn(6, 4), None)).eval()
    counted = []
    for precision in (ConfigPrecisionType.DYNAMIC_QUANT, ConfigPrecisionType.FP32):
        with quiet_tools(), torch.no_grad():
            edge = to_edge_transform_and_lower(
                torch.export.export(module, (torch.randn(1, 4),)),
                partitioner=[XnnpackPartitioner(config_precisions=precision)],
            )
            graph = edge.exported_program().graph_module
            counted.append(count_int8(graph, expected=int8_values(module)))
    assert counted == [({"int8": 24}, {}), ({}, {NOT_MULTIPLIED: 24})]


def test_the_loop_is_one_delegate_and_nothing_falls_back(
    exported: tuple[Artifact, Path],
) -> None:
    stats = exported[0].graph_stats
    assert stats.operators["XnnpackBackend"] == stats.delegates == 3
    assert stats.operators["JumpFalseCall"] == 1
    assert BACKENDS[BACKEND].fallbacks(stats, RECIPE) == {}
    assert not [name for name in stats.operators if "quant" in name or "linear" in name]


def test_a_plain_scan_is_refused(zoo_model: LoadedModel) -> None:
    recipe = RECIPE.model_copy(update={"options": {"recurrence": "scan"}})
    reason = BACKENDS[BACKEND].refuses(zoo_model.spec, recipe)
    assert reason is not None and "multiply integers" in reason
    with pytest.raises(RecipeError, match="one length"):
        plan(zoo_model, backends=[BACKEND], recipes=["int8-dynamic"], dynamic_length=True)


def test_rows_are_quantised_alone() -> None:
    """A loud row costs a quiet one nothing; its own error is within its own steps."""
    torch.manual_seed(0)
    linear = DynamicLinear(torch.randn(5, 32), torch.randn(5))
    quiet, loud = torch.randn(1, 32), 1e3 * torch.randn(1, 32)
    weight = linear.get_buffer("weight").float() * linear.get_buffer("scales")[:, None]
    exact = nn.functional.linear(quiet, weight, linear.get_buffer("bias"))
    alone, beside = linear(quiet), linear(torch.cat([quiet, loud]))[:1]
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-5)
    step = float(quiet.max().clamp_min(0) - quiet.min().clamp_max(0)) / 255
    bound = step * weight.abs().sum(dim=1).max()
    assert 1e-4 < float((alone - exact).abs().max()) < float(bound)


class Abreast(nn.Module):
    """Recurrent layers side by side, on the same x; gives the outputs of each."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[batch, time, features] -> [batch, time, directions * hidden] of each."""
        return tuple(layer(x)[0] for layer in self.layers)


def test_cells_compute_what_pytorch_makes_of_its_operators() -> None:
    """The runtime's rounding is that of the operators; where it is not, states drift apart."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    torch.manual_seed(0)
    scans: list[nn.Module] = []
    for kind, both in ((nn.LSTM, False), (nn.GRU, True)):
        options: dict[str, Any] = {"batch_first": True, "bidirectional": both}
        layer = kind(8, HIDDEN, **options)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.4)
        scan = RecurrentScans().replace(layer)
        assert scan is not None
        scans.append(scan)
    floats = Abreast(scans).eval().requires_grad_(False)
    dynamic = copy.deepcopy(floats)
    inputs = (torch.randn(2, 5, 8),)
    with quiet_tools(), torch.no_grad():
        quantise_dynamically(dynamic)
        expected = dynamic(*inputs)
        delegate_recurrence(dynamic, batch=2)
        exported = torch.export.export(dynamic, inputs)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        program = Runtime.get().load_program(edge.to_executorch().buffer)
        outputs = [value.clone() for value in program.load_method("forward").execute(inputs)]
    for output, same, exact in zip(outputs, expected, floats(*inputs), strict=True):
        torch.testing.assert_close(output, same, rtol=0, atol=1e-5)
        assert float((output - exact).abs().max()) > 1e-3
