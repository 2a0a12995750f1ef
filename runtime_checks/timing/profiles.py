"""Where the time of each artifact goes (`profile.json`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.audio import Recording
from export.errors import ExportError
from export.progress import Progress, silent
from export.types import Artifact, ArtifactProfile, ModelSpec, NodeTime

from ..inputs import window_inputs
from ..runners.base import RUNNERS, NotMeasurableError
from .contenders import windows_of

METHODS = {
    "onnx_ort": "ONNX Runtime's profiler",
    "executorch_xnnpack": "differences of copies of the program that end early",
}
NO_METHOD = "none"


def profile_artifacts(
    artifacts: Sequence[tuple[Artifact, Path]],
    *,
    spec: ModelSpec,
    recordings: Sequence[Recording],
    runs: int,
    progress: Progress = silent,
) -> tuple[ArtifactProfile, ...]:
    """One profile an artifact, on one thread and random windows of the audio; no runs, none."""
    if runs == 0:
        return ()
    windows = windows_of(recordings, spec=spec)
    found = []
    for index, (artifact, path) in enumerate(artifacts):
        progress("profiling", index, len(artifacts))
        backend = artifact.recipe.backend
        declared = artifact.stream.inputs if artifact.stream else spec.inputs
        taken = declared[0].shape[2]
        inputs = [
            window_inputs(declared, windows[i % len(windows)][0, 0, :taken]) for i in range(runs)
        ]
        nodes: tuple[NodeTime, ...] = ()
        reason = RUNNERS[backend].unavailable()
        if reason is None:
            try:
                options = artifact.runtime_options
                nodes = RUNNERS[backend].profile(path, inputs, options=options)
            except (NotMeasurableError, ExportError, RuntimeError, ValueError) as error:
                reason = str(error)
        found.append(
            ArtifactProfile(
                artifact_path=artifact.path,
                artifact_sha256=artifact.sha256,
                method=METHODS.get(backend, NO_METHOD),
                threads=1,
                runs=runs,
                nodes=nodes,
                reason=reason,
            )
        )
    progress("profiling", len(artifacts), len(artifacts))
    return tuple(found)
