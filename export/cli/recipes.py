"""`diarport recipes`: what a model can be turned into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .common import JsonOption, print_json, print_table

if TYPE_CHECKING:
    from ..types import Promises


def command(json: JsonOption = False) -> None:
    """List the recipes of every backend, what they are, and what backends refuse and why.

    Examples:

    - `diarport recipes`

    - `diarport recipes --json`
    """
    from ..backends.base import BACKENDS, RECIPES
    from ..budget import promises_of
    from ..recipes import DESCRIPTIONS, REFUSED

    len(BACKENDS)  # recipes are registered by their backends
    recipes = [RECIPES[key] for key in sorted(RECIPES)]
    if json:
        print_json([recipe.model_dump(mode="json") for recipe in recipes])
        return
    rows = [
        {
            "backend": recipe.backend,
            "recipe": recipe.name,
            "weights": recipe.weight_precision.value,
            "activations": recipe.activation_precision.value,
            "parity limits": recipe.tolerance.value,
            "promised beside fp32": _promised(promises_of(recipe)),
        }
        for recipe in recipes
    ]
    print_table("Recipes", rows)
    print_table("What they are", [{"recipe": n, "is": what} for n, what in DESCRIPTIONS.items()])
    refused = [key.partition("/") for key in sorted(REFUSED)]
    print_table(
        "Refused",
        [{"backend": b, "recipe": n, "why": REFUSED[f"{b}/{n}"]} for b, _, n in refused],
    )


def _promised(promises: Promises) -> str:
    """Ratios at most, of size and of time."""
    ratios = {"size": promises.size, "time": promises.time}
    return ", ".join(f"{name} {ratio:g}" for name, ratio in ratios.items() if ratio is not None)
