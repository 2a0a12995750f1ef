"""fp32 beside what is smaller: what `diarport build` needs to hold recipes to their promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from ..backends.base import FORMS, RECIPES
from ..budget import is_smaller, partner_key
from ..pipeline import Exporter
from ..types import Artifact, FloatComparison
from .common import print_table

Files = Mapping[tuple[str, bool], tuple[Artifact, Path]]
"""Artifacts with their files, by `export.budget.partner_key`."""


def fp32_partners(
    exporter: Exporter, artifacts: Sequence[Artifact], folder: Path, *, scratch: Path
) -> Files:
    """fp32 of every backend and form that has something smaller: the build's own, or made in
    `scratch`.

    A partner has the form of what it is compared with: the same windows, the same states.
    """
    partners: dict[tuple[str, bool], tuple[Artifact, Path]] = {}
    for artifact in artifacts:
        key = partner_key(artifact)
        fp32 = RECIPES.get(f"{artifact.recipe.backend}/fp32")
        if key in partners or fp32 is None or not is_smaller(artifact.recipe):
            continue
        own = next((a for a in artifacts if partner_key(a) == key and _is_fp32(a)), None)
        if own is not None:
            partners[key] = (own, folder / own.path)
            continue
        options = artifact.recipe.options
        forms = {k: v for k, v in options.items() if k in (*FORMS, "dynamic_length")}
        recipe = fp32.model_copy(update={"options": fp32.options | forms})
        made = exporter.export(recipe, scratch)
        partners[key] = (made, scratch / made.path)
    return partners


def _is_fp32(artifact: Artifact) -> bool:
    return artifact.recipe.name == "fp32"


def show_comparisons(comparisons: Sequence[FloatComparison], *, quiet: bool) -> None:
    """Table of sizes and times beside fp32 with what was promised; what is broken in any case."""
    from runtime_checks.guard_rails import broken_promises

    for path, sentences in broken_promises(comparisons).items():
        for sentence in sentences:
            typer.secho(f"FAIL {path}: {sentence}", fg="red", err=True)
    if quiet:
        return
    rows = [
        {
            "artifact": each.artifact_path,
            "size, of fp32": _beside(f"{each.size_ratio:.3f}", each.promises.size),
            "p50, of fp32": _beside(
                f"{each.time.value:.2f} ({each.time.low:.2f}-{each.time.high:.2f})"
                if each.time
                else each.untimed or "",
                each.promises.time,
            ),
            "finding": "; ".join(
                f"{name} (allowed)" if name in each.allowed else name for name in each.findings
            ),
        }
        for each in comparisons
    ]
    if rows:
        print_table("Beside fp32 of the same backend", rows)


def _beside(found: str, promised: float | None) -> str:
    return found if promised is None else f"{found}; promised {promised:g}"
