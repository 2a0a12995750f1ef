"""The two networks of a pipeline, from PyTorch or from artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.errors import BackendUnavailableError, BundleError
from export.types import Artifact, ModelSpec

from ..runners.base import RUNNERS, Runner
from .stages import Samples, Stages
from .stateful import StatefulSegmentation

if TYPE_CHECKING:
    from export.checkpoint import LoadedModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """An artifact, the path of its file, the contract of its model, and another runner for it."""

    artifact: Artifact
    path: Path
    spec: ModelSpec
    runner: str | None = None

    @property
    def name(self) -> str:
        """Its backend (or the runner asked for) and recipe."""
        return f"{self.runner or self.artifact.recipe.backend}/{self.artifact.recipe.name}"


def artifact_stages(segmentation: Found, embedding: Found, *, threads: int = 1) -> Stages:
    """Open two artifacts. Raises `BackendUnavailableError` where one cannot run here."""
    agree(segmentation.spec, embedding.spec)
    first, second = (_open(each, threads) for each in (segmentation, embedding))
    (waveform,), (scores,) = segmentation.spec.inputs, segmentation.spec.outputs
    heard, weighted = embedding.spec.inputs
    (embeddings,) = embedding.spec.outputs

    def segment(samples: Samples) -> Floats:
        given: Floats = first.run({waveform.name: samples[None, None]})[scores.name][0]
        return given

    def embed(samples: Samples, weights: Floats) -> Floats:
        inputs: Mapping[str, Floats] = {
            heard.name: samples[None, None],
            weighted.name: weights[None],
        }
        given: Floats = second.run(inputs)[embeddings.name][0]
        return given

    return Stages(segment, embed, segmentation.spec)


def stateful_segmentation(found: Found, *, threads: int = 1) -> StatefulSegmentation:
    """Open a stateful artifact. Raises as `artifact_stages` does."""
    stream = found.artifact.stream
    assert stream is not None, "not a stateful artifact"  # noqa: S101 - whoever chose it knows
    return StatefulSegmentation(_open(found, threads), stream, found.spec)


def torch_stages(segmentation: LoadedModel, embedding: LoadedModel) -> Stages:
    """The PyTorch modules, as they are used without us: float32, inference mode."""
    import torch

    agree(segmentation.spec, embedding.spec)

    def segment(samples: Samples) -> Floats:
        with torch.inference_mode():
            scores: Floats = segmentation.module(torch.from_numpy(samples)[None, None])[0].numpy()
        return scores

    def embed(samples: Samples, weights: Floats) -> Floats:
        with torch.inference_mode():
            given = torch.from_numpy(samples)[None, None], torch.from_numpy(weights)[None]
            embeddings: Floats = embedding.module(*given)[0].numpy()
        return embeddings

    return Stages(segment, embed, segmentation.spec)


def agree(segmentation: ModelSpec, embedding: ModelSpec) -> None:
    """Raise `BundleError` unless the embedding takes the segmentation's windows and frames."""
    theirs, speakers = embedding.geometry, embedding.inputs[1].shape[1]
    if theirs != segmentation.geometry or speakers != len(segmentation.classes):
        mine = segmentation.geometry
        raise BundleError(
            embedding.name,
            found=f"weights for {speakers} speakers on {theirs.num_frames} frames of windows of "
            f"{theirs.window_s:g} s",
            expected=f"{len(segmentation.classes)} speakers on {mine.num_frames} frames of "
            f"{mine.window_s:g} s, as {segmentation.name} gives",
            todo="Build both for one window (--window-s).",
        )


def _open(found: Found, threads: int) -> Runner:
    backend = found.runner or found.artifact.recipe.backend
    factory = RUNNERS[backend]
    if reason := factory.unavailable():
        raise BackendUnavailableError(backend, found=reason)
    contract = found.artifact.contract(found.spec)
    return factory.open(
        found.path, contract, threads=threads, options=found.artifact.runtime_options
    )
