"""The study that many machines share: where it is stored, what it is of, whose turn it is."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle_place import is_running
from ..errors import TrainingError

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

OBJECTIVES = ("der_percent", "time_ratio", "size_bytes")
IDENTITY = "diarport"
WORKER, FOLDER = "worker", "folder"
JOURNAL = "journal://"
DATABASES = ("sqlite", "mysql", "postgresql")
SQLITE_WAIT_S = 60
OPENING_TRIES, OPENING_PAUSE_S = 10, 0.5
MADE_MEANWHILE = ("already exists", "unique constraint", "database is locked", "duplicate key")


def open_study(
    storage: str, name: str, *, identity: dict[str, Any], seed: int, startup: int
) -> Study:
    """The study of a name, made where there is none; all objectives are minimised.

    `identity` is all that decides what its values mean. Raises TrainingError on a storage that
    cannot be opened, and on a study of something else.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    with _storage_errors(storage):
        study = optuna.create_study(
            storage=_open_storage(storage),
            study_name=name,
            sampler=seeded_sampler(seed, startup=startup),
            directions=["minimize"] * len(OBJECTIVES),
            load_if_exists=True,
        )
        found = study.user_attrs.get(IDENTITY)
        if found is None and not study.trials and _minimises_three(study):
            study.set_metric_names(list(OBJECTIVES))
            study.set_user_attr(IDENTITY, identity)
            found = study.user_attrs[IDENTITY]
    _raise_if_other(storage, name, found=found, identity=identity)
    return study


def _minimises_three(study: Study) -> bool:
    return [direction.name for direction in study.directions] == ["MINIMIZE"] * len(OBJECTIVES)


def _raise_if_other(
    storage: str, name: str, *, found: dict[str, Any] | None, identity: dict[str, Any]
) -> None:
    what = f"study {name} in {storage}"
    if found is None:
        raise TrainingError(
            what,
            found="a study with other objectives",
            expected=f"{', '.join(OBJECTIVES)}, all minimised",
            todo="Choose another --study.",
        )
    differing = sorted(
        key for key in found.keys() | identity.keys() if found.get(key) != identity.get(key)
    )
    if differing:
        raise TrainingError(
            what,
            found=f"begun with other {', '.join(differing)}",
            expected="the same in every run of a study: values would not compare",
            todo="Repeat the options that it began with, or choose another --study.",
        )


def _open_storage(url: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    kind = url.partition("://")[0]
    if url.startswith(JOURNAL):
        path = Path(url.removeprefix(JOURNAL))
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"no folder {path.absolute().parent}")
        return JournalStorage(JournalFileBackend(str(path)))
    if kind.partition("+")[0] in DATABASES and "://" in url:
        wait = {"connect_args": {"timeout": SQLITE_WAIT_S}} if kind == "sqlite" else {}
        return _patiently(lambda: RDBStorage(url, engine_kwargs=wait))
    raise TrainingError(
        url,
        found="an unknown storage",
        expected=f"{JOURNAL}FILE or a database: {', '.join(DATABASES)} (sqlite:///study.db)",
    )


def _patiently(open_database: Callable[[], BaseStorage]) -> BaseStorage:
    """Open a database that another process may be making at this very moment."""
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    for _ in range(OPENING_TRIES):
        try:
            return open_database()
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if not any(sign in str(error).lower() for sign in MADE_MEANWHILE):
                raise
            time.sleep(OPENING_PAUSE_S)
    return open_database()


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn whatever a storage raises into one error that names it."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    # Optuna tells of a schema that it does not know by RuntimeError, of a broken journal by the
    # errors of its parser (ValueError).
    raised = (
        StorageInternalError,
        SQLAlchemyError,
        OSError,
        ImportError,
        ValueError,
        KeyError,
        RuntimeError,
    )
    try:
        yield
    except raised as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise TrainingError(
            url,
            found=f"a storage that cannot be opened ({reason})",
            expected="a database, or a journal that diarport or Optuna wrote",
            todo="Check the address; drivers of other databases are installed apart.",
        ) from error


def seeded_sampler(seed: int, *, startup: int) -> BaseSampler:
    """TPE (Ozaki et al., "Multiobjective tree-structured Parzen estimator", 2022) whose randomness
    in a trial is a function of seed and trial number.

    A sampler seeded once would draw the same trials again when a study is resumed, and in every
    process that shares it.
    """
    from optuna.samplers import BaseSampler, TPESampler

    class SeededByTrial(BaseSampler):
        def __init__(self) -> None:
            self._inner: BaseSampler = TPESampler(seed=seed, n_startup_trials=startup)

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            self._inner = TPESampler(
                seed=(seed * 1_000_003 + trial.number) % 2**32,
                n_startup_trials=startup,
                constant_liar=True,
            )
            self._inner.before_trial(study, trial)

        def infer_relative_search_space(
            self, study: Study, trial: FrozenTrial
        ) -> dict[str, BaseDistribution]:
            return self._inner.infer_relative_search_space(study, trial)

        def sample_relative(
            self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
        ) -> dict[str, Any]:
            return self._inner.sample_relative(study, trial, search_space)

        def sample_independent(
            self,
            study: Study,
            trial: FrozenTrial,
            param_name: str,
            param_distribution: BaseDistribution,
        ) -> Any:
            return self._inner.sample_independent(study, trial, param_name, param_distribution)

        def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
            self._inner.after_trial(study, trial, state, values)

    return SeededByTrial()


def next_trial(study: Study, *, trials: int) -> Trial | None:
    """A trial to run, or None when the study has as many as wanted, running ones among them.

    Trials of processes of this machine that are gone are begun again, with the folder of what they
    had done.
    """
    from optuna.trial import TrialState

    adopt_orphans(study)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    if sum(state in counted for state in states) >= trials:
        return None
    trial = study.ask()
    if FOLDER not in trial.user_attrs:
        trial.set_user_attr(FOLDER, f"trial-{trial.number:04d}")
    trial.set_user_attr(WORKER, f"{platform.node()}:{os.getpid()}")
    return trial


def adopt_orphans(study: Study) -> list[int]:
    """Fail trials whose process on this machine is gone, and queue them anew; their numbers."""
    from optuna.trial import TrialState

    adopted = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, _, pid = str(trial.user_attrs.get(WORKER, "")).rpartition(":")
        if host != platform.node() or is_running(int(pid)):
            continue
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except ValueError:
            continue  # another process was quicker
        study.enqueue_trial(trial.params, user_attrs={FOLDER: trial.user_attrs[FOLDER]})
        adopted.append(trial.number)
    return adopted
