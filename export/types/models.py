"""What a model takes and gives, and how windows become speakers."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from .values import SCHEMA_VERSION, Value


class TensorSpec(Value):
    """Name, dtype (numpy's name) and shape of one input or output; None is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class FrameGeometry(Value):
    """How output frames lie over input samples.

    Frame `i` looks at samples `[i * frame_step_samples, i * frame_step_samples +
    receptive_field_samples)`; its time is the centre of that interval, as in pyannote.audio.
    """

    sample_rate_hz: int = Field(gt=0)
    window_samples: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    frame_step_samples: int = Field(gt=0)
    receptive_field_samples: int = Field(gt=0)

    @property
    def window_s(self) -> float:
        """Window length in seconds."""
        return self.window_samples / self.sample_rate_hz

    @property
    def frame_step_s(self) -> float:
        """Distance of two frames in seconds."""
        return self.frame_step_samples / self.sample_rate_hz

    def frame_center_s(self, frame: int) -> float:
        """Time of a frame's centre, in seconds from the start of the window."""
        center = frame * self.frame_step_samples + self.receptive_field_samples / 2
        return center / self.sample_rate_hz


class Role(StrEnum):
    """What a model does in a pipeline: who speaks in which frame, or whose voice that is."""

    SEGMENTATION = "segmentation"
    EMBEDDING = "embedding"


class ModelSpec(Value):
    """What a model takes and gives, whatever runtime computes it.

    A segmentation model takes a waveform and gives scores of its classes by frame. An embedding
    model takes a waveform and weights [1, speakers, frames] on the frames of a segmentation
    model, which its `geometry` is, and gives embeddings [1, speakers, dimension]; it has no
    classes.
    """

    name: str
    role: Role = Role.SEGMENTATION
    architecture: str
    geometry: FrameGeometry
    classes: tuple[str, ...]
    powerset_max_classes: int | None
    permutation_invariant: bool
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    licence: str
    trained_on: str

    @property
    def activation(self) -> Literal["sigmoid", "log_softmax"]:
        """What the scores are: probabilities per speaker, or log-probabilities per speaker set."""
        return "sigmoid" if self.powerset_max_classes is None else "log_softmax"


class PipelineParameters(Value):
    """How windows become speakers (`runtime_checks.diarize`), by the symbols of Coria et al. 2021.

    `tau_active` and `tau_inactive`: scores from which a speaker speaks and below which he has
    stopped. `rho_update_s`: seconds of clean speech (nobody else speaks) from which an embedding
    moves a speaker's centre; `new_s`: from which it may found a new one, where its cosine distance
    from all centres is `delta_new` or more; `trusted_s`: from which its distances count in full.
    `gamma` and `beta` shape the weights where less than `min_clean_s` is clean. A slot that is
    active for less than `min_active_s` is left out. `embedding_mean` is taken from embeddings
    before they are compared (empty: nothing is). `hamming_power` sharpens the weights of
    aggregation. Whole-file clustering (`agglomeration.cluster`) knows `alike_distance`,
    `together_cost` and `min_share`. `speaker_cost` is what a speaker must
    save of the distances of all voices to be one (`centres.price`).
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    hop_s: float = Field(default=0.5, gt=0)
    latency_s: float = Field(default=5.0, gt=0)
    hamming_power: float = Field(default=2.0, gt=0)
    tau_active: float = Field(default=0.5, ge=0, le=1)
    tau_inactive: float = Field(default=0.5, ge=0, le=1)
    rho_update_s: float = Field(default=1.0, ge=0)
    new_s: float = Field(default=1.5, ge=0)
    trusted_s: float = Field(default=1.5, gt=0)
    delta_new: float = Field(default=0.85, gt=0, le=2)
    gamma: float = Field(default=3.0, gt=0)
    beta: float = Field(default=10.0, gt=0)
    min_clean_s: float = Field(default=0.33, ge=0)
    min_active_s: float = Field(default=0.06, ge=0)
    max_speakers: int = Field(default=20, gt=0)
    embedding_mean: tuple[float, ...] = ()
    alike_distance: float = Field(default=0.65, gt=0, le=2)
    together_cost: float = Field(default=1.25, ge=0)
    speaker_cost: float = Field(default=0.03, gt=0)
    min_share: float = Field(default=0.03, ge=0, le=1)
