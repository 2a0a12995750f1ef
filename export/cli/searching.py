"""What `diarport search` does: one trial after the other, until the study has enough."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime_checks.pareto import Contestant, error_rate, measure_times
from runtime_checks.timing.contenders import OpenEager, candidate
from runtime_checks.timing.peers import module_of
from runtime_checks.timing.statistics import ratio

from ..checkpoint import LoadedModel
from ..distil.config import DistilConfig
from ..distil.start import build_student
from ..distil.train import train
from ..errors import (
    BudgetError,
    BundleError,
    DivergedError,
    RecipeError,
)
from ..models.base import MODELS
from ..pipeline import Exporter, plan
from ..progress import Progress
from ..search.folds import geometric_mean
from ..search.pruning import Course, course_of, place, why_hopeless
from ..search.record import FOLD_DERS, REASON, STUDENT, SearchRecord, record_of
from ..search.study import FOLDER, next_trial
from ..types import TimeRatio, Verdict
from .search_inputs import Bench, SearchRequest, prepare
from .subjects import load_for_timing

if TYPE_CHECKING:
    from optuna import Trial
    from torch import nn

RECORD_FILE, TRIALS, CACHE = "search.json", "trials", "cache"


class _GivenUpError(Exception):
    """A trial that need not go on; the message says why."""


def run_search(request: SearchRequest, progress: Progress) -> SearchRecord:
    """Run trials until the study has as many as wanted; what is wrong is told before the first.

    A trial that diverges, or whose student the backend refuses, is given up and the study goes on.
    Whatever else goes wrong ends the run; its trial is begun again, from its last checkpoint, by
    the next run on this machine.
    """
    bench, identity = prepare(request, progress)
    while (trial := next_trial(bench.study, trials=request.trials)) is not None:
        _run_trial(bench, trial)
        _write(request.out, record_of(bench.study, identity))
    record = record_of(bench.study, identity)
    _write(request.out, record)
    return record


def _run_trial(bench: Bench, trial: Trial) -> None:
    from optuna.trial import TrialState

    settings = bench.request.settings | bench.space.suggest(trial)
    trial.set_user_attr(STUDENT, settings["student"])
    folder = bench.request.out / TRIALS / str(trial.user_attrs[FOLDER])
    try:
        course = _costs(bench, trial, settings)
        percents: list[float] = []
        for fold in range(len(bench.folds)):
            percents.append(_fold_percent(bench, trial, settings, fold, course, folder))
            trial.set_user_attr(FOLD_DERS, percents)
        values = (geometric_mean(percents), course.time_ratio, float(course.size_bytes))
        bench.study.tell(trial, values)
    except (_GivenUpError, DivergedError, BudgetError, RecipeError) as error:
        trial.set_user_attr(REASON, str(error))
        bench.study.tell(trial, state=TrialState.PRUNED)
    shutil.rmtree(folder, ignore_errors=True)


def _costs(bench: Bench, trial: Trial, settings: Mapping[str, Any]) -> Course:
    """Size and time of the exported student, which training does not change.

    An architecture is timed once in a study, so that its trials differ in what they have learnt.
    """
    course = next(
        (
            Course(found.size_bytes, found.time_ratio)
            for other in bench.study.get_trials(deepcopy=False)
            if other.user_attrs.get(STUDENT) == settings["student"]
            and (found := course_of(other.user_attrs)) is not None
        ),
        None,
    )
    if course is None:
        with tempfile.TemporaryDirectory(prefix="diarport-search-") as name:
            untrained = build_student(DistilConfig(**settings), bench.teacher)
            student = _export(bench, untrained, settings["student"], Path(name))
            share = _time(bench, student)
            course = Course(student.artifact.size_bytes, share.value)
    for key, value in vars(course).items():
        trial.set_user_attr(key, value)
    return course


def _time(bench: Bench, student: Contestant) -> TimeRatio:
    name, spec = bench.request.baseline, student.spec
    load = partial(load_for_timing, name, spec.geometry.window_s)
    baseline, (timed,) = measure_times(
        [student],
        candidate(f"baseline {name}", OpenEager(partial(module_of, load), spec), spec=spec),
        bench.recordings,
        runs=bench.request.runs,
        threads=1,
        seed=0,
        progress=bench.progress,
    )
    found = ratio(timed, baseline) if timed else None
    if found is None:
        failures = [*baseline.failures, *(timed.failures if timed else ())]
        raise BundleError(spec.name, found=f"cannot be timed ({'; '.join(failures)})")
    return TimeRatio(value=found.value, low=found.low, high=found.high)


def _fold_percent(
    bench: Bench,
    trial: Trial,
    settings: Mapping[str, Any],
    fold: int,
    course: Course,
    folder: Path,
) -> float:
    """DER in percent of the exported student on a fold's held-out recordings."""
    held, seed = bench.folds[fold], settings["seed"] + fold
    config = DistilConfig(**{**settings, "seed": seed})
    # The last weights, not those that did best on the very audio that is measured next.
    trained = train(
        bench.teacher,
        held.audio,
        config,
        folder=folder / f"fold-{fold}",
        resume=True,
        progress=_named(bench.progress, f"trial {trial.number}, fold {fold}"),
        cache=bench.request.out / CACHE,
        watch=_watcher(bench, trial, course, fold),
        choose=False,
    )
    with tempfile.TemporaryDirectory(prefix="diarport-search-") as name:
        student = _export(bench, trained.module, config.student, Path(name))
        der, reason = error_rate(student, held.windows, held.scorer, progress=bench.progress)
    if der is None:
        raise BundleError(config.student, found=reason or "no speech in the held-out audio")
    return der.pooled


def _watcher(bench: Bench, trial: Trial, course: Course, fold: int) -> Callable[[int, float], None]:
    from optuna.trial import TrialState

    def watch(step: int, agreement_percent: float) -> None:
        at = place(fold, step)
        course.agreement[at] = round(agreement_percent, 4)
        trial.set_user_attr("agreement", course.agreement)
        complete = bench.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        finished = [found for other in complete if (found := course_of(other.user_attrs))]
        if reason := why_hopeless(course, finished, at=at, enough=bench.request.startup):
            raise _GivenUpError(reason)

    return watch


def _export(bench: Bench, module: nn.Module, name: str, folder: Path) -> Contestant:
    architecture = type(module).__name__
    spec = MODELS[architecture].spec(module, name=name, licence="none", trained_on="a search")
    model = LoadedModel(module.eval(), spec, name, "", "", "")
    backend, recipe = bench.recipe.backend, bench.recipe.name
    (chosen,) = plan(model, backends=[backend], recipes=[recipe]).recipes
    artifact = Exporter(model).export(chosen, folder)
    return Contestant(spec, artifact, folder / artifact.path, Verdict.NOT_RUN, None)


def _named(progress: Progress, name: str) -> Progress:
    def report(stage: str, done: int, total: int) -> None:
        progress(f"{name}: {stage}", done, total)

    return report


def _write(folder: Path, record: SearchRecord) -> None:
    path = folder / RECORD_FILE
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(record.to_json(), encoding="utf-8")
    partial_path.replace(path)
