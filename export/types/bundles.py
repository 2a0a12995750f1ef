"""What a bundle holds."""

from __future__ import annotations

from typing import Literal

from .artifacts import Artifact, FileEntry, Golden
from .models import ModelSpec, PipelineParameters
from .values import SCHEMA_VERSION, Sha256, Value
from .verdicts import ParitySummary


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
