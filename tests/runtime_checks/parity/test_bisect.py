"""Bisection: the first layer that is off, whether a file can be looked into or not."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.audio import Window, cut_windows, load_recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel
from export.pyannote_import import sample_recording
from export.rewrites.base import REWRITES, apply_rewrites
from export.types import Precision, TensorSpec
from runtime_checks.parity.bisect import (
    Divergence,
    Layers,
    bisect,
    first_divergence,
    layer_reference,
)
from runtime_checks.parity.limits import DEFAULT_LIMITS
from runtime_checks.parity.probe import fresh_export
from runtime_checks.parity.reference import layer_outputs
from runtime_checks.parity.stress import stress_windows
from runtime_checks.runners.base import Arrays, Runner

LIMITS = DEFAULT_LIMITS[Precision.FP32]
LAYERS = [
    "frontend.wav_norm1d",
    "frontend.conv1d.0",
    "frontend.pool1d.0",
    "frontend.norm1d.0",
    "frontend.conv1d.1",
    "frontend.pool1d.1",
    "frontend.norm1d.1",
    "frontend.conv1d.2",
    "frontend.pool1d.2",
    "frontend.norm1d.2",
    "frontend",
    "recurrent.0",
    "linear.0",
    "classifier",
    "activation",
]


class Torch:
    """A runner on a PyTorch module, in float32; `blind` ones cannot be seen into."""

    def __init__(self, module: nn.Module, *, blind: bool = False) -> None:
        self.inputs: tuple[TensorSpec, ...] | None = None
        self.outputs: tuple[TensorSpec, ...] | None = None
        self._module, self._blind = module, blind

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        with torch.inference_mode():
            return {"scores": self._module(torch.from_numpy(inputs["waveform"])).numpy()}

    def taps(
        self, inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[str]
    ) -> Arrays | None:
        if self._blind:
            return None
        found = layer_outputs(self._module, torch.from_numpy(inputs["waveform"]), names=layers)
        return {name: values.astype(np.float32) for name, values in found.items()}


@pytest.fixture(scope="module")
def windows(zoo_model: LoadedModel) -> list[Window]:
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    return cut_windows(recording, zoo_model.spec.geometry, hop_s=5.0)


def find(
    runner: Runner,
    canonical: nn.Module,
    *,
    model: LoadedModel,
    windows: list[Window],
    at: Window | None = None,
    rewrites: Sequence[str] = (),
) -> Divergence:
    len(BACKENDS)
    return bisect(
        runner,
        at or windows[2],
        speech=windows[2],
        canonical=canonical,
        rewrites=rewrites,
        spec=model.spec,
        limits=LIMITS,
        probe=fresh_export(model.spec, RECIPES["onnx_ort/fp32"]),
    )


def damaged(canonical: nn.Module, name: str) -> nn.Module:
    """A copy with one parameter (or a norm's epsilon) changed."""
    network = copy.deepcopy(canonical)
    layer = network.get_submodule(name)
    if isinstance(layer, nn.InstanceNorm1d):
        layer.eps = 1e-3
        layer.weight.data *= 1.01
    else:
        weight = next(layer.parameters())
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        weight.data *= 1 + 0.02 * noise  # a norm would take a common factor away again
    return network


def test_layers_come_in_the_order_in_which_they_run(
    zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    reference = layer_reference(zoo_canonical, windows[0], speech=windows[2])
    assert reference.names == LAYERS
    assert reference.exact["recurrent.0"].shape == (1, 293, 256)
    assert all(values.dtype == np.float64 for values in reference.exact.values())


@pytest.mark.parametrize(
    "name",
    [
        "frontend.wav_norm1d",
        "frontend.conv1d.1",
        "frontend.norm1d.1",
        "recurrent.0",
        "linear.0",
        "classifier",
    ],
)
def test_the_changed_layer_is_named(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, windows: list[Window], name: str
) -> None:
    runner = Torch(damaged(zoo_canonical, name))
    found = find(runner, zoo_canonical, model=zoo_model, windows=windows)
    assert found.layer == name
    assert found.explanation.startswith(f"{name} is off by ")


def test_silence_does_not_put_the_blame_on_a_layer_that_rests_at_zero(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    rewrites = ("sincnet_filterbank", "wav_norm_affine", "centred_convolutions")
    silence = stress_windows(windows)[0]
    assert not silence.samples.any()
    network = apply_rewrites(damaged(zoo_canonical, "linear.0"), rewrites)
    found = find(
        Torch(network),
        zoo_canonical,
        model=zoo_model,
        windows=windows,
        at=silence,
        rewrites=rewrites,
    )
    assert found.layer == "linear.0"


def test_what_is_faithful_has_no_diverging_layer(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    found = find(Torch(zoo_canonical), zoo_canonical, model=zoo_model, windows=windows)
    assert found.layer is None
    assert "no layer leaves its tolerance" in found.explanation


def test_a_file_that_differs_from_a_fresh_export_is_told(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    runner = Torch(damaged(zoo_canonical, "recurrent.0"), blind=True)
    found = find(runner, zoo_canonical, model=zoo_model, windows=windows)
    assert found == Divergence(None, "the file differs from a fresh export, which is faithful")


def test_a_wrong_lowering_is_named_by_a_fresh_export(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    """The export itself is wrong here: what it is given is changed on its way to the backend."""
    faithful = fresh_export(zoo_model.spec, RECIPES["onnx_ort/fp32"])

    def wrong(module: nn.Module, names: Sequence[str], window: Window) -> Layers:
        return faithful(damaged(module, "linear.0"), names, window)

    found = bisect(
        Torch(damaged(zoo_canonical, "linear.0"), blind=True),
        windows[2],
        speech=windows[2],
        canonical=zoo_canonical,
        rewrites=("sincnet_filterbank",),
        spec=zoo_model.spec,
        limits=LIMITS,
        probe=wrong,
    )
    assert found.layer == "linear.0"
    assert found.explanation.startswith("a fresh export diverges too")


def test_a_backend_that_cannot_be_probed_is_told(
    zoo_model: LoadedModel, zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    def broken(module: nn.Module, names: Sequence[str], window: Window) -> Layers:
        raise RuntimeError("cannot lower")

    found = bisect(
        Torch(zoo_canonical, blind=True),
        windows[2],
        speech=windows[2],
        canonical=zoo_canonical,
        rewrites=(),
        spec=zoo_model.spec,
        limits=LIMITS,
        probe=broken,
    )
    assert found == Divergence(None, "the backend cannot show its layers (RuntimeError)")


class LeakyRewrite:
    """A rewrite that is not exact."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        if not isinstance(module, nn.Linear) or module.out_features != 3:
            return None
        changed = copy.deepcopy(module)
        changed.weight.data *= 1.01
        return changed


def test_a_rewrite_that_is_not_exact_is_named(
    zoo_model: LoadedModel,
    zoo_canonical: nn.Module,
    windows: list[Window],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    len(REWRITES)
    monkeypatch.setitem(REWRITES._entries, "leaky", LeakyRewrite())
    rewrites = ("sincnet_filterbank", "leaky", "wav_norm_affine")
    runner = Torch(apply_rewrites(zoo_canonical, rewrites))
    found = find(runner, zoo_canonical, model=zoo_model, windows=windows, rewrites=rewrites)
    assert found == Divergence(None, "the rewrite leaky changes what the model computes")


def test_a_layer_that_cannot_be_seen_is_passed_over_and_told(
    zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    reference = layer_reference(zoo_canonical, windows[2], speech=windows[2])
    seen: dict[str, NDArray[np.floating]] = {
        name: values for name, values in reference.exact.items() if name != "recurrent.0"
    }
    for name in ("linear.0", "classifier", "activation"):
        seen[name] = seen[name] + 1
    found = first_divergence(seen, reference, limits=LIMITS)
    assert found.layer == "linear.0"
    assert "not seen before it: recurrent.0" in found.explanation


def test_what_later_layers_recover_from_is_not_blamed(
    zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    reference = layer_reference(zoo_canonical, windows[2], speech=windows[2])
    seen: dict[str, NDArray[np.floating]] = dict(reference.exact)
    seen["recurrent.0"] = seen["recurrent.0"] + 1e-3
    assert first_divergence(seen, reference, limits=LIMITS).layer is None
    seen["classifier"] = seen["classifier"] + 1
    seen["activation"] = seen["activation"] + 1
    assert first_divergence(seen, reference, limits=LIMITS).layer == "classifier"


def test_dimensions_that_a_runtime_flattened_do_not_matter(
    zoo_canonical: nn.Module, windows: list[Window]
) -> None:
    reference = layer_reference(zoo_canonical, windows[2], speech=windows[2])
    flat = {name: values.reshape(-1) for name, values in reference.exact.items()}
    assert first_divergence(flat, reference, limits=LIMITS).layer is None


def test_hooks_leave_nothing_behind(zoo_canonical: nn.Module) -> None:
    layer_outputs(zoo_canonical, torch.zeros(1, 1, 80000))
    with pytest.raises(RuntimeError):
        layer_outputs(zoo_canonical, torch.zeros(1, 1, 10))
    modules: list[nn.Module] = list(zoo_canonical.modules())
    assert not any(module._forward_hooks for module in modules)
    assert isinstance(zoo_canonical(torch.zeros(1, 1, 80000)), Tensor)
