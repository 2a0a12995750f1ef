"""Speaker verification: how well embeddings tell the same voice from another.

Trials are pairs of segments. Error rates follow from their scores alone: the equal-error rate,
where misses and false alarms are equally frequent, and the detection cost of NIST (2016 speaker
recognition evaluation plan, section 3.1), at the threshold where it is least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.audio import Recording
from export.errors import AudioError
from export.types import VerificationScore

SEGMENT_S = 3.0
TARGET_PRIORS = (0.01, 0.001)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Segments:
    """Segments of `segment_s` seconds, float32 [samples] each, and whose voice each is."""

    samples: tuple[Samples, ...]
    speakers: tuple[str, ...]
    segment_s: float


def cut_segments(
    speakers: Mapping[str, Sequence[Recording]], *, segment_s: float = SEGMENT_S
) -> Segments:
    """All whole segments of utterances, by speaker.

    Raises AudioError with fewer than two speakers, or where no speaker has two segments: neither
    gives both kinds of trials.
    """
    found: list[tuple[Samples, str]] = []
    for name, utterances in sorted(speakers.items()):
        for utterance in utterances:
            size = round(segment_s * utterance.sample_rate_hz)
            starts = range(0, len(utterance.samples) - size + 1, size)
            found += [(utterance.samples[start : start + size], name) for start in starts]
    names = [name for _, name in found]
    if len(set(names)) < 2 or len(set(names)) == len(names):
        raise AudioError(
            "trials",
            found=f"{len(names)} segments of {len(set(names))} speakers",
            expected=f"two speakers, and two segments of {segment_s:g} s of one of them",
        )
    return Segments(tuple(samples for samples, _ in found), tuple(names), segment_s)


def verify(segments: Segments, embed: Callable[[Samples], Floats]) -> VerificationScore:
    """Every pair of segments as a trial, scored by the cosine of their embeddings."""
    embeddings = np.stack([np.asarray(embed(samples), np.float64) for samples in segments.samples])
    return score_embeddings(embeddings, segments.speakers, segment_s=segments.segment_s)


def score_embeddings(
    embeddings: Floats, speakers: Sequence[str], *, segment_s: float = SEGMENT_S
) -> VerificationScore:
    """Error rates of all pairs of embeddings [segments, dimension] by their cosine."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(norms, 1e-12)
    first, second = np.triu_indices(len(unit), 1)
    scores = np.sum(unit[first] * unit[second], axis=1)
    names = np.array(speakers)
    targets = names[first] == names[second]
    misses, false_alarms = error_rates(scores, targets)
    return VerificationScore(
        eer=100 * equal_error_rate(misses, false_alarms),
        min_dcf={
            f"{prior:g}": min_detection_cost(misses, false_alarms, prior=prior)
            for prior in TARGET_PRIORS
        },
        targets=int(targets.sum()),
        impostors=int((~targets).sum()),
        speakers=len(set(speakers)),
        segments=len(embeddings),
        segment_s=segment_s,
    )


def error_rates(scores: Floats, targets: Bools) -> tuple[Floats, Floats]:
    """Rates of missed targets and of false alarms, at every threshold from accepting none to all.

    Raises ValueError unless there are trials of both kinds.
    """
    if targets.all() or not targets.any():
        raise ValueError("error rates need target and impostor trials")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], targets[order]
    # Trials of one score are accepted together.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    accepted = np.cumsum(hits)[last]
    wrongly = (last + 1) - accepted
    misses = 1 - np.concatenate([[0.0], accepted / targets.sum()])
    return misses, np.concatenate([[0.0], wrongly / (~targets).sum()])


def equal_error_rate(misses: Floats, false_alarms: Floats) -> float:
    """Where both rates are equal, on straight lines between thresholds."""
    difference = misses - false_alarms
    after = int(np.argmax(difference <= 0))
    before = after - 1
    share = difference[before] / (difference[before] - difference[after])
    return float(misses[before] + share * (misses[after] - misses[before]))


def min_detection_cost(misses: Floats, false_alarms: Floats, *, prior: float) -> float:
    """Least cost over all thresholds, misses and false alarms costing the same, normalised."""
    costs = prior * misses + (1 - prior) * false_alarms
    return float(costs.min() / min(prior, 1 - prior))
