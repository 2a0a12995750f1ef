"""What is done against overfitting: dropout, the mean of two students, an onset of its own."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from export.checkpoint import LoadedModel, load_model
from export.cli.distilling import DistillRequest, Measured, run_distill
from export.distil.averaging import average_weights
from export.distil.calibrate import move_onset
from export.distil.card import model_card
from export.distil.folder import read_record
from export.distil.objective import Objective
from export.distil.parts import after_front_end, drop_hidden, last_recurrent
from export.distil.student import Distillation
from export.errors import TrainingError
from export.progress import silent
from export.pyannote_import import sample_recording


def request(out: Path, **changed: Any) -> DistillRequest:
    nothing = Measured("validation", [], None)
    plain = DistillRequest(
        teacher="sinc-1bi",
        out=out,
        settings={"student": "sinc-1uni", "steps": 2, "batch_size": 2, "pool_windows": 4},
        audio=[sample_recording()[0]],
        rttm=None,
        protocol=None,
        database=None,
        hardware={},
        logger="csv",
        simulate_from=None,
        validation=nothing,
        test=replace(nothing, split="test"),
        cache=out.parent / "cache",
        threads=1,
        resume=False,
        average_with=None,
        credits=[],
        notes=[],
        licence_file=None,
    )
    return replace(plain, **changed)


def test_dropout_leaves_features_out_in_training_alone(zoo_model: LoadedModel) -> None:
    student = copy.deepcopy(zoo_model.module)
    seen: list[torch.Tensor] = []
    drop_hidden(student, 0.4)
    last_recurrent(student).register_forward_hook(lambda *given: seen.append(given[2][0]))
    features = torch.randn(2, 60, 293, generator=torch.manual_seed(0))
    with torch.no_grad():
        expected = after_front_end(zoo_model.module, features)
        assert torch.equal(after_front_end(student.eval(), features), expected)
        after_front_end(student.train(), features)
    assert (seen[0] == 0).float().mean() < 0.01
    assert (seen[1] == 0).float().mean() == pytest.approx(0.4, abs=0.01)


def test_the_average_student_has_all_features(zoo_model: LoadedModel) -> None:
    student = copy.deepcopy(zoo_model.module)
    training = Distillation(
        student,
        zoo_model.module,
        learning_rate=1e-3,
        weight_decay=0,
        average_decay=0.9,
        steps=1,
        objective=Objective(3),
        dropout=0.5,
    )
    assert len(last_recurrent(training.student)._forward_hooks) == 1
    assert not last_recurrent(training.average.module)._forward_hooks


def test_weights_are_the_mean_of_both(zoo_model: LoadedModel) -> None:
    student, other = copy.deepcopy(zoo_model.module), copy.deepcopy(zoo_model.module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.25)
    average_weights(student, other, source="other")
    for own, before in zip(student.parameters(), zoo_model.module.parameters(), strict=True):
        assert torch.allclose(own, before + 0.125, atol=1e-6)


def test_another_network_is_not_averaged_with(zoo_model: LoadedModel) -> None:
    with pytest.raises(TrainingError, match=r"sinc-2bi: another network: .*l1"):
        average_weights(
            copy.deepcopy(zoo_model.module), load_model("sinc-2bi").module, source="sinc-2bi"
        )


def test_a_score_of_the_onset_becomes_one_half(zoo_model: LoadedModel) -> None:
    student = copy.deepcopy(zoo_model.module)
    window = 0.1 * torch.randn(1, 1, 80_000, generator=torch.manual_seed(1))
    with torch.no_grad():
        before = student(window)
        move_onset(student, 0.35)
        after = student(window)
    assert torch.equal(after > 0.5, before > 0.35)
    assert after.mean() > before.mean()


def test_a_run_averages_and_records_where_the_weights_are_from(tmp_path: Path) -> None:
    first = run_distill(request(tmp_path / "first"), silent)
    settings = request(tmp_path).settings | {"seed": 1, "dropout": 0.3, "onset": 0.4}
    alone = run_distill(request(tmp_path / "alone", settings=settings), silent)
    both = run_distill(
        request(tmp_path / "both", settings=settings, average_with=tmp_path / "first"), silent
    )
    assert first is not None and alone is not None and both is not None
    assert both.averaged_with == first == read_record(tmp_path / "first")
    assert alone.averaged_with is None
    weights = [
        load_model(tmp_path / name).module.state_dict() for name in ("first", "alone", "both")
    ]
    name = "lstm.weight_hh_l0"
    assert torch.allclose(weights[2][name], (weights[0][name] + weights[1][name]) / 2, atol=1e-6)
    card = load_model(tmp_path / "both").card
    assert "averaged with those of a second student" in card
    assert "a score of 0.4 became 0.5" in card
    assert "dropout of 0.3 after the recurrent layers" in card


def test_the_card_tells_of_all_trainings_that_the_weights_come_from(tmp_path: Path) -> None:
    first = run_distill(request(tmp_path / "first"), silent)
    settings = request(tmp_path).settings | {"seed": 1, "label_share": 0.3}
    started = request(
        tmp_path / "second",
        settings=settings,
        start_from=str(tmp_path / "first"),
        rttm=sample_recording()[1],
    )
    second = run_distill(started, silent)
    assert first is not None and second is not None
    assert second.started_from == first and first.started_from is None
    third = first.model_copy(update={"averaged_with": second, "command": "third"})
    chain = [record.weights_sha256 for record in third.lineage()]
    assert chain == [first.weights_sha256, second.weights_sha256, first.weights_sha256]
    card = model_card(third, load_model(tmp_path / "first").spec)
    assert card.index(first.command) < card.index("third")
    assert "No labels were used" not in card and "a share of the loss is on who" in card


def test_a_student_that_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    other = Path(__file__).parents[2] / "export/zoo/sinc-1uni"
    with pytest.raises(TrainingError, match=r"a sinc-1uni of pyannote-segmentation"):
        run_distill(request(tmp_path / "out", average_with=other), silent)
    with pytest.raises(TrainingError, match=r"no record of a training"):
        run_distill(request(tmp_path / "out", average_with=tmp_path), silent)
    assert not (tmp_path / "out").exists()


def test_two_ways_to_set_the_bias_are_one_too_many(tmp_path: Path) -> None:
    settings = request(tmp_path).settings | {"onset": 0.4, "calibrate": True}
    with pytest.raises(TrainingError, match=r"--calibrate --onset 0\.4: two ways"):
        run_distill(request(tmp_path / "out", settings=settings), silent)


def test_the_onset_of_a_finished_run_can_be_chosen_anew(tmp_path: Path) -> None:
    plain = run_distill(request(tmp_path / "out"), silent)
    settings = request(tmp_path).settings | {"onset": 0.4}
    moved = run_distill(request(tmp_path / "out", settings=settings, resume=True), silent)
    assert plain is not None and moved is not None
    assert (plain.config.onset, moved.config.onset) == (0.5, 0.4)
    assert plain.weights_sha256 != moved.weights_sha256
