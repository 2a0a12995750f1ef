"""Budgets: what an artifact may hold outside its delegates, how large it may be, and whether its
weights are as small as its recipe promises.

A fallback is silent at run time: the artifact is right and slow. So is a weight that a converter
leaves as it is. Both fail the build, unless the recipe allows it by name (options `allow` and
`size_budget`).

Beside fp32 of the same backend a recipe may promise more: its option `promises` holds ratios of
size and of median time at most (`export.types.Promises`). `runtime_checks.guard_rails` compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from .backends.base import BACKENDS
from .errors import BudgetError, RecipeError
from .types import Artifact, Precision, Promises, Recipe

SIZE = "size"
"""The name that allows any size."""

NOT_SMALLER = "not-smaller"
"""The name that allows weights that the recipe should have made smaller."""

LARGER, SLOWER = "larger", "slower"
"""The names that allow a file larger, or a time longer, than promised beside fp32."""

SIZE_RATIO = 1.08
"""Bytes of a file by bytes of its weights."""

FIXED_BYTES = 64_000
"""What instructions and headers may take however small the weights; binds below 0.8 MB of them."""


def check_budgets(artifacts: Sequence[Artifact]) -> None:
    """Raise one `BudgetError` naming every fallback and every size that is not allowed."""
    broken = {artifact.path: found for artifact in artifacts if (found := over_budget(artifact))}
    if not broken:
        return
    names = sorted({name for found in broken.values() for name in found})
    raise BudgetError(
        ", ".join(broken),
        found="; ".join(
            f"{path}: {reason}" if len(broken) > 1 else reason
            for path, found in broken.items()
            for reason in found.values()
        ),
        todo=f"Repair the lowering, or allow it by name: {' '.join(f'--allow {n}' for n in names)}",
    )


def over_budget(artifact: Artifact) -> dict[str, str]:
    """What breaks an artifact's budget, by the name that would allow it.

    Raises `RecipeError` when the recipe's allowances are not understood.
    """
    allowed, ratio = _allowances(artifact.recipe)
    fallbacks = BACKENDS[artifact.recipe.backend].fallbacks(artifact.graph_stats, artifact.recipe)
    found = _fallbacks({name: n for name, n in fallbacks.items() if name not in allowed})
    left = artifact.graph_stats.not_smaller
    if left and NOT_SMALLER not in allowed:
        names = ", ".join(f"{name} ({values} values)" for name, values in sorted(left.items()))
        found[NOT_SMALLER] = f"{artifact.recipe.name} left weights as they were: {names}"
    weights, size = artifact.graph_stats.weight_bytes, artifact.size_bytes
    if SIZE not in allowed and size > max(ratio * weights, weights + FIXED_BYTES):
        found[SIZE] = (
            f"{size} bytes, {size / max(weights, 1):.3f} of its weights' {weights}; "
            f"the budget is {ratio:g}"
        )
    return found


def is_smaller(recipe: Recipe) -> bool:
    """Whether a recipe computes or stores anything coarser than fp32."""
    return {recipe.weight_precision, recipe.activation_precision} != {Precision.FP32}


def partner_key(artifact: Artifact) -> tuple[str, bool]:
    """What an artifact shares with the fp32 artifact that it is compared with: its backend, and
    whether it is stateful."""
    return artifact.recipe.backend, artifact.stream is not None


def promises_of(recipe: Recipe) -> Promises:
    """What a recipe promises; raises `RecipeError` on what is no promise."""
    given = recipe.options.get("promises", {})
    try:
        return Promises.model_validate(given)
    except ValidationError as error:
        raise RecipeError(
            f"{recipe.backend}/{recipe.name}",
            found=f"promises are {given!r}",
            expected="ratios above zero by the names size and time",
        ) from error


def allowed_names(recipe: Recipe) -> frozenset[str]:
    """What a recipe or the user allows by name; raises `RecipeError` on what is no list."""
    return _allowances(recipe)[0]


def _fallbacks(counts: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{name} falls back ({count} of it)" for name, count in sorted(counts.items())}


def _allowances(recipe: Recipe) -> tuple[frozenset[str], float]:
    names, ratio = recipe.options.get("allow", []), recipe.options.get("size_budget", SIZE_RATIO)
    key = f"{recipe.backend}/{recipe.name}"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(key, found=f"allow is {names!r}", expected="a list of names")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio < 1:
        raise RecipeError(key, found=f"size_budget is {ratio!r}", expected="a number from 1 on")
    return frozenset(str(name) for name in names), float(ratio)
