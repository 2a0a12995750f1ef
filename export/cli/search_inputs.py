"""What `diarport search` needs before its first trial: audio in folds, a recipe, the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from runtime_checks.der import DerScorer
from runtime_checks.rttm import load_reference
from runtime_checks.runners.base import why_untimed

from ..audio import Recording, Window, cut_windows
from ..backends.base import select_recipes
from ..checkpoint import LoadedModel, load_model
from ..distil.config import DistilConfig, TrainingAudio
from ..distil.data import audio_sha256, load_speakers, load_training_audio
from ..errors import BackendUnavailableError, TrainingError
from ..progress import Progress
from ..search.folds import Fold, speaker_folds
from ..search.space import SearchSpace, read_space
from ..search.study import open_study
from ..types import Recipe
from .subjects import load_for_timing

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class SearchRequest:
    """The command's options; see its help."""

    teacher: str
    audio: list[Path]
    rttm: Path
    simulate_from: Path | None
    out: Path
    storage: str | None
    study: str
    trials: int
    startup: int
    folds: int
    space: Path | None
    backend: str
    recipe: str
    baseline: str
    settings: dict[str, Any]
    runs: int
    threads: int | None


@dataclass(frozen=True)
class Held:
    """A fold ready to be trained and measured."""

    audio: TrainingAudio
    windows: Sequence[Window]
    scorer: DerScorer


@dataclass(frozen=True)
class Bench:
    """All that trials share."""

    request: SearchRequest
    teacher: LoadedModel
    space: SearchSpace
    recipe: Recipe
    folds: Sequence[Held]
    recordings: Sequence[Recording]
    study: Study
    progress: Progress


def prepare(request: SearchRequest, progress: Progress) -> tuple[Bench, dict[str, Any]]:
    """Load and check all input, and open the study; gives what identifies it, too."""
    if request.threads:
        torch.set_num_threads(request.threads)
    space = read_space(request.space)
    try:
        DistilConfig(**request.settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{first['loc'][0]}".replace("_", "-")
        raise TrainingError(option, found=str(first["input"]), expected=first["msg"]) from error
    recipe = _recipe(request)
    teacher = load_model(request.teacher)
    geometry = teacher.spec.geometry
    recordings = load_training_audio(request.audio, geometry, progress=progress)
    speech = load_reference(request.rttm, uem=None, recordings=recordings)
    names = {uri: frozenset(t.speaker for t in turns) for uri, turns in speech.turns.items()}
    folds = speaker_folds(recordings, names, folds=request.folds)
    simulated = {}
    if request.simulate_from is not None:
        rate_hz = geometry.sample_rate_hz
        simulated = load_speakers(request.simulate_from, sample_rate_hz=rate_hz)
    identity = {
        "teacher": teacher.sha256,
        "audio": audio_sha256(recordings),
        "simulated": sorted(simulated),
        "folds": [sorted(r.uri for r in fold.held_out) for fold in folds],
        "settings": request.settings,
        "space": space.model_dump(mode="json"),
        "artifact": f"{recipe.backend}/{recipe.name}",
        "baseline": request.baseline,
    }
    load_for_timing(request.baseline, geometry.window_s)
    request.out.mkdir(parents=True, exist_ok=True)
    study = open_study(
        request.storage or f"sqlite:///{request.out / 'study.db'}",
        request.study,
        identity=identity,
        seed=request.settings["seed"],
        startup=request.startup,
    )

    def held(fold: Fold) -> Held:
        hop_s = geometry.window_s / 2
        windows = [w for r in fold.held_out for w in cut_windows(r, geometry, hop_s=hop_s)]
        others = {name: u for name, u in simulated.items() if name not in fold.speakers}
        return Held(
            TrainingAudio(fold.training, others, fold.held_out),
            windows,
            DerScorer(speech, windows, geometry=geometry),
        )

    ready = [held(fold) for fold in folds]
    return Bench(request, teacher, space, recipe, ready, recordings, study, progress), identity


def _recipe(request: SearchRequest) -> Recipe:
    (recipe,) = select_recipes([request.backend], [request.recipe])
    if reason := why_untimed(recipe.backend):
        raise BackendUnavailableError(
            recipe.backend,
            found=reason,
            expected="a backend that can be timed here",
            todo="Search with one that can: students order alike on most.",
        )
    return recipe
