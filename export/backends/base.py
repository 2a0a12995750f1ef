"""What a backend must answer. One backend is one file beside this one.

Exporting and running are separate questions (Core ML exports on Linux but runs on a Mac only), so
the runner of a backend is a file of `runtime_checks/runners` under the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import nn

from ..errors import RecipeError
from ..models.base import MODELS, Selective
from ..recipes import REFUSED
from ..registry import Registry
from ..types import GraphStats, ModelSpec, Precision, Recipe, RuntimeOption


class Backend(Protocol):
    """Turns a canonical module into one file (or package directory)."""

    suffix: str
    rewrites: tuple[str, ...]

    def unavailable(self) -> str | None:
        """Why this backend cannot export here, or None."""
        ...

    def refuses(self, spec: ModelSpec, recipe: Recipe) -> str | None:
        """Why this backend cannot do this recipe for this model, or None."""
        ...

    def export(self, module: nn.Module, spec: ModelSpec, recipe: Recipe, out: Path) -> GraphStats:
        """Write the artifact of an already rewritten module to `out`.

        The same inputs must write the same bytes. With the recipe's option `dynamic_length` the
        artifact takes any number of samples.
        """
        ...

    def tool_versions(self) -> dict[str, str]:
        """Versions of the libraries that shaped the artifact."""
        ...

    def runtime_options(self) -> dict[str, RuntimeOption]:
        """How the runtime should be set up for an artifact, by the runtime's own names."""
        ...

    def fallbacks(self, stats: GraphStats, recipe: Recipe) -> dict[str, int]:
        """Operators that run where none should, with their counts: what `export.budget` refuses."""
        ...


@runtime_checkable
class Reshaping(Protocol):
    """A backend that makes more than one form of a model's inputs.

    `forms` are the options of recipes that ask for one: `lengths_samples` (windows of several
    lengths), `streaming` (`export.rewrites.streaming`).
    """

    forms: tuple[str, ...]


@runtime_checkable
class Skipping(Protocol):
    """A backend that leaves the layers in float that a recipe skips."""

    skips_layers: bool


FORMS = ("lengths_samples", "streaming")


def why_refused(backend: Backend, spec: ModelSpec, recipe: Recipe) -> str | None:
    """Why a backend cannot do a recipe for a model, in the form that its options ask for."""
    known = backend.forms if isinstance(backend, Reshaping) else ()
    architecture = MODELS[spec.architecture]
    if isinstance(architecture, Selective) and (reason := architecture.refuses(recipe)):
        return reason
    if recipe.skip and not isinstance(backend, Skipping):
        return f"this backend leaves no single layer in float ({', '.join(recipe.skip)})"
    missing = [form for form in FORMS if recipe.options.get(form) and form not in known]
    if missing:
        return f"this backend has no form for the option {missing[0]}"
    return backend.refuses(spec, recipe)


BACKENDS: Registry[Backend] = Registry("backend", "export.backends")
register_backend = BACKENDS.register

RECIPES: dict[str, Recipe] = {}


def register_recipe(recipe: Recipe) -> Recipe:
    """Register a recipe under `backend/name`; a duplicate raises ValueError."""
    key = f"{recipe.backend}/{recipe.name}"
    if key in RECIPES:
        raise ValueError(f"recipe {key!r} is registered twice")
    RECIPES[key] = recipe
    return recipe


def fp_recipes(backend: str, *, fp16_compute: bool | None) -> None:
    """Register fp32, and fp16 (True: computed in fp16, False: stored only, None: not at all)."""
    register_recipe(
        Recipe(
            name="fp32",
            backend=backend,
            weight_precision=Precision.FP32,
            activation_precision=Precision.FP32,
        )
    )
    if fp16_compute is not None:
        register_recipe(
            Recipe(
                name="fp16",
                backend=backend,
                weight_precision=Precision.FP16,
                activation_precision=Precision.FP16 if fp16_compute else Precision.FP32,
                options={"promises": {"size": 0.75}},
            )
        )


def select_recipes(backends: list[str], recipes: list[str]) -> list[Recipe]:
    """Recipes by backend and recipe name (empty lists: every backend, `fp32`).

    Raises `RecipeError` when a name is unknown or a combination does not exist.
    """
    chosen_backends = backends or list(BACKENDS)
    for backend in chosen_backends:
        BACKENDS[backend]
    known = sorted({r.name for r in RECIPES.values()})
    selected: list[Recipe] = []
    for name in recipes or ["fp32"]:
        matching = [r for b in chosen_backends if (r := RECIPES.get(f"{b}/{name}"))]
        missing = [b for b in backends if f"{b}/{name}" not in RECIPES]
        if reasons := [REFUSED[key] for b in missing if (key := f"{b}/{name}") in REFUSED]:
            raise RecipeError(
                f"{missing[0]}/{name}",
                found=f"refused ({reasons[0]})",
                todo="`diarport recipes` lists what each backend makes, and refuses.",
            )
        if name not in known or not matching or missing:
            raise RecipeError(
                name,
                found=f"no such recipe{' for ' + ', '.join(missing) if missing else ''}",
                expected=f"one of {', '.join(sorted(RECIPES))}",
            )
        selected += matching
    return selected
