"""PyanNet: SincNet front-end, LSTM layers, linear layers, classifier (pyannote.audio's own).

Bredin and Laurent, "End-to-end speaker segmentation for overlap-aware resegmentation", 2021;
powerset output: Plaquet and Bredin, "Powerset multi-class cross entropy loss for neural speaker
diarization", 2023.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..pyannote_import import pyannote_audio
from ..types import FrameGeometry, ModelSpec, TensorSpec
from .base import register_model
from .students import student_design


class SincFrontEnd(nn.Module):
    """pyannote's SincNet block as a plain module: [batch, 1, samples] -> [batch, 60, frames]."""

    def __init__(self, sincnet: nn.Module) -> None:
        super().__init__()
        self.wav_norm1d: nn.Module = sincnet.wav_norm1d  # type: ignore[assignment]
        self.conv1d: nn.ModuleList = sincnet.conv1d  # type: ignore[assignment]
        self.pool1d: nn.ModuleList = sincnet.pool1d  # type: ignore[assignment]
        self.norm1d: nn.ModuleList = sincnet.norm1d  # type: ignore[assignment]

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of a window."""
        x: Tensor = self.wav_norm1d(waveform)
        for index, (conv, pool, norm) in enumerate(
            zip(self.conv1d, self.pool1d, self.norm1d, strict=True)
        ):
            x = conv(x)
            if index == 0:
                x = torch.abs(x)
            x = F.leaky_relu(norm(pool(x)))
        return x


class SegmentationNet(nn.Module):
    """Canonical segmentation network: [batch, 1, samples] -> [batch, frames, classes].

    The recurrence is a list of one-layer modules, so that a rewrite or a bisection sees each
    layer; in evaluation mode (no dropout) this equals the stacked module exactly.
    """

    def __init__(
        self,
        *,
        frontend: nn.Module,
        recurrent: list[nn.Module],
        linear: list[nn.Module],
        classifier: nn.Module,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.recurrent = nn.ModuleList(recurrent)
        self.linear = nn.ModuleList(linear)
        self.classifier = classifier
        self.activation = activation

    def forward(self, waveform: Tensor) -> Tensor:
        """Scores of a window: probabilities (sigmoid) or log-probabilities (log-softmax)."""
        x: Tensor = self.frontend(waveform).transpose(1, 2)
        for layer in self.recurrent:
            x, _ = layer(x)
        for linear in self.linear:
            x = F.leaky_relu(linear(x))
        scores: Tensor = self.activation(self.classifier(x))
        return scores


def split_recurrence(stack: nn.RNNBase) -> list[nn.Module]:
    """One-layer LSTMs, GRUs or RNNs that in sequence compute what a stack of them computes.

    Equal in evaluation mode, without dropout; weights are copied.
    """
    layers: list[nn.Module] = []
    suffixes = ["", "_reverse"] if stack.bidirectional else [""]
    for index in range(stack.num_layers):
        width = stack.input_size if index == 0 else stack.hidden_size * len(suffixes)
        recurrence: Any = type(stack)
        layer = recurrence(
            width,
            stack.hidden_size,
            batch_first=True,
            bidirectional=stack.bidirectional,
            dtype=next(stack.parameters()).dtype,
        )
        state = {
            f"{kind}_l0{suffix}": getattr(stack, f"{kind}_l{index}{suffix}").detach().clone()
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            for suffix in suffixes
        }
        layer.load_state_dict(state)
        layers.append(layer.eval())
    return layers


def student_config(name: str, *, window_s: float = 5.0, classes: int = 3) -> dict[str, Any]:
    """Configuration of a SincNet student by its name (`student_design` knows all students).

    `sinc-1bi` is SincNet, one bidirectional LSTM layer of 128, one linear layer of 128;
    `sinc-2uni-2lin` two unidirectional layers and two linear ones. Raises CheckpointError on
    every other name.
    """
    architecture, config = student_design(name, window_s=window_s, classes=classes)
    if architecture != PyanNetArchitecture.name:
        raise CheckpointError(
            name, found=f"the name of a {architecture}", expected="a student with SincNet"
        )
    return config


@register_model("PyanNet")
class PyanNetArchitecture:
    """pyannote.audio.models.segmentation.PyanNet in both directions.

    What differs in networks that have another front-end or recurrence is in `name`, `blocks`,
    `settings`, `network_class` and `frontend`.
    """

    name = "PyanNet"
    blocks: tuple[str, ...] = ("sincnet", "lstm", "linear")
    settings: tuple[str, ...] = ()

    def network_class(self) -> Any:
        """The pyannote Model."""
        from pyannote.audio.models.segmentation import PyanNet

        return PyanNet

    def frontend(self, net: Any) -> nn.Module:
        """The canonical front-end, of the model's own parts."""
        return SincFrontEnd(net.sincnet)

    def tiny_config(self) -> dict[str, Any]:
        """Two layers of 16 on one-second windows."""
        config = student_config("sinc-2bi", window_s=1.0)
        config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 16
        return config

    def build(self, config: dict[str, Any]) -> nn.Module:
        """A model in evaluation mode; its weights are random until a state dict is loaded."""
        pyannote_audio()
        from pyannote.audio.core.task import Problem, Resolution, Specifications

        given = config["specifications"]
        powerset = given["powerset_max_classes"]
        problem = (
            Problem.MULTI_LABEL_CLASSIFICATION
            if powerset is None
            else Problem.MONO_LABEL_CLASSIFICATION
        )
        model: Any = self.network_class()(
            **{k: v for k, v in config.items() if k != "specifications"}
        )
        model.specifications = Specifications(
            problem=problem,
            resolution=Resolution.FRAME,
            duration=given["window_s"],
            classes=list(given["classes"]),
            powerset_max_classes=powerset,
            permutation_invariant=given.get("permutation_invariant", True),
        )
        model.build()
        module: nn.Module = model.eval()
        return module

    def config(self, model: nn.Module) -> dict[str, Any]:
        """Plain-JSON configuration of a model."""
        net: Any = model
        specifications = net.specifications
        hparams = {k: dict(net.hparams[k]) for k in self.blocks}
        for derived in ("sample_rate", "batch_first"):
            for block in hparams.values():
                block.pop(derived, None)
        settings = {name: net.hparams[name] for name in self.settings}
        return (
            hparams
            | settings
            | {
                "sample_rate": int(net.hparams.sample_rate),
                "num_channels": int(net.hparams.num_channels),
                "specifications": {
                    "window_s": float(specifications.duration),
                    "classes": list(specifications.classes),
                    "powerset_max_classes": specifications.powerset_max_classes,
                    "permutation_invariant": bool(specifications.permutation_invariant),
                },
            }
        )

    def spec(self, model: nn.Module, *, name: str, licence: str, trained_on: str) -> ModelSpec:
        """Contract for the window the model was trained on."""
        net: Any = model
        specifications = net.specifications
        rate = int(net.hparams.sample_rate)
        geometry = _geometry(net, round(float(specifications.duration) * rate))
        return ModelSpec(
            name=name,
            architecture=self.name,
            geometry=geometry,
            classes=tuple(specifications.classes),
            powerset_max_classes=specifications.powerset_max_classes,
            permutation_invariant=bool(specifications.permutation_invariant),
            inputs=(_waveform(geometry),),
            outputs=(_scores(geometry, int(net.dimension)),),
            licence=licence,
            trained_on=trained_on,
        )

    def with_window(self, model: nn.Module, spec: ModelSpec, window_s: float) -> ModelSpec:
        """Contract for another window; raises CheckpointError below two frames."""
        samples = round(window_s * spec.geometry.sample_rate_hz)
        geometry = _geometry(model, samples)
        net: Any = model
        return spec.model_copy(
            update={
                "geometry": geometry,
                "inputs": (_waveform(geometry),),
                "outputs": (_scores(geometry, int(net.dimension)),),
            }
        )

    def canonical(self, model: nn.Module) -> nn.Module:
        """Plain `SegmentationNet` with its own copy of the weights."""
        net: Any = copy.deepcopy(model).cpu().eval()
        stacked = [net.lstm] if isinstance(net.lstm, nn.RNNBase) else list(net.lstm)
        linear = list(net.linear) if net.hparams.linear["num_layers"] > 0 else []
        return SegmentationNet(
            frontend=self.frontend(net),
            recurrent=[layer for stack in stacked for layer in split_recurrence(stack)],
            linear=linear,
            classifier=net.classifier,
            activation=net.activation,
        ).eval()

    def example_inputs(self, spec: ModelSpec) -> tuple[Tensor, ...]:
        """A seeded random waveform of the spec's shape."""
        generator = torch.Generator().manual_seed(0)
        return (torch.randn(1, 1, spec.geometry.window_samples, generator=generator) * 0.1,)


def _geometry(model: nn.Module, window_samples: int) -> FrameGeometry:
    net: Any = model
    size, smallest = (int(net.receptive_field_size(num_frames=n)) for n in (1, 2))
    if window_samples < smallest:  # the last norm is over frames and undefined for a single one
        raise CheckpointError(
            f"window of {window_samples} samples",
            found="too short for two output frames",
            expected=f"at least {smallest} samples",
            todo="Choose a longer --window-s.",
        )
    return FrameGeometry(
        sample_rate_hz=int(net.hparams.sample_rate),
        window_samples=window_samples,
        num_frames=int(net.num_frames(window_samples)),
        frame_step_samples=smallest - size,
        receptive_field_samples=size,
    )


def _waveform(geometry: FrameGeometry) -> TensorSpec:
    return TensorSpec(name="waveform", dtype="float32", shape=(1, 1, geometry.window_samples))


def _scores(geometry: FrameGeometry, dimension: int) -> TensorSpec:
    return TensorSpec(name="scores", dtype="float32", shape=(1, geometry.num_frames, dimension))
