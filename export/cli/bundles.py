"""What commands that take a bundle need of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BackendUnavailableError, BundleError, RecipeError

if TYPE_CHECKING:
    from ..checkpoint import LoadedModel
    from ..types import Artifact, Bundle


def chosen_artifacts(
    path: Path, bundle: Bundle, *, backends: list[str], recipes: list[str], timed: bool = False
) -> list[Artifact]:
    """The artifacts asked for; raises when there is none, or when a named backend cannot run, or
    cannot be `timed`."""
    from runtime_checks.runners.base import RUNNERS, backend_of, why_untimed

    for backend in backends:
        if reason := why_untimed(backend) if timed else RUNNERS[backend].unavailable():
            raise BackendUnavailableError(backend, found=reason)
    wanted = {backend_of(backend) for backend in backends}
    there = bundle.content.artifacts
    chosen = [
        artifact
        for artifact in there
        if (not wanted or artifact.recipe.backend in wanted)
        and (not recipes or artifact.recipe.name in recipes)
    ]
    if not chosen:
        raise RecipeError(
            path,
            found=f"no artifact of {', '.join([*backends, *recipes])}",
            expected=", ".join(f"{a.recipe.backend}/{a.recipe.name}" for a in there),
        )
    return chosen


def model_of_bundle(path: Path, bundle: Bundle, model: str | None) -> LoadedModel:
    """The float model a bundle was built from, with the bundle's window.

    It is the zoo model that the bundle names, unless the user names one. Raises `BundleError`
    when there is none, or its hash is another.
    """
    from ..checkpoint import load_model, with_window, zoo_names

    content = bundle.content
    if model is None and content.model_source not in zoo_names():
        raise BundleError(
            path,
            found=f"built from {content.model_source}, which does not ship",
            todo="Give the model it was built from: --model.",
        )
    loaded = load_model(model or content.model_source)
    if loaded.sha256 != content.checkpoint_sha256:
        raise BundleError(
            path,
            found=f"built from a checkpoint of hash {content.checkpoint_sha256[:12]}",
            expected=f"that of {loaded.source}, {loaded.sha256[:12]}",
            todo="Give the model it was built from, or build it again.",
        )
    return with_window(loaded, content.spec.geometry.window_s)
