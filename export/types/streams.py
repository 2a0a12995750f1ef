"""What an artifact takes and gives that goes on where it stopped."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from .models import ModelSpec, TensorSpec
from .values import Value


class Initial(StrEnum):
    """What a state is before the first hop: zeros, or the recording's first samples."""

    ZEROS = "zeros"
    AUDIO = "audio"


class StateSpec(Value):
    """A state of a stream: what the output holds after a hop is the input of the next one."""

    input: str
    output: str
    initial: Initial


class StreamSpec(Value):
    """What a stateful artifact takes and gives, the same for every backend.

    A hop takes `hop_samples` of new audio (the first input) and gives the scores (the first output)
    of `hop_frames` frames. All other inputs and outputs are states. The state that begins as audio
    takes the first `lead_samples` of a recording, so that the first frame of the first hop is the
    recording's first frame; after hop `k` (from 1), the last score is that of frame
    `k * hop_frames - 1`, and `lead_samples + k * hop_samples` were heard.
    """

    hop_samples: int = Field(gt=0)
    hop_frames: int = Field(gt=0)
    lead_samples: int = Field(gt=0)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...]

    def contract(self, spec: ModelSpec) -> ModelSpec:
        """A model's contract with these inputs and outputs."""
        return spec.model_copy(update={"inputs": self.inputs, "outputs": self.outputs})
