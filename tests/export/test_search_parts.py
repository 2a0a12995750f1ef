"""The parts of a search: its space, folds, pruning rule, and the study that processes share."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial, TrialState

from export.audio import Recording
from export.distil.config import DistilConfig
from export.errors import CheckpointError, TrainingError
from export.search.folds import geometric_mean, speaker_folds
from export.search.pruning import Course, course_of, why_hopeless
from export.search.space import SearchSpace, read_space, student_name
from export.search.study import adopt_orphans, next_trial, open_study, seeded_sampler

WHOLE = {
    "front_end": "mfcc80",
    "layers": 2,
    "direction": "uni",
    "cell": "lstm",
    "linear_layers": 2,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "weight_decay": 1e-2,
    "average_decay": 0.99,
}


def recording(uri: str, duration_s: float = 10) -> Recording:
    samples = np.zeros(round(duration_s * 100), np.float32)
    return Recording(uri, Path(f"{uri}.wav"), samples, 100, ())


def test_a_trial_becomes_settings_of_a_distillation() -> None:
    settings = SearchSpace().suggest(FixedTrial(WHOLE))  # type: ignore[arg-type]
    assert DistilConfig(**settings).student == "mfcc80-2uni-2lin"
    assert (settings["batch_size"], settings["learning_rate"]) == (16, 1e-3)


def test_students_have_their_names() -> None:
    assert student_name("sinc", 1, "bi", "lstm", 1) == "sinc-1bi"
    assert student_name("mfcc80", 1, "uni", "gru", 1) == "mfcc80-1uni-gru"
    space = SearchSpace(front_ends=("sinc",), layers=(1, 2), directions=("bi",), cells=("lstm",))
    assert space.students() == ["sinc-1bi", "sinc-1bi-2lin", "sinc-2bi", "sinc-2bi-2lin"]


def test_a_space_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('cells = ["lstm"]\nlayers = [1]\nlearning_rate = {low = 0.001, high = 0.002}\n')
    space = read_space(path)
    assert (space.layers, space.learning_rate.high) == ((1,), 0.002)
    assert space.linear_layers == SearchSpace().linear_layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers = [1", "not readable"),
        ("depth = [1]", "depth: Extra inputs"),
        ("layers = []", "layers: Tuple should have at least 1 item"),
        ("weight_decay = {low = 2, high = 1}", "low is above high"),
        ("learning_rate = {low = 0, high = 1}", "not above 0"),
    ],
)
def test_a_wrong_space_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message):
        read_space(path)
    with pytest.raises(TrainingError, match="not readable"):
        read_space(tmp_path / "missing.toml")


def test_a_student_that_there_is_not_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('front_ends = ["mfcc81"]\ncells = ["lstm"]\n')
    with pytest.raises(CheckpointError, match="mfcc81-1bi"):
        read_space(path)


def test_folds_keep_recordings_together_that_share_a_speaker() -> None:
    speakers = {"a": {"1", "2"}, "b": {"3"}, "c": {"2", "4"}, "d": {"5"}, "e": {"4"}}
    named = {uri: frozenset(names) for uri, names in speakers.items()}
    folds = speaker_folds([recording(uri) for uri in speakers], named, folds=2)
    assert [sorted(r.uri for r in fold.held_out) for fold in folds] == [["a", "c", "e"], ["b", "d"]]
    assert folds[0].speakers == {"1", "2", "4"}


@given(
    st.lists(st.frozensets(st.integers(0, 12).map(str), min_size=1, max_size=3), min_size=2),
    st.integers(2, 4),
)
def test_no_speaker_is_on_both_sides(names: list[frozenset[str]], count: int) -> None:
    recordings = [recording(str(index), 1 + index) for index in range(len(names))]
    speakers = {str(index): each for index, each in enumerate(names)}
    try:
        folds = speaker_folds(recordings, speakers, folds=count)
    except TrainingError:
        return
    assert sorted(int(r.uri) for f in folds for r in f.held_out) == list(range(len(names)))
    for fold in folds:
        assert fold.held_out and len(fold.training) + len(fold.held_out) == len(names)
        heard = frozenset().union(*(speakers[r.uri] for r in fold.training))
        assert not heard & fold.speakers


def test_folds_that_are_not_possible_are_told() -> None:
    two = {"a": frozenset("1"), "b": frozenset("2")}
    with pytest.raises(TrainingError, match=r"fall into 2 groups.*at most --folds 2"):
        speaker_folds([recording("a"), recording("b")], two, folds=3)
    one = {"a": frozenset("1"), "b": frozenset("1")}
    with pytest.raises(TrainingError, match=r"into 1 groups.*Give recordings of more speakers"):
        speaker_folds([recording("a"), recording("b")], one, folds=2)
    with pytest.raises(TrainingError, match=r"^b: no speaker in the reference"):
        speaker_folds([recording("a"), recording("b")], {"a": frozenset("1")}, folds=2)


def test_the_geometric_mean_is_that() -> None:
    assert math.isclose(geometric_mean([10, 40]), 20)
    assert math.isclose(geometric_mean([0, 100]), 1)  # as 0.01 and 100


def test_only_trials_that_cost_no_more_can_make_one_hopeless() -> None:
    course = Course(100, 0.5, {"0:10": 90.0})
    better = [Course(90, 0.5, {"0:10": agreement}) for agreement in (91.0, 92.0, 93.0)]
    reason = why_hopeless(course, better, at="0:10", enough=3)
    assert reason is not None and "fold 0, step 10: 90.00 % agreement" in reason
    assert "median 92.00 % of 3 trials" in reason
    assert why_hopeless(course, better, at="0:10", enough=4) is None
    larger = [Course(101, 0.4, {"0:10": 99.0}), Course(90, 0.6, {"0:10": 99.0})] * 3
    assert why_hopeless(course, larger, at="0:10", enough=3) is None
    elsewhere = [Course(90, 0.5, {"1:10": 99.0})] * 3
    assert why_hopeless(course, elsewhere, at="0:10", enough=1) is None
    as_good = [Course(100, 0.5, {"0:10": agreement}) for agreement in (80.0, 90.0, 99.0)]
    assert why_hopeless(course, as_good, at="0:10", enough=3) is None


def test_a_course_comes_back_from_the_record() -> None:
    course = Course(100, 0.5, {"0:10": 90.0})
    assert course_of(json.loads(json.dumps(vars(course)))) == course
    assert course_of({"size_bytes": 3}) is None


STORAGES = ["sqlite:///{}/study.db", "journal://{}/study.log"]
WORKER_CODE = """
import sys
from export.search.study import next_trial, open_study
study = open_study(sys.argv[1], "shared", identity={"of": "a test"}, seed=3, startup=50)
while (trial := next_trial(study, trials=12)) is not None:
    x = trial.suggest_float("x", 0, 1)
    study.tell(trial, [x, 1 - x, abs(x - 0.5)])
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_two_processes_share_a_study(storage: str, tmp_path: Path) -> None:
    url = storage.format(tmp_path)
    command = [sys.executable, "-c", WORKER_CODE, url]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    study = open_study(url, "shared", identity={"of": "a test"}, seed=3, startup=50)
    trials = study.trials
    assert len(trials) in (12, 13)  # both may find one place left
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    drawn = {trial.number: trial.params["x"] for trial in trials}
    assert len(set(drawn.values())) == len(trials)
    alone = optuna.create_study(sampler=seeded_sampler(3, startup=50), directions=["minimize"] * 3)
    for _ in trials:
        trial = alone.ask()
        assert trial.suggest_float("x", 0, 1) == drawn[trial.number]
        alone.tell(trial, [0, 0, 0])


