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
from ..types import FrameGeometry, ModelSpec, Recipe, Role, TensorSpec

SEGMENTATION_FRAMES = {
    "window_s": 5.0,
    "sample_rate_hz": 16000,
    "frame_step_samples": 270,
    "receptive_field_samples": 991,
    "speakers": 3,
}
"""The frames of PyanNet and of all students, and how many speakers they tell apart."""


def nearest_indices(num_weights: int, num_frames: int) -> list[int]:
    """For each of a network's frames the weight that counts, as `F.interpolate` chooses it."""
    return [index * num_weights // num_frames for index in range(num_frames)]


class NearestWeights(nn.Module):
    """Weights on as many frames as the network has: pyannote's interpolation.

    [batch, speakers, frames] -> [batch, speakers, num_frames].
    """

    def forward(self, weights: Tensor, num_frames: int) -> Tensor:
        """The nearest weight of every frame."""
        indices = nearest_indices(int(weights.shape[2]), int(num_frames))
        return weights[:, :, torch.tensor(indices, device=weights.device)]


class AveragedWeights(nn.Module):
    """Weights on frames of another length: the mean of a few over each of them.

    Frame `i` of the network is centred on sample `centre_samples + i * step_samples`, in windows of
    all lengths. Beyond the window's ends its first and last weights are repeated.
    """

    def __init__(self, *, step_samples: int, centre_samples: int, points: int = 4) -> None:
        super().__init__()
        self.step_samples, self.centre_samples = step_samples, centre_samples
        self.points = points

    def forward(self, weights: Tensor, num_frames: int, geometry: tuple[int, int]) -> Tensor:
        """[batch, speakers, frames] -> [batch, speakers, num_frames].

        `geometry` is step and receptive field of the weights' frames, in samples.
        """
        step, field = geometry
        batch, speakers, given = (int(size) for size in weights.shape)
        places = [
            self.centre_samples + (index - 0.5 + (point + 0.5) / self.points) * self.step_samples
            for index in range(num_frames)
            for point in range(self.points)
        ]
        nearest = [min(max(round((place - field / 2) / step), 0), given - 1) for place in places]
        taken = weights[:, :, torch.tensor(nearest, device=weights.device)]
        return taken.reshape(batch, speakers, num_frames, self.points).mean(3)


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
        of the graph. There is no state to stream."""
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
