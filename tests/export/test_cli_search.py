"""`diarport search` as it is typed: a real study of a few steps, resumed; and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
import soundfile
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

from export.cli.app import app
from export.errors import (
    AudioError,
    BackendUnavailableError,
    ExportError,
    RecipeError,
    TrainingError,
)
from export.pyannote_import import sample_recording
from export.search.folds import geometric_mean
from export.search.record import SearchRecord
from runtime_checks.rttm import read_rttm

SPACE = """
front_ends = ["sinc"]
layers = [1]
directions = ["uni"]
cells = ["lstm"]
linear_layers = [1]
batch_sizes = [4]
"""
QUICK = ["--folds", "2", "--steps", "2", "--checkpoint-steps", "1", "--pool-windows", "4"]
QUICK += ["--runs", "1", "--threads", "1", "--json"]


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings, each of one of the sample's two speakers alone."""
    folder = tmp_path_factory.mktemp("speakers")
    audio, rttm = sample_recording()
    samples, rate = soundfile.read(audio)
    (turns,) = read_rttm(rttm).values()
    lines = []
    for name in sorted({turn.speaker for turn in turns}):
        talking = {True: np.zeros(len(samples), bool), False: np.zeros(len(samples), bool)}
        for turn in turns:
            heard = slice(round(turn.start_s * rate), round(turn.end_s * rate))
            talking[turn.speaker == name][heard] = True
        own = samples[talking[True] & ~talking[False]]
        soundfile.write(folder / f"{name}.flac", own, rate)
        length_s = len(own) / rate
        lines.append(f"SPEAKER {name} 1 0.000 {length_s:.3f} <NA> <NA> {name} <NA> <NA>")
    (folder / "turns.rttm").write_text("\n".join(lines) + "\n")
    (folder / "space.toml").write_text(SPACE)
    return folder


def call(speakers: Path, out: Path, *options: str | Path) -> SearchRecord:
    arguments = ["search", "-t", "sinc-1bi-voices", "--audio", speakers, "--out", out, *QUICK]
    arguments += ["--rttm", speakers / "turns.rttm", "--space", speakers / "space.toml", *options]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return SearchRecord.model_validate(json.loads(result.stdout))


def test_a_study_is_run_resumed_and_gives_up_what_is_hopeless(
    speakers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    url = f"journal://{tmp_path}/study.log"
    (first,) = call(speakers, out, "--trials", "1", "--storage", url).trials
    assert (first.state, first.student, first.non_dominated) == ("COMPLETE", "sinc-1uni", True)
    assert first.der_percent == geometric_mean(first.fold_der_percent)
    assert len(first.fold_der_percent) == 2 and 0 < first.der_percent < 100
    # An exported sinc-1uni: its 158,829 weights of four bytes, and little more.
    assert first.size_bytes is not None and 635_000 < first.size_bytes < 750_000
    assert first.time_ratio is not None and first.time_ratio > 0
    assert list(first.agreement) == ["0:1", "0:2", "1:1", "1:2"]
    assert list((out / "trials").iterdir()) == []

    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    )
    study = optuna.load_study(study_name="search", storage=storage)
    attributes = {"size_bytes": 1, "time_ratio": 0.001, "agreement": {"0:1": 100.0}}
    for _ in range(2):
        costless = [0.001, 0.001, 1.0]
        made = create_trial(state=TrialState.COMPLETE, values=costless, user_attrs=attributes)
        study.add_trial(made)
    record = call(speakers, out, "--trials", "4", "--storage", url, "--startup", "1")
    assert record == SearchRecord.model_validate_json((out / "search.json").read_text())
    again, *_, last = record.trials
    assert again == first.model_copy(update={"non_dominated": False})
    assert last.state == "PRUNED" and last.der_percent is None
    assert last.reason.startswith("fold 0, step 1: ") and "100.00 % of 3 trials" in last.reason
    assert list(last.agreement) == ["0:1"]
    assert (last.size_bytes, last.time_ratio) == (first.size_bytes, first.time_ratio)
    with pytest.raises(TrainingError, match="begun with other settings"):
        call(speakers, out, "--storage", url, "--steps", "3")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--folds", "3"], TrainingError, "fall into 2 groups"),
        (["--storage", "file.db"], TrainingError, "unknown storage"),
        (["--backend", "nothing"], ExportError, "nothing"),
        (["--recipe", "nothing"], RecipeError, "no such recipe"),
        (["--baseline", "nothing"], ExportError, "no such file or zoo model"),
        (["--rttm", "missing.rttm"], AudioError, "missing.rttm"),
        (["--space", "missing.toml"], TrainingError, "not readable"),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(
    options: list[str], error: type[ExportError], message: str, speakers: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        call(speakers, tmp_path / "out", *options)
    assert not (tmp_path / "out" / "trials").exists()


def test_a_backend_that_is_not_timed_here_is_told(speakers: Path, tmp_path: Path) -> None:
    from runtime_checks.runners.base import why_untimed

    if why_untimed("coreml_mlprogram") is None:
        pytest.skip("Core ML is timed on this machine")
    with pytest.raises(BackendUnavailableError, match="coreml_mlprogram"):
        call(speakers, tmp_path / "out", "--backend", "coreml_mlprogram")
