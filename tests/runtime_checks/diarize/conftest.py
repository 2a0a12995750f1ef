"""Networks that are arithmetic: levels of the audio say who speaks, so that all is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from export.types import FrameGeometry, ModelSpec, PipelineParameters
from runtime_checks.diarize.stages import Stages

RATE = 1000
GEOMETRY = FrameGeometry(
    sample_rate_hz=RATE,
    window_samples=5000,
    num_frames=246,
    frame_step_samples=20,
    receptive_field_samples=100,
)
SPEC = ModelSpec(
    name="levels",
    architecture="none",
    geometry=GEOMETRY,
    classes=("speaker1", "speaker2", "speaker3"),
    powerset_max_classes=None,
    permutation_invariant=True,
    inputs=(),
    outputs=(),
    licence="MIT",
    trained_on="nothing",
)
DIRECTIONS = np.eye(4, dtype=np.float32)


def _levels(samples: NDArray[np.float32]) -> NDArray[np.int64]:
    centres = np.arange(GEOMETRY.num_frames) * 20 + 50
    levels: NDArray[np.int64] = np.rint(samples[centres]).astype(np.int64)
    return levels


def segment(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bit k of a sample's value says that person k speaks; who is heard last has the first slot."""
    levels = _levels(samples)
    people = [k for k in range(4) if (levels >> k & 1).any()]
    people.sort(key=lambda k: -int(np.flatnonzero(levels >> k & 1)[-1]))
    scores = np.zeros((GEOMETRY.num_frames, 3), np.float32)
    for slot, person in enumerate(people[:3]):
        scores[:, slot] = 0.9 * (levels >> person & 1)
    return scores


def embed(samples: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the directions of who speaks in the frames, as weighted."""
    levels = _levels(samples)
    voices = np.stack([(levels >> k & 1) for k in range(4)], axis=1).astype(np.float32)
    sums = weights @ (voices @ DIRECTIONS)
    found: NDArray[np.float32] = sums / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    return found


def audio(*turns: tuple[int, float, float], duration_s: float) -> NDArray[np.float32]:
    """Samples of (person, start, end) in seconds."""
    samples = np.zeros(round(duration_s * RATE), np.int64)
    for person, start_s, end_s in turns:
        samples[round(start_s * RATE) : round(end_s * RATE)] |= 1 << person
    return samples.astype(np.float32)


@pytest.fixture
def stages() -> Stages:
    return Stages(segment, embed, SPEC)


@pytest.fixture
def parameters() -> PipelineParameters:
    return PipelineParameters(delta_new=0.6, latency_s=2.0)
