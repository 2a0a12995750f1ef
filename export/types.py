"""Frozen value types that are written to disk or cross a package boundary.

No torch here: reading a bundle must be cheap. Every type forbids unknown keys, refuses NaN and
writes every field, so that a file says all that its reader may rely on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

SCHEMA_VERSION: Literal[1] = 1

Sha256 = str


class Value(BaseModel):
    """Base of all value types: frozen, closed, finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        """Canonical JSON text: sorted keys, two spaces, one trailing newline."""
        import json

        data = self.model_dump(mode="json")
        return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


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
    `together_cost`, `cluster_distance` and `min_share`.
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
    cluster_distance: float = Field(default=0.75, gt=0)
    min_share: float = Field(default=0.03, ge=0, le=1)


class Precision(StrEnum):
    """Numeric precision of weights or activations, from the finest to the coarsest.

    A palette is a table of values that weights are indices into, of so many bits.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    PALETTE_8 = "palette-8"
    PALETTE_6 = "palette-6"
    INT4 = "int4"
    PALETTE_4 = "palette-4"


class Recipe(Value):
    """One way of making an artifact: a backend, precisions, and the backend's own options."""

    name: str
    backend: str
    weight_precision: Precision
    activation_precision: Precision
    skip: tuple[str, ...] = ()
    calibration_sha256: Sha256 | None = None
    options: dict[str, JsonValue] = {}

    @property
    def tolerance(self) -> Precision:
        """The precision whose parity limits apply: the coarser of weights and activations."""
        return max(self.weight_precision, self.activation_precision, key=list(Precision).index)


class GraphStats(Value):
    """What an artifact's graph holds, counted by operator, and where it runs.

    `operators` counts what the file itself holds, a delegate's call as one. `delegated` counts what
    runs inside each delegate or execution provider, `portable` what the runtime computes on kernels
    of its own (of ONNX: nodes that compute shapes, or what is computed next), `looped` what runs
    once in every turn of a loop. What depends on the machine (how ONNX Runtime fuses nodes when it
    loads) is not here but in the profile (`ArtifactProfile`).

    `stored` counts the values of weight matrices by how they are stored where the recipe makes them
    smaller (`int8`, `palette-4`, `float16`), and `not_smaller` those, by name, that it should have
    made smaller and that were left as they are.
    """

    operators: dict[str, int]
    delegates: int
    weight_bytes: int
    delegated: dict[str, dict[str, int]] = {}
    portable: dict[str, int] = {}
    looped: dict[str, int] = {}
    stored: dict[str, int] = {}
    not_smaller: dict[str, int] = {}


RuntimeOption = bool | int | str


class Artifact(Value):
    """One exported file (or package directory) of a bundle.

    `runtime_options` are how its runtime should be set up, by the runtime's own names.
    """

    path: str
    sha256: Sha256
    size_bytes: int
    recipe: Recipe
    rewrites: tuple[str, ...]
    dynamic_length: bool
    tool_versions: dict[str, str]
    graph_stats: GraphStats
    runtime_options: dict[str, RuntimeOption] = {}


class Golden(Value):
    """One input window and the scores expected for it, as raw little-endian float32 files.

    Of an embedding model, the weights are a second input and the output are embeddings.
    `noise_floor` is the distance of PyTorch in float32 from PyTorch in float64 on this window.
    """

    name: str
    input_path: str
    input_sha256: Sha256
    input_shape: tuple[int, ...]
    output_path: str
    output_sha256: Sha256
    output_shape: tuple[int, ...]
    noise_floor: float
    weights_path: str | None = None
    weights_sha256: Sha256 | None = None
    weights_shape: tuple[int, ...] | None = None


class FileEntry(Value):
    """A file of a bundle that is neither artifact nor golden."""

    path: str
    sha256: Sha256
    size_bytes: int


class Verdict(StrEnum):
    """Outcome of a check. What could not run is never a pass."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    NOT_RUN = "NOT_RUN"

    @classmethod
    def worst(cls, verdicts: list[Verdict]) -> Verdict:
        """FAIL over NOT_RUN over PASS; nothing at all is NOT_RUN."""
        for candidate in (cls.FAIL, cls.NOT_RUN):
            if candidate in verdicts:
                return candidate
        return cls.PASS if verdicts else cls.NOT_RUN


class Metric(Value):
    """One measured value with its limit (None: reported only), unit and direction."""

    name: str
    value: float
    limit: float | None
    unit: str
    higher_is_better: bool

    @property
    def passed(self) -> bool:
        """Whether the value is within its limit; a metric without a limit always is."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.higher_is_better else self.value <= self.limit


class RungName(StrEnum):
    """The rungs of the parity ladders, in order; `RUNGS` has those of each role."""

    CONTRACT = "contract"
    FEATURES = "features"
    SCORES = "scores"
    DECISIONS = "decisions"
    BOUNDARIES = "boundaries"
    DER = "der"
    EMBEDDINGS = "embeddings"


RUNGS: Mapping[Role, tuple[RungName, ...]] = {
    Role.SEGMENTATION: tuple(name for name in RungName if name is not RungName.EMBEDDINGS),
    Role.EMBEDDING: (RungName.CONTRACT, RungName.FEATURES, RungName.EMBEDDINGS),
}


