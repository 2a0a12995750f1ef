"""What is learnt of one window: who speaks when in it, and what each voice is like.

Whatever computes the two networks (an artifact, PyTorch, a test's arithmetic) is a pair of
functions here, so that everything after them is the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.types import ModelSpec, PipelineParameters

from .decisions import Floats, speaker_probabilities
from .overlap import clean_frames, overlap_aware_weights
from .windows import Hop

Samples = NDArray[np.float32]
Segment = Callable[[Samples], NDArray[np.float32]]
Embed = Callable[[Samples, NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Stages:
    """The networks of a pipeline.

    `segment` gives the scores float32 [frames, classes] of a window float32 [samples]; `embed` the
    embeddings float32 [speakers, dimension] of a window and weights float32 [speakers, frames].
    `spec` is the contract of the segmentation.
    """

    segment: Segment
    embed: Embed
    spec: ModelSpec


@dataclass(frozen=True)
class WindowSpeech:
    """What one window tells, for each of its speaker slots, and what it cost.

    `scores` are probabilities [frames, slots] (zero in slots that are not active), `embeddings`
    [slots, dimension] have length one (zeros where there is none), and `clean_s` [slots] are the
    seconds in which a slot's speaker speaks alone.
    """

    start: int
    end: int
    scores: Floats | NDArray[np.float32]
    active: NDArray[np.bool_]
    embeddings: Floats | NDArray[np.float32]
    clean_s: Floats
    segmentation_ms: float
    embedding_ms: float


def listen(hop: Hop, stages: Stages, parameters: PipelineParameters) -> WindowSpeech:
    """Scores and embeddings of a window. A window without speech costs no embedding."""
    begin = time.perf_counter()
    scores = speaker_probabilities(stages.segment(hop.samples), stages.spec)
    segmented = time.perf_counter()
    step_s = stages.spec.geometry.frame_step_s
    active = (scores >= parameters.tau_active).sum(axis=0) * step_s >= parameters.min_active_s
    clean = clean_frames(scores, tau=parameters.tau_active)
    clean_s = clean.sum(axis=0) * step_s
    embeddings = np.zeros((scores.shape[1], 0))
    if active.any():
        weights = embedding_weights(scores, clean, clean_s=clean_s, parameters=parameters)
        weights[~active] = 0
        raw = stages.embed(hop.samples, weights.astype(np.float32))
        embeddings = unit(raw.astype(np.float64), mean=parameters.embedding_mean)
        embeddings[~active] = 0
    done = time.perf_counter()
    return WindowSpeech(
        start=hop.start,
        end=hop.end,
        scores=np.where(active, scores, 0.0),
        active=active,
        embeddings=embeddings,
        clean_s=np.where(active, clean_s, 0.0),
        segmentation_ms=1000 * (segmented - begin),
        embedding_ms=1000 * (done - segmented),
    )


def embedding_weights(
    scores: Floats,
    clean: NDArray[np.bool_],
    *,
    clean_s: Floats,
    parameters: PipelineParameters,
) -> Floats:
    """Weights [slots, frames]: the frames where a slot speaks alone, where these are enough.

    The published weights only lower overlap; half of another's voice still moves an embedding. They
    are taken where fewer than `min_clean_s` seconds are clean.
    """
    soft = overlap_aware_weights(scores, gamma=parameters.gamma, beta=parameters.beta)
    enough = clean_s >= parameters.min_clean_s
    weights: Floats = np.where(enough[:, None], clean.T.astype(np.float64), soft)
    return weights


def unit(embeddings: Floats, *, mean: tuple[float, ...]) -> Floats:
    """Embeddings [slots, dimension] from which the mean is taken, at length one (or zero).

    Embeddings that are never negative, as GE2E's after its rectifier, lie in one corner of the
    space, where all cosine distances are small; around their mean they use all of it.
    """
    return unit_rows(embeddings - np.asarray(mean) if mean else embeddings)


def unit_rows(vectors: Floats) -> Floats:
    """Vectors [.., dimension] at length one, or zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return scaled
