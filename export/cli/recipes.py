"""`diarport recipes`: what a model can be turned into."""

from __future__ import annotations

from .common import JsonOption, print_json, print_table


def command(json: JsonOption = False) -> None:
    """List the recipes of every backend.

    Examples:

    - `diarport recipes`

    - `diarport recipes --json`
    """
    from ..backends.base import BACKENDS, RECIPES

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
        }
        for recipe in recipes
    ]
    print_table("Recipes", rows)
