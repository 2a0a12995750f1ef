"""Names of students, and the networks that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from export.checkpoint import load_model, save_pyannote
from export.errors import CheckpointError
from export.models.base import MODELS
from export.models.pyannet import student_config
from export.models.students import student_design
from export.pyannote_import import pyannote_audio

# Sikorskyi, "On-device Speaker Diarization", 2023, tab. A.1: megabytes of saved files by front-end,
# LSTM layers and direction, with one linear layer.
PUBLISHED_MB = {
    ("sinc", "bi"): (1.09, 2.67, 4.25, 5.83),
    ("sinc", "uni"): (0.63, 1.16, 1.69, 2.22),
    ("mfcc80", "bi"): (1.08, 2.67, 4.25, 5.83),
    ("mfcc80", "uni"): (0.59, 1.12, 1.64, 2.17),
    ("mfcc120", "bi"): (1.31, 2.89, 4.48, 6.06),
    ("mfcc120", "uni"): (0.73, 1.26, 1.79, 2.32),
    ("mfcc150", "bi"): (1.49, 3.07, 4.65, 6.24),
    ("mfcc150", "uni"): (0.85, 1.38, 1.91, 2.44),
}
SINC_TWO_LINEAR_MB = {
    "bi": (1.15, 2.73, 4.32, 5.90),
    "uni": (0.70, 1.23, 1.75, 2.28),
}
SIZES = {
    f"{frontend}-{layers}{kind}": size
    for (frontend, kind), sizes in PUBLISHED_MB.items()
    for layers, size in enumerate(sizes, 1)
} | {
    f"sinc-{layers}{kind}-2lin": size
    for kind, sizes in SINC_TWO_LINEAR_MB.items()
    for layers, size in enumerate(sizes, 1)
}


def build(name: str) -> Any:
    architecture, config = student_design(name)
    return MODELS[architecture].build(config)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    """Files hold buffers too: window, mel filters and cosine transform of the MFCC.

    Figures are rounded to 0.01 MB, and files have some 3 to 10 kB of names and hyper-parameters.
    """
    assert len(SIZES) == 40
    tensors = build(name).state_dict().values()
    size_mb = sum(t.numel() * t.element_size() for t in tensors) / 1e6
    assert size_mb == pytest.approx(SIZES[name], abs=0.012)


def test_a_saved_file_is_hardly_larger_than_its_tensors(tmp_path: Path) -> None:
    model = build("mfcc80-1bi")
    assert sum(p.numel() for p in model.parameters()) == 248_323
    save_pyannote(tmp_path / "x.bin", model)
    assert (tmp_path / "x.bin").stat().st_size / 1e6 == pytest.approx(1.09, abs=0.005)


def test_what_names_say() -> None:
    architecture, config = student_design("mfcc120-2uni-3lin", window_s=2.0, classes=4)
    assert architecture == "MfccNet"
    assert config["mfcc"]["n_mfcc"] == config["mfcc"]["n_mels"] == 120
    assert config["lstm"]["num_layers"] == 2
    assert config["lstm"]["bidirectional"] is False
    assert config["linear"] == {"hidden_size": 128, "num_layers": 3}
    assert config["specifications"]["window_s"] == 2.0
    assert len(config["specifications"]["classes"]) == 4
    assert student_design("mfcc80-1bi")[1]["linear"]["num_layers"] == 1
    assert student_design("sinc-1bi") == ("PyanNet", student_config("sinc-1bi"))


@pytest.mark.parametrize(
    "name",
    [
        *("mfcc-1bi", "mfcc100-1bi", "mfcc80", "mfcc80-0bi", "mfcc80-1bi-", "sinc80-1bi", ""),
        *("sinc-1bi-lstm", "sinc-gru", "sinc-1bi-gru-2lin"),
    ],
)
def test_names_outside_the_family(name: str) -> None:
    with pytest.raises(CheckpointError, match="not the name of a student"):
        student_design(name)


def test_a_sincnet_is_not_made_of_another_name() -> None:
    with pytest.raises(CheckpointError, match="the name of a MfccNet; expected a student with"):
        student_config("mfcc80-1bi")


@pytest.mark.parametrize(
    "name",
    ["sinc-1uni", "mfcc80-1uni", "mfcc150-2bi-0lin", "sinc-1uni-gru", "mfcc80-1uni-rnn"],
)
def test_students_give_scores_of_the_same_frames(name: str) -> None:
    with torch.inference_mode():
        out = build(name)(torch.zeros(1, 1, 80_000))
    assert out.shape == (1, 293, 3)


@pytest.mark.parametrize("name", ["sinc-2bi", "mfcc80-1uni"])
def test_other_cells_have_their_share_of_the_gates(name: str) -> None:
    """Four, three and one gate of the same widths."""
    stacks = [build(f"{name}{cell}").lstm for cell in ("", "-gru", "-rnn")]
    assert [type(stack).__name__ for stack in stacks] == ["LSTM", "GRU", "RNN"]
    four, three, one = (sum(p.numel() for p in stack.parameters()) for stack in stacks)
    assert four == 4 * one and three == 3 * one


@pytest.mark.parametrize(
    ("name", "architecture"), [("sinc-1bi-gru", "SincRnnNet"), ("mfcc120-1uni-2lin-rnn", "MfccNet")]
)
def test_students_with_other_cells_load_in_pyannote(
    name: str, architecture: str, tmp_path: Path
) -> None:
    model = build(name)
    save_pyannote(tmp_path / "x.bin", model)
    loaded = load_model(tmp_path / "x.bin")
    theirs: Any = pyannote_audio().Model.from_pretrained(tmp_path / "x.bin").eval()
    window = torch.randn(1, 1, 80_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(window)
        assert torch.equal(theirs(window), expected)
        assert torch.equal(loaded.module(window), expected)
        canonical = MODELS[architecture].canonical(model)(window)
    assert loaded.spec.architecture == architecture
    assert (canonical - expected).abs().max() < 1e-5
