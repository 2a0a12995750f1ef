"""What embedding architectures share: their contract, and how weights find the network's frames.

An embedding network takes a `waveform` [batch, 1, samples] and `weights` [batch, speakers, frames]
on the frames of a segmentation network. What it computes of the audio is computed once, and pooled
once a speaker: `embeddings` [batch, speakers, dimension], not normalised. PyTorch takes any number
of speakers, an artifact the number of its contract.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..types import FrameGeometry, ModelSpec, Precision, Recipe, Role, TensorSpec

SEGMENTATION_FRAMES = {
    "window_s": 5.0,
    "sample_rate_hz": 16000,
    "frame_step_samples": 270,
    "receptive_field_samples": 991,
    "speakers": 3,
}
"""The frames of PyanNet and of all students, and how many speakers they tell apart."""


class Alignment(nn.Module):
    """Weights on the frames of a segmentation network, brought to the network's own frames.

    Which weights count for a frame depends on the two numbers of frames alone. `settle` makes that
    a constant of the module, since exporters make instructions of a tensor that is made on the way.
    """

    settled: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("settled", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.settled_for: tuple[int, int] | None = None

    def indices(self, num_weights: int, num_frames: int) -> list[int]:
        """Places of the weights that count, frame after frame."""
        raise NotImplementedError

    def taken(self, weights: Tensor, num_frames: int) -> Tensor:
        """[batch, speakers, frames] -> [batch, speakers, indices]."""
        sizes = (int(weights.shape[2]), int(num_frames))
        known = self.settled_for == sizes
        chosen = self.settled if known else torch.tensor(self.indices(*sizes))
        return torch.index_select(weights, 2, chosen)


def settle(net: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Make the indices of every `Alignment` in a network constants, for inputs of these shapes."""
    sizes: dict[Alignment, tuple[int, int]] = {}

    def note(module: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(module, Alignment)  # noqa: S101 - hooked below
        sizes[module] = (int(given[0].shape[2]), int(given[1]))

    found = [module for module in net.modules() if isinstance(module, Alignment)]
    hooks = [module.register_forward_pre_hook(note) for module in found]
    dtype = next(net.parameters()).dtype
    try:
        with torch.inference_mode():
            net(*(tensor.to(dtype) for tensor in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    for module, pair in sizes.items():
        module.settled, module.settled_for = torch.tensor(module.indices(*pair)), pair


class NearestWeights(Alignment):
    """The nearest weight of every frame, as pyannote's interpolation chooses it.

    [batch, speakers, frames] -> [batch, speakers, num_frames].
    """

    def indices(self, num_weights: int, num_frames: int) -> list[int]:
        """As `F.interpolate` with "nearest"."""
        return [index * num_weights // num_frames for index in range(num_frames)]

    def forward(self, weights: Tensor, num_frames: int) -> Tensor:
        """The weights."""
        return self.taken(weights, num_frames)


class AveragedWeights(Alignment):
    """Weights on frames of another length: the mean of a few over each of them.

    Frame `i` of the network is centred on sample `centre_samples + i * step_samples`, in windows of
    all lengths. `weights_step` and `weights_field` are step and receptive field of the weights'
    frames, in samples. Beyond the window's ends its first and last weights are repeated.
    """

    def __init__(
        self,
        *,
        step_samples: int,
        centre_samples: int,
        weights_step: int,
        weights_field: int,
        points: int = 4,
    ) -> None:
        super().__init__()
        self.step_samples, self.centre_samples = step_samples, centre_samples
        self.weights_step, self.weights_field = weights_step, weights_field
        self.points = points

    def indices(self, num_weights: int, num_frames: int) -> list[int]:
        """The weights nearest to a few points, evenly over each frame."""
        places = [
            self.centre_samples
            + (index - 0.5 + (point + 0.5) / self.points) * self.step_samples
            - self.weights_field / 2
            for index in range(num_frames)
            for point in range(self.points)
        ]
        last = num_weights - 1
        return [min(max(round(place / self.weights_step), 0), last) for place in places]

    def forward(self, weights: Tensor, num_frames: int) -> Tensor:
        """[batch, speakers, frames] -> [batch, speakers, num_frames]."""
        batch, speakers, _ = weights.shape
        taken = self.taken(weights, num_frames)
        # A mean over both last of four dimensions is what XNNPACK takes.
        taken = taken.reshape(batch, speakers * num_frames, 1, self.points)
        averaged = taken.mean((2, 3), keepdim=True)
        return averaged.reshape(batch, speakers, num_frames)


class EmbeddingArchitecture:
    """The half of an architecture that is the same for every embedding network.

    Modules have `dimension`, `frames` (the configuration's `SEGMENTATION_FRAMES`) and
    `smallest_samples`, the shortest waveform they take.
    """

    name: str

    def spec(self, model: nn.Module, *, name: str, licence: str, trained_on: str) -> ModelSpec:
        """The contract for the window of the model's configuration."""
        net: Any = model
        spec = ModelSpec(
            name=name,
            role=Role.EMBEDDING,
            architecture=self.name,
            geometry=_geometry(net, float(net.frames["window_s"])),
            classes=(),
            powerset_max_classes=None,
            permutation_invariant=False,
            inputs=(),
            outputs=(),
            licence=licence,
            trained_on=trained_on,
        )
        return _with_tensors(spec, net)

    def with_window(self, model: nn.Module, spec: ModelSpec, window_s: float) -> ModelSpec:
        """The contract for another window; raises CheckpointError below two frames."""
        return _with_tensors(
            spec.model_copy(update={"geometry": _geometry(model, window_s)}), model
        )

    def refuses(self, recipe: Recipe) -> str | None:
        """Windows of another length than the contract's: which frames a weight counts for is part
        of the graph. There is no state to stream. Weights of less than 8 bits."""
        integers = recipe.activation_precision is Precision.INT8
        if integers and recipe.backend == "executorch_xnnpack":
            return (
                "XNNPACK multiplies int8 in linear layers alone, which are a small part of an "
                "embedding network: the file would take 0.84 of fp32's bytes"
            )
        widths = (Precision.FP32, Precision.FP16, Precision.INT8)
        if recipe.weight_precision not in widths or recipe.name.startswith("pruned"):
            return f"what {recipe.name} costs is known of segmentation models only"
        forms = ("dynamic_length", "lengths_samples", "streaming")
        asked = [form for form in forms if recipe.options.get(form)]
        return f"embedding networks have no form for the option {asked[0]}" if asked else None

    def example_inputs(self, spec: ModelSpec) -> tuple[Tensor, ...]:
        """A seeded random waveform, and weights between 0.1 and 1."""
        generator = torch.Generator().manual_seed(0)
        waveform, weights = (tuple(n or 1 for n in tensor.shape) for tensor in spec.inputs)
        return (
            torch.randn(waveform, generator=generator) * 0.1,
            torch.rand(weights, generator=generator) * 0.9 + 0.1,
        )


def _geometry(model: Any, window_s: float) -> FrameGeometry:
    frames = model.frames
    rate, step = int(frames["sample_rate_hz"]), int(frames["frame_step_samples"])
    field, samples = int(frames["receptive_field_samples"]), round(window_s * rate)
    smallest = max(field + step, int(model.smallest_samples))
    if samples < smallest:
        raise CheckpointError(
            f"window of {samples} samples",
            found="too short for this network",
            expected=f"at least {smallest} samples",
            todo="Choose a longer --window-s.",
        )
    return FrameGeometry(
        sample_rate_hz=rate,
        window_samples=samples,
        num_frames=(samples - field) // step + 1,
        frame_step_samples=step,
        receptive_field_samples=field,
    )


def _with_tensors(spec: ModelSpec, model: Any) -> ModelSpec:
    geometry, speakers = spec.geometry, int(model.frames["speakers"])

    def tensor(name: str, *shape: int) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=(1, *shape))

    inputs = (
        tensor("waveform", 1, geometry.window_samples),
        tensor("weights", speakers, geometry.num_frames),
    )
    outputs = (tensor("embeddings", speakers, int(model.dimension)),)
    return spec.model_copy(update={"inputs": inputs, "outputs": outputs})
