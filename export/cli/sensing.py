"""What `diarport sensitivity` does: check all input, then lower one layer after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..audio import Recording, Window, cut_windows, find_audio, load_recording
from ..backends.base import BACKENDS, select_recipes, why_refused
from ..budget import is_smaller
from ..calibration.draw import draw, sample_set
from ..calibration.ranges import Calibration, is_calibrated
from ..checkpoint import LoadedModel, load_model, with_window
from ..compress.layers import compressible_layers, layers_in_float
from ..errors import AudioError, RecipeError
from ..lowering.static_convolutions import has_convolutions
from ..pipeline import Exporter
from ..progress import Progress
from ..types import Precision, Recipe
from .inputs import audio_notes, load_audio

if TYPE_CHECKING:
    from runtime_checks.der import DerScorer, DerSettings
    from runtime_checks.emulation import Method, Rounded
    from runtime_checks.sensitivity import SensitivityRecord

IN_FLOAT = 2**-11
"""Relative change of a weight that float16 makes at most: what has changed less is in float."""


@dataclass(frozen=True)
class SensitivityRequest:
    """The command's options; see its help."""

    model: str
    method: str | None
    recipe: str | None
    backends: list[str]
    audio: list[Path]
    rttm: Path | None
    uem: Path | None
    calibration_audio: list[Path]
    window_s: float | None
    hop_s: float | None
    der_settings: DerSettings


def run_sensitivity(request: SensitivityRequest, progress: Progress) -> SensitivityRecord:
    """Check all input first; raises ExportError children on what does not fit together."""
    from runtime_checks.emulation import stored_form
    from runtime_checks.parity.reference import torch_threads
    from runtime_checks.sensitivity import Emulator, SensitivityRecord

    model = with_window(load_model(request.model), request.window_s)
    recipe = _recipe(request, model)
    method = _method(request, recipe)
    geometry = model.spec.geometry
    recordings, rttm = load_audio(
        request.audio, rttm=request.rttm, sample_rate_hz=geometry.sample_rate_hz
    )
    hop_s = request.hop_s or geometry.window_s / 2
    windows = [w for each in recordings for w in cut_windows(each, geometry, hop_s=hop_s)]
    calibration = _calibration(request, model, method)
    with torch_threads(1):
        exporter = Exporter(model)
        network = stored_form(exporter.canonical, method)
        compressed = stored_form(exporter.compressed(recipe), method) if recipe else None
        kept = _kept(recipe, network, compressed) if recipe and compressed else frozenset()
        found = Emulator(
            model=network,
            spec=model.spec,
            windows=windows,
            method=method,
            rounded=_as_recipe(compressed, kept),
            calibration=calibration,
            der=_scorer(request, rttm, recordings, windows, model),
        ).losses(kept=kept, progress=progress)
    return SensitivityRecord(
        model=model.spec.name,
        method=method,
        weights=recipe.weight_precision if recipe else Precision.INT8,
        recipe=f"{recipe.backend}/{recipe.name}" if recipe else None,
        window_s=geometry.window_s,
        hop_s=hop_s,
        recordings=tuple(each.uri for each in recordings),
        audio_s=round(sum(each.duration_s for each in recordings), 3),
        calibrated_on=calibration.drawn.sources if calibration else (),
        der=str(request.der_settings) if rttm else None,
        layers=found.layers,
        together=found.together,
        recipe_loss=found.without_kept,
        notes=(*audio_notes(recordings), *(calibration.drawn.notes if calibration else ())),
    )