class Rung(Value):
    """One rung's result, with the window that was worst on it."""

    name: RungName
    verdict: Verdict
    metrics: tuple[Metric, ...]
    worst_window: str | None
    reason: str | None

    @model_validator(mode="after")
    def _reason_when_not_run(self) -> Self:
        if self.verdict is Verdict.NOT_RUN and not self.reason:
            raise ValueError("a rung that did not run must say why")
        return self


class DerScore(Value):
    """Diarization error rate in percent, with its parts and the settings it was computed with.

    `pooled` divides summed errors by summed reference speech; `window_mean` is the mean over
    windows (the papers' chunk-wise rate). Rates are percent of reference speech.
    """

    pooled: float
    window_mean: float
    false_alarm: float
    missed_detection: float
    confusion: float
    reference_speech_s: float
    num_windows: int
    collar_s: float
    skip_overlap: bool


class DerInterval(Value):
    """Where the difference of two pooled DERs lies, in percentage points: a paired bootstrap.

    `stretches` is how many independent pieces of audio were drawn from: windows that overlap are
    one piece. Few of them make it wide, and itself uncertain.
    """

    low: float
    high: float
    confidence: float
    stretches: int


class DerComparison(Value):
    """DER of an artifact beside the reference's on the same audio.

    `interval` is None where there is but one piece of audio to draw from.
    """

    artifact: DerScore
    reference: DerScore
    interval: DerInterval | None = None

    @property
    def delta(self) -> float:
        """Pooled DER minus the reference's, in percentage points."""
        return self.artifact.pooled - self.reference.pooled


class VerificationScore(Value):
    """Error rates in percent, costs between 0 and 1, and how many trials they are of.

    `min_dcf` are minimum detection costs by the prior of a target, divided by the cost of always
    answering the likelier: 1 is no better than not listening.
    """

    eer: float
    min_dcf: dict[str, float]
    targets: int
    impostors: int
    speakers: int
    segments: int
    segment_s: float


class ParityReport(Value):
    """The ladder for one artifact against one reference."""

    artifact_path: str
    artifact_sha256: Sha256
    against: Literal["compressed", "float"]
    tolerance: Precision
    rungs: tuple[Rung, ...]
    der: DerComparison | None
    verdict: Verdict
    reason: str | None
    first_diverging_layer: str | None = None


class ParityRecord(Value):
    """`parity.json`: every report of one check and what it was done on."""

    schema_version: Literal[1] = SCHEMA_VERSION
    reports: tuple[ParityReport, ...]
    reference_der: DerScore | None
    hop_s: float
    num_speech_windows: int
    notes: tuple[str, ...]


class ParitySummary(Value):
    """The verdict on one artifact, as the manifest carries it."""

    artifact_path: str
    verdict: Verdict
    reason: str | None


class PipelineContent(Value):
    """What makes a bundle a pipeline: an embedding model's own bundle inside it, and parameters.

    `embedding_path` is a bundle's directory, of that `embedding_content_sha256`; goldens of the
    whole pipeline are in `goldens_path` (`runtime_checks.diarize.goldens`).
    """

    embedding_path: str
    embedding_content_sha256: Sha256
    goldens_path: str
    parameters: PipelineParameters


class BundleContent(Value):
    """All of a bundle that its hash covers."""

    spec: ModelSpec
    model_source: str
    checkpoint_sha256: Sha256
    artifacts: tuple[Artifact, ...]
    goldens: tuple[Golden, ...]
    files: tuple[FileEntry, ...]
    parity: tuple[ParitySummary, ...]
    created_by: dict[str, str]
    pipeline: PipelineContent | None = None


class Bundle(Value):
    """`bundle.json`: the hashed content, and beside it what differs from run to run.

    `evidence` lists files that hold measurements or times (parity.json, report.html); they are
    verified too but are not part of `content_sha256`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    content: BundleContent
    content_sha256: Sha256
    evidence: tuple[FileEntry, ...]
    created_at: str


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


class Promises(Value):
    """What a recipe promises at most, beside the fp32 artifact of the same backend: ratios of bytes
    and of median times. None promises nothing."""

    size: float | None = Field(default=None, gt=0)
    time: float | None = Field(default=None, gt=0)


class FloatComparison(Value):
    """A smaller artifact beside the fp32 artifact of the same backend and the same build.

    `time` is None where `untimed` says why. `findings` are sentences by the name that allows each:
    `larger` or `slower` than promised, or than fp32 where nothing is promised. `broken` names those
    that a promise excludes and that are not `allowed`.
    """

    artifact_path: str
    size_bytes: int
    float_size_bytes: int
    time: TimeRatio | None
    untimed: str | None
    promises: Promises
    findings: dict[str, str]
    allowed: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def size_ratio(self) -> float:
        """Bytes over the fp32 artifact's."""
        return self.size_bytes / self.float_size_bytes


class GuardRecord(Value):
    """`guard_rails.json`: every smaller artifact of a build beside fp32."""

    schema_version: Literal[1] = SCHEMA_VERSION
    comparisons: tuple[FloatComparison, ...]


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
