"""Times of artifacts, and where they go."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from .values import SCHEMA_VERSION, Sha256, Value


class LatencyReport(Value):
    """Raw timings of one candidate; every statistic is derived (runtime_checks.timing.protocol).

    `thermal` and `device` describe the machine; `hop_s` is what the real-time factor divides by.
    Reports compare where model, window, device and threads agree. `processes` holds how many of
    the samples came from each process, in their order; empty means one.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    candidate: str
    model: str | None = None
    window_s: float | None = None
    artifact_sha256: Sha256 | None
    device: str
    threads: int
    warmup_runs: int
    hop_s: float
    samples_ms: tuple[float, ...]
    processes: tuple[int, ...] = ()
    load_ms: float
    first_ms: float
    peak_rss_bytes: int
    thermal: str
    failures: tuple[str, ...]


class LatencyRecord(Value):
    """`latency.json`: one interleaved run, the PyTorch eager baseline among its candidates."""

    schema_version: Literal[1] = SCHEMA_VERSION
    reports: tuple[LatencyReport, ...]


class TimeRatio(Value):
    """Median time over another's of the same run, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class BenchRecord(Value):
    """What `diarport bench` writes: all raw timings of one run, and what could not be timed.

    `models` are hashes by model: of a bundle's content, or of the weights; None for an untrained
    model, whose times only are of interest. `not_run` are reasons by candidate.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    seed: int
    models: dict[str, Sha256 | None]
    reports: tuple[LatencyReport, ...]
    not_run: dict[str, str]
    notes: tuple[str, ...]


class NodeTime(Value):
    """Time of the nodes of one kind in one place, of all of them together, for one window.

    `place` is an execution provider, a delegate, or `portable`. A time that is a difference of two
    medians may be a little below zero.
    """

    place: str
    kind: str
    nodes: int
    ms: float


class ArtifactProfile(Value):
    """Where one artifact's time goes, or the reason why that cannot be measured here."""

    artifact_path: str
    artifact_sha256: Sha256
    method: str
    threads: int
    runs: int
    nodes: tuple[NodeTime, ...]
    reason: str | None

    @model_validator(mode="after")
    def _nodes_or_reason(self) -> Self:
        if bool(self.nodes) == bool(self.reason):
            raise ValueError("a profile holds either times or the reason why it has none")
        return self


class ProfileRecord(Value):
    """`profile.json`: where the time of each artifact goes."""

    schema_version: Literal[1] = SCHEMA_VERSION
    profiles: tuple[ArtifactProfile, ...]
