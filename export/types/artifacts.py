"""How an artifact was made, and the files beside it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, JsonValue

from .models import ModelSpec
from .streams import StreamSpec
from .values import Sha256, Value


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
    options: dict[str, JsonValue] = Field(default_factory=dict)

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
    delegated: dict[str, dict[str, int]] = Field(default_factory=dict)
    portable: dict[str, int] = Field(default_factory=dict)
    looped: dict[str, int] = Field(default_factory=dict)
    stored: dict[str, int] = Field(default_factory=dict)
    not_smaller: dict[str, int] = Field(default_factory=dict)


RuntimeOption = bool | int | str


class Artifact(Value):
    """One exported file (or package directory) of a bundle.

    `runtime_options` are how its runtime should be set up, by the runtime's own names. `stream` is
    what a stateful artifact takes and gives; None for one that takes windows as the model does.
    """

    path: str
    sha256: Sha256
    size_bytes: int
    recipe: Recipe
    rewrites: tuple[str, ...]
    dynamic_length: bool
    tool_versions: dict[str, str]
    graph_stats: GraphStats
    runtime_options: dict[str, RuntimeOption] = Field(default_factory=dict)
    stream: StreamSpec | None = None

    def contract(self, spec: ModelSpec) -> ModelSpec:
        """The inputs and outputs of this artifact of a model."""
        return spec if self.stream is None else self.stream.contract(spec)


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
