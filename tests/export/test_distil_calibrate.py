"""The share of speech that a finished student says, and the command that its record keeps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from export.audio import load_recording
from export.checkpoint import LoadedModel
from export.distil.calibrate import match_share_of_speech
from export.distil.evaluate import compare_scores, score_windows, stack_windows
from export.distil.record import command_line
from export.pyannote_import import sample_recording


def test_a_student_that_hears_too_little_is_set_right(zoo_model: LoadedModel) -> None:
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    windows = stack_windows([recording], zoo_model.spec.geometry, hop_s=10)
    student: Any = copy.deepcopy(zoo_model.module)
    with torch.no_grad():
        student.classifier.bias -= 1.5
    expected = score_windows(zoo_model.module, windows)
    before = score_windows(student, windows)
    assert (before > 0.5).sum() < 0.9 * (expected > 0.5).sum()
    shift = match_share_of_speech(student, zoo_model.module, windows)
    assert shift == pytest.approx(1.5, abs=0.02)
    after = score_windows(student, windows)
    assert int((after > 0.5).sum()) == int((expected > 0.5).sum())
    assert compare_scores(after, expected).decisions_percent > 99.9
    assert match_share_of_speech(student, zoo_model.module, windows) == pytest.approx(0, abs=0.02)


def test_a_student_of_silence_is_left_alone(zoo_model: LoadedModel) -> None:
    student: Any = copy.deepcopy(zoo_model.module)
    deaf: Any = copy.deepcopy(zoo_model.module)
    with torch.no_grad():
        deaf.classifier.bias.fill_(-50)
    assert match_share_of_speech(student, deaf, torch.zeros(2, 1, 80_000)) == 0
    assert torch.equal(student.classifier.bias, zoo_model.module.get_parameter("classifier.bias"))


def test_a_command_is_kept_without_this_machines_folders() -> None:
    typed = ["/opt/bin/diarport", "distill", "-t", "/data/models/pyannote.bin", "--resume"]
    typed += ["--audio", "ami/train", "--note", "Of two rooms.", "--out", "students/mine", "-q"]
    assert command_line(typed) == (
        "diarport distill -t pyannote.bin --audio ami/train --note 'Of two rooms.' "
        "--out students/mine"
    )
