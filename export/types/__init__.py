"""Frozen value types that are written to disk or cross a package boundary.

No torch here: reading a bundle must be cheap. Every type forbids unknown keys, refuses NaN and
writes every field, so that a file says all that its reader may rely on.
"""

from __future__ import annotations

from .artifacts import (
    Artifact,
    FileEntry,
    Golden,
    GraphStats,
    Precision,
    Recipe,
    RuntimeOption,
)
from .bundles import (
    Bundle,
    BundleContent,
    PipelineContent,
)
from .guards import (
    FloatComparison,
    GuardRecord,
    Promises,
)
from .models import (
    FrameGeometry,
    ModelSpec,
    PipelineParameters,
    Role,
    TensorSpec,
)
from .streams import (
    Initial,
    StateSpec,
    StreamSpec,
)
from .timing import (
    ArtifactProfile,
    BenchRecord,
    LatencyRecord,
    LatencyReport,
    NodeTime,
    ProfileRecord,
    TimeRatio,
)
from .values import (
    SCHEMA_VERSION,
    Sha256,
    Value,
)
from .verdicts import (
    RUNGS,
    DerComparison,
    DerInterval,
    DerScore,
    Metric,
    ParityRecord,
    ParityReport,
    ParitySummary,
    Rung,
    RungName,
    Verdict,
    VerificationScore,
)

__all__ = [
    "RUNGS",
    "SCHEMA_VERSION",
    "Artifact",
    "ArtifactProfile",
    "BenchRecord",
    "Bundle",
    "BundleContent",
    "DerComparison",
    "DerInterval",
    "DerScore",
    "FileEntry",
    "FloatComparison",
    "FrameGeometry",
    "Golden",
    "GraphStats",
    "GuardRecord",
    "Initial",
    "LatencyRecord",
    "LatencyReport",
    "Metric",
    "ModelSpec",
    "NodeTime",
    "ParityRecord",
    "ParityReport",
    "ParitySummary",
    "PipelineContent",
    "PipelineParameters",
    "Precision",
    "ProfileRecord",
    "Promises",
    "Recipe",
    "Role",
    "Rung",
    "RungName",
    "RuntimeOption",
    "Sha256",
    "StateSpec",
    "StreamSpec",
    "TensorSpec",
    "TimeRatio",
    "Value",
    "Verdict",
    "VerificationScore",
]
