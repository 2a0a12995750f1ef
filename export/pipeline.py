"""The order of the stages: canonical form, compression, rewrites, backend.

Stages that need the network's outputs (goldens, parity) belong to `runtime_checks`; the command
line runs them between `export_artifact` and the writing of the manifest.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from .backends.base import BACKENDS, Backend, select_recipes, why_refused
from .bundle import hash_path, size_of
from .calibration.draw import sample_set
from .calibration.ranges import (
    Calibration,
    Ranges,
    calibrated_recipe,
    is_calibrated,
)
from .calibration.trained import GRIDS_FILE, is_trained
from .checkpoint import LoadedModel
from .compress.base import compress_for, method_of
from .compress.layers import layers_in_float
from .errors import BackendUnavailableError, RecipeError
from .lowering.calibrate_convolutions import calibrate
from .lowering.integer_convolutions import place_trained
from .lowering.static_convolutions import convolutions
from .models.base import MODELS
from .models.embedding import settle
from .models.running import STREAMING, why_not_streaming
from .rewrites.base import apply_rewrites
from .rewrites.streaming import streaming_form
from .types import Artifact, Recipe, Role


@dataclass(frozen=True)
class Plan:
    """Recipes that will be built, and those that cannot be here with the reason."""

    recipes: tuple[Recipe, ...]
    left_out: tuple[tuple[Recipe, str], ...]


class Exporter:
    """One model on its way to many artifacts; what recipes share is computed once."""

    def __init__(self, model: LoadedModel, *, calibration: Calibration | None = None) -> None:
        self.model = model
        self._calibration = calibration
        self._compressed: dict[tuple[str | None, frozenset[str], str], nn.Module] = {}
        self.ranges: dict[str, Ranges] = {}

    @cached_property
    def canonical(self) -> nn.Module:
        """The float model in canonical form."""
        architecture = MODELS[self.model.spec.architecture]
        canonical = architecture.canonical(self.model.module)
        if self.model.spec.role is Role.EMBEDDING:
            settle(canonical, architecture.example_inputs(self.model.spec))
        return canonical

    def compressed(self, recipe: Recipe) -> nn.Module:
        """The canonical model after the recipe's compression, before any backend's rewrites.

        Of a recipe that the model was trained for, in the backend's form already, with everything
        rounded that training has rounded.
        """
        trained = recipe.backend if is_trained(recipe) else ""
        in_float = layers_in_float(recipe, self.canonical)
        key = (method_of(recipe), in_float, trained)
        if key not in self._compressed:
            made = compress_for(recipe, self.canonical)
            if trained:
                made = self._as_trained(made, recipe, skip=in_float)
            self._compressed[key] = made
        return self._compressed[key]

    def _as_trained(self, module: nn.Module, recipe: Recipe, *, skip: frozenset[str]) -> nn.Module:
        if reason := not_trained_for(self.model, recipe):
            raise RecipeError(f"{recipe.backend}/{recipe.name}", found=reason)
        assert self.model.grids is not None  # noqa: S101 - told just above
        rewritten = apply_rewrites(module, BACKENDS[recipe.backend].rewrites)
        return place_trained(rewritten, self.model.grids, skip=skip)

    @cached_property
    def calibration(self) -> Calibration:
        """What was given to calibrate on, or the recording inside pyannote.audio."""
        return self._calibration or Calibration(sample_set(self.model.spec.geometry))

    def export(self, recipe: Recipe, folder: Path) -> Artifact:
        """Export one artifact into a bundle directory, under its bundle name.

        A calibrated recipe names in the artifact what it was calibrated on; `ranges` then has what
        that gave, by the artifact's path.
        """
        backend = BACKENDS[recipe.backend]
        path = folder / artifact_name(recipe, backend, role=self.model.spec.role)
        module, spec, stream = self.compressed(recipe), self.model.spec, None
        if hop_s := hop_of(recipe):
            module, stream = streaming_form(module, spec, hop_s=hop_s)
            spec = stream.contract(spec)
        module = apply_rewrites(module, backend.rewrites)
        if is_calibrated(recipe):
            recipe = calibrated_recipe(recipe, self.calibration)
            in_float = layers_in_float(recipe, self.canonical)
            module, self.ranges[path.name] = calibrate(
                module,
                self.calibration.drawn,
                layers=[name for name in convolutions(module) if name not in in_float],
                observer=self.calibration.observer,
            )
        stats = backend.export(module, spec, recipe, path)
        return Artifact(
            path=path.name,
            sha256=hash_path(path),
            size_bytes=size_of(path),
            recipe=recipe,
            rewrites=tuple(backend.rewrites),
            dynamic_length=bool(recipe.options.get("dynamic_length", False)),
            tool_versions=backend.tool_versions(),
            graph_stats=stats,
            runtime_options=backend.runtime_options(),
            stream=stream,
        )


def not_trained_for(model: LoadedModel, recipe: Recipe) -> str | None:
    """Why a recipe that takes its ranges from training cannot have them of a model, or None."""
    if not is_trained(recipe) or (model.grids and model.grids.recipe == recipe.name):
        return None
    return (
        f"{model.spec.name} was not trained for it (no {GRIDS_FILE} in its folder): train it by "
        f"diarport distill --qat {recipe.name} --start-from {Path(model.source).name}"
    )


def artifact_name(recipe: Recipe, backend: Backend, *, role: Role) -> str:
    """`segmentation.fp32.onnx`; of a stateful artifact `segmentation.fp32.streaming.onnx`."""
    form = f".{STREAMING}" if hop_of(recipe) else ""
    return f"{role.value}.{recipe.name}{form}{backend.suffix}"


def hop_of(recipe: Recipe) -> float | None:
    """The longest hop in seconds of a recipe for a stateful artifact; None for other recipes.

    Raises `RecipeError` on what is no length.
    """
    hop_s = recipe.options.get(STREAMING)
    if not hop_s:
        return None
    if isinstance(hop_s, bool) or not isinstance(hop_s, int | float) or hop_s < 0:
        raise RecipeError(
            f"{recipe.backend}/{recipe.name}", found=f"{STREAMING} is {hop_s!r}", expected="seconds"
        )
    return float(hop_s)


def plan(
    model: LoadedModel,
    *,
    backends: list[str],
    implied: bool = False,
    recipes: list[str],
    dynamic_length: bool = False,
    lengths_s: Sequence[float] = (),
    streaming_hop_s: float | None = None,
    allow: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> Plan:
    """What to build for the named backends and recipes (empty: every backend, fp32).

    `lengths_s` are further lengths of windows. With `streaming_hop_s` every recipe makes a stateful
    artifact too, beside the one for windows (`export.rewrites.streaming`). `allow` names fallbacks
    that are no error (`export.budget`), beside the recipes' own. `skip` names layers that every
    recipe leaves in float (`export.compress.layers`). What was asked for by name and cannot be done
    raises (`BackendUnavailableError`, `RecipeError`); what was only implied is left out with its
    reason.
    """
    rate = model.spec.geometry.sample_rate_hz
    forms: dict[str, JsonValue] = {
        "dynamic_length": dynamic_length,
        "lengths_samples": [round(length_s * rate) for length_s in lengths_s],
    }
    kinds: list[dict[str, JsonValue]] = [forms]
    if streaming_hop_s:
        if reason := why_not_streaming(MODELS[model.spec.architecture].canonical(model.module)):
            raise RecipeError(
                f"{model.spec.name}: --{STREAMING}",
                found=reason,
                expected="a student with MFCC and LSTM layers that look back only",
                todo="Choose one such as mfcc80-1uni, or build without it.",
            )
        kinds.append({STREAMING: streaming_hop_s})
    chosen, left_out = [], []
    selected = [
        _with_options(recipe, forms=kind, allow=allow, skip=skip)
        for recipe in select_recipes(backends, recipes)
        for kind in kinds
    ]
    for recipe in selected:
        backend = BACKENDS[recipe.backend]
        by_name = recipe.backend in backends and not implied
        if reason := backend.unavailable():
            if by_name:
                raise BackendUnavailableError(recipe.backend, found=reason)
            left_out.append((recipe, reason))
        elif reason := (why_refused(backend, model.spec, recipe) or not_trained_for(model, recipe)):
            if by_name:
                raise RecipeError(f"{recipe.backend}/{recipe.name}", found=reason)
            left_out.append((recipe, reason))
        else:
            chosen.append(recipe)
    if not chosen:
        reasons = "; ".join(f"{recipe.backend}: {reason}" for recipe, reason in left_out)
        raise RecipeError("nothing to build", found=reasons)
    return Plan(tuple(chosen), tuple(left_out))


def _with_options(
    recipe: Recipe, *, forms: Mapping[str, JsonValue], allow: Sequence[str], skip: Sequence[str]
) -> Recipe:
    options = recipe.options | {name: value for name, value in forms.items() if value}
    if allow:
        own = options.get("allow", [])
        options["allow"] = [*(own if isinstance(own, list) else [own]), *allow]
    skipped = tuple(dict.fromkeys((*recipe.skip, *skip)))
    return recipe.model_copy(update={"options": options, "skip": skipped})


def created_by() -> dict[str, str]:
    """Versions of what made a bundle."""
    return {
        "diarport": version("diarport"),
        "pyannote.audio": version("pyannote.audio"),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