def _recipe(request: SensitivityRequest, model: LoadedModel) -> Recipe | None:
    """The recipe that was asked for: one, that lowers something, of a backend that takes it."""
    if request.recipe is None:
        if request.backends:
            raise RecipeError(
                "--backend", found="no recipe", expected="--recipe beside it: layers are emulated"
            )
        return None
    found = select_recipes(request.backends, [request.recipe])
    if len(found) > 1:
        raise RecipeError(
            request.recipe,
            found=f"a recipe of {', '.join(recipe.backend for recipe in found)}",
            expected="one of them: --backend",
        )
    recipe, name = found[0], f"{found[0].backend}/{found[0].name}"
    if not is_smaller(recipe):
        raise RecipeError(name, found="nothing in lower precision", expected="another recipe")
    if reason := why_refused(BACKENDS[recipe.backend], model.spec, recipe):
        raise RecipeError(name, found=reason)
    return recipe


def _method(request: SensitivityRequest, recipe: Recipe | None) -> Method:
    from runtime_checks.emulation import Method

    if request.method is not None:
        if request.method not in list(Method):
            raise RecipeError(
                f"--method {request.method}",
                found="no such method",
                expected=f"one of {', '.join(Method)}",
            )
        return Method(request.method)
    if recipe is None or recipe.activation_precision is not Precision.INT8:
        return Method.WEIGHTS
    return Method.STATIC if is_calibrated(recipe) else Method.DYNAMIC


def _calibration(
    request: SensitivityRequest, model: LoadedModel, method: Method
) -> Calibration | None:
    """What ranges are found on; raises what `draw` does on audio that tells none."""
    from runtime_checks.emulation import Method

    if method is not Method.STATIC:
        if request.calibration_audio:
            raise RecipeError(
                "--calibration-audio",
                found=f"the method {method.value}, which finds its ranges as it runs",
                expected=f"--method {Method.STATIC.value}",
            )
        return None
    if not has_convolutions(model.spec.architecture):
        raise RecipeError(
            f"--method {method.value}",
            found=f"{model.spec.name} has no convolutions to calibrate",
            expected=f"--method {Method.DYNAMIC.value}",
        )
    geometry = model.spec.geometry
    if not request.calibration_audio:
        return Calibration(sample_set(geometry))
    paths = find_audio(request.calibration_audio)
    given = [load_recording(path, sample_rate_hz=geometry.sample_rate_hz) for path in paths]
    return Calibration(draw(given, geometry))


def _scorer(
    request: SensitivityRequest,
    rttm: Path | None,
    recordings: Sequence[Recording],
    windows: Sequence[Window],
    model: LoadedModel,
) -> DerScorer | None:
    from runtime_checks.der import DerScorer
    from runtime_checks.rttm import load_reference

    if rttm is None:
        return None
    speech = load_reference(rttm, uem=request.uem, recordings=recordings)
    geometry = model.spec.geometry
    scorer = DerScorer(speech, windows, geometry=geometry, settings=request.der_settings)
    if scorer.score([np.zeros((geometry.num_frames, 1), np.bool_)] * len(windows)) is None:
        raise AudioError(
            rttm, found="no speech where it is scored", expected="turns within the scored audio"
        )
    return scorer


def _kept(recipe: Recipe, network: nn.Module, compressed: nn.Module) -> frozenset[str]:
    """The layers that a recipe leaves in float: by name, or because their weights stay floats."""
    named = layers_in_float(recipe, network)
    if is_calibrated(recipe):
        return named
    unchanged = {
        name
        for name in compressible_layers(network)
        if all(
            torch.allclose(after, before, rtol=IN_FLOAT, atol=IN_FLOAT**2)
            for before, after in zip(
                network.get_submodule(name).parameters(recurse=False),
                compressed.get_submodule(name).parameters(recurse=False),
                strict=True,
            )
        )
    }
    return named | unchanged


def _as_recipe(compressed: nn.Module | None, kept: frozenset[str]) -> Rounded:
    """The recipe's own rounding, and int8 for what it keeps in float: what that would lose."""
    from runtime_checks.emulation import to_int8

    rounded = dict(compressed.named_parameters()) if compressed else {}

    def rounding(name: str, weight: Tensor) -> Tensor:
        layer = name.rpartition(".")[0]
        return to_int8(name, weight) if layer in kept or not rounded else rounded[name].detach()

    return rounding
