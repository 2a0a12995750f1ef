"""What the ladder needs of stateful artifacts: that they are looked at as if they took windows.

Each window goes through hop by hop, and the references hear as a stream does
(`export.models.running.as_heard`), all of the window at once: every frame is compared, from the
first on, over as many hops as a window has.
"""

from __future__ import annotations

from torch import nn

from export.models.running import as_heard, stream_spec
from export.pipeline import hop_of
from export.rewrites.streaming import streaming_form
from export.types import Artifact, ModelSpec

from ..runners.base import Runner
from ..stateful import StreamedWindows
from .contract import declaration_problems
from .decisions import compare_decisions
from .reference import ReferenceScores


def reference_of(artifact: Artifact, module: nn.Module, spec: ModelSpec) -> nn.Module:
    """What an artifact is compared with, of PyTorch's module."""
    return module if artifact.stream is None else as_heard(module, spec)


def exported_form(artifact: Artifact, canonical: nn.Module, spec: ModelSpec) -> nn.Module:
    """The module that an artifact was exported from, before its rewrites."""
    hop_s = hop_of(artifact.recipe)
    return canonical if hop_s is None else streaming_form(canonical, spec, hop_s=hop_s)[0]


def by_windows(runner: Runner, artifact: Artifact, spec: ModelSpec) -> Runner:
    """A runner of windows: the artifact's own, or one that goes through them."""
    if artifact.stream is None:
        return runner
    return StreamedWindows(runner, artifact.stream, num_frames=spec.geometry.num_frames)


def stream_problems(
    runner: Runner, artifact: Artifact, canonical: nn.Module, spec: ModelSpec
) -> list[tuple[None, str]]:
    """How a stateful file differs from its manifest, and that from the model."""
    stream, hop_s = artifact.stream, hop_of(artifact.recipe)
    if stream is None or hop_s is None:
        return [(None, "the manifest does not say what its states are")] if hop_s or stream else []
    found = [
        *declaration_problems("input", runner.inputs, stream.inputs),
        *declaration_problems("output", runner.outputs, stream.outputs),
    ]
    if stream != stream_spec(spec, canonical, hop_s=hop_s):
        found.append("the manifest's hop, lead or states are not those of the model")
    return [(None, text) for text in found]


def heard_otherwise(running: ReferenceScores, whole: ReferenceScores, *, spec: ModelSpec) -> str:
    """How often a model decides otherwise as a stream than on whole windows."""
    decided = [
        compare_decisions(mine, theirs, spec=spec, band=0.0)
        for mine, theirs in zip(running.float64, whole.float64, strict=True)
    ]
    share = 100 * sum(each.flips for each in decided) / sum(len(each.settled) for each in decided)
    return (
        "its norm runs along with the stream, in the references too; PyTorch so decides "
        f"{share:.1f} % of frames otherwise than on whole windows, each heard from its start"
    )
