"""Part of rung 1: does the file hold the weights that were exported?"""

from __future__ import annotations

from torch import nn

from export.rewrites.base import apply_rewrites
from export.types import Artifact

from ..runners.base import Runner, Weighing


def weight_problems(
    runner: Runner, artifact: Artifact, module: nn.Module
) -> tuple[tuple[None, str], ...]:
    """What of a file's weights is not that of the module that was exported, before its rewrites, as
    problems of no one window; nothing where a runner cannot tell."""
    if not isinstance(runner, Weighing):
        return ()
    exported = apply_rewrites(module, artifact.rewrites)
    return tuple((None, text) for text in runner.weight_faults(exported))