def test_a_trial_whose_process_is_gone_is_begun_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    code = WORKER_CODE.replace("study.tell(", "sys.exit(7); study.tell(")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code, url], env=environment, check=False)
    assert ended.returncode == 7
    study = open_study(url, "shared", identity={"of": "a test"}, seed=3, startup=50)
    (lost,) = study.trials
    trial = next_trial(study, trials=1)
    assert trial is not None and trial.suggest_float("x", 0, 1) == lost.params["x"]
    assert trial.user_attrs["folder"] == "trial-0000"
    assert study.trials[0].state is TrialState.FAIL
    assert adopt_orphans(study) == []  # this process is alive
    study.tell(trial, [1, 1, 1])
    assert next_trial(study, trials=1) is None


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="mine", direction="maximize")
    with pytest.raises(TrainingError, match=r"study mine in .* other objectives"):
        open_study(url, "mine", identity={}, seed=0, startup=1)
    open_study(url, "ours", identity={"teacher": "a", "steps": 3}, seed=0, startup=1)
    with pytest.raises(TrainingError, match="begun with other steps"):
        open_study(url, "ours", identity={"teacher": "a", "steps": 4}, seed=0, startup=1)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", "unknown storage"),
        ("ftp://host/study", "unknown storage"),
        ("sqlite:///{}/no/such/folder/study.db", "cannot be opened"),
        ("journal://{}/no/such/folder/study.log", "cannot be opened"),
        ("sqlite:///{}/text", "cannot be opened"),
        ("journal://{}/text", "cannot be opened"),
        ("postgresql+nothing://host/study", "cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_told(url: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("these are words\nand no journal\n" * 100)
    with warnings.catch_warnings(), pytest.raises(TrainingError, match=message):
        open_study(url.format(tmp_path), "mine", identity={}, seed=0, startup=1)
