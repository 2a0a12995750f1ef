"""What is timed: bundles as they are, models exported for the occasion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, ExportError
from ..progress import Progress
from ..types import Artifact, ModelSpec, Role

if TYPE_CHECKING:
    from ..checkpoint import LoadedModel

UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A model for windows of one length, and its artifacts with their files.

    `load` gives the float model; it is picklable, so that another process can call it. `sha256` is
    that of the bundle's content or of the weights, None for an untrained model.
    """

    spec: ModelSpec
    load: Callable[[], LoadedModel]
    sha256: str | None
    artifacts: tuple[tuple[Artifact, Path], ...]
    notes: tuple[str, ...] = ()


def find_subjects(
    sources: Sequence[str],
    *,
    model: str | None,
    windows_s: Sequence[float],
    backends: list[str],
    recipes: list[str],
    workspace: Path,
    progress: Progress,
) -> list[Subject]:
    """Bundles and models by name; no sources are all models that ship.

    `model` is what a bundle was built from; `windows_s` are windows for models (empty: their own).
    Raises ExportError children on what is neither, and on options that do not fit.
    """
    from ..checkpoint import zoo_names

    bundles = [source for source in sources if (Path(source) / "bundle.json").is_file()]
    if model and len(bundles) != 1:
        raise ExportError(
            "--model",
            found=f"{len(bundles)} bundles",
            expected="one bundle, which was built from it",
            todo="Name models beside bundles, without the option.",
        )
    if bundles and windows_s:
        raise ExportError(
            "--window-s",
            found=f"{bundles[0]}, whose artifacts have windows already",
            expected="models only",
            todo="Name the model instead of the bundle.",
        )
    found = []
    for source in dict.fromkeys(sources or zoo_names(Role.SEGMENTATION)):
        if source in bundles:
            found.append(_bundle(Path(source), model=model, backends=backends, recipes=recipes))
            continue
        chosen: Sequence[float | None] = windows_s or [None]
        for window_s in dict.fromkeys(chosen):
            load = partial(load_for_timing, source, window_s)
            folder = workspace / f"{len(found)}"
            folder.mkdir()
            found.append(_exported(load, folder, backends, recipes, progress))
    _same_rate(found)
    return found


def _bundle(path: Path, *, model: str | None, backends: list[str], recipes: list[str]) -> Subject:
    from ..bundle import verify_bundle
    from .bundles import chosen_artifacts, model_of_bundle

    read = verify_bundle(path)
    artifacts = chosen_artifacts(path, read, backends=backends, recipes=recipes, timed=True)
    loaded = model_of_bundle(path, read, model)
    return Subject(
        spec=read.content.spec,
        load=partial(load_for_timing, loaded.source, read.content.spec.geometry.window_s),
        sha256=read.content_sha256,
        artifacts=tuple((artifact, path.absolute() / artifact.path) for artifact in artifacts),
    )


def _exported(
    load: Callable[[], LoadedModel],
    folder: Path,
    backends: list[str],
    recipes: list[str],
    progress: Progress,
) -> Subject:
    from runtime_checks.runners.base import why_untimed

    from ..pipeline import Exporter, plan

    loaded = load()
    planned = plan(loaded, backends=backends, recipes=recipes)
    exporter, artifacts = Exporter(loaded), []
    for index, recipe in enumerate(planned.recipes):
        if why_untimed(recipe.backend) is None or recipe.backend in backends:
            artifact = exporter.export(recipe, folder)
            artifacts.append((artifact, folder / artifact.path))
        progress(f"exporting {loaded.spec.name}", index + 1, len(planned.recipes))
    reasons = {r.backend: why_untimed(r.backend) for r in planned.recipes}
    notes = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    notes += [f"{recipe.backend}: {reason}" for recipe, reason in planned.left_out]
    if not loaded.sha256:
        notes.append(f"{loaded.spec.name} is untrained: its times mean something, nothing else")
    return Subject(loaded.spec, load, loaded.sha256 or None, tuple(artifacts), tuple(notes))


def load_for_timing(source: str, window_s: float | None) -> LoadedModel:
    """A model by any name, or an untrained student by the name of its design (`sinc-4bi`).

    A function of its own, so that another process can call it. Raises CheckpointError on a name
    that is neither.
    """
    from ..checkpoint import load_model, with_window, zoo_names
    from ..models.students import STUDENT_NAME

    untrained = (
        STUDENT_NAME.fullmatch(source) and source not in zoo_names() and not Path(source).exists()
    )
    return with_window(_untrained(source) if untrained else load_model(source), window_s)


def _untrained(name: str) -> LoadedModel:
    import torch

    from ..checkpoint import LoadedModel
    from ..models.base import MODELS
    from ..models.students import student_design

    architecture, config = student_design(name)
    torch.manual_seed(UNTRAINED_SEED)
    module = MODELS[architecture].build(config).eval()
    spec = MODELS[architecture].spec(module, name=name, licence="none", trained_on="nothing")
    return LoadedModel(module, spec, source=name, sha256="", card="", licence_text="")


def _same_rate(subjects: Sequence[Subject]) -> None:
    rates = {subject.spec.geometry.sample_rate_hz: subject.spec.name for subject in subjects}
    if len(rates) > 1:
        raise CheckpointError(
            " and ".join(rates.values()),
            found=f"sample rates of {', '.join(map(str, rates))} Hz",
            expected="one rate: all see the same audio",
        )
