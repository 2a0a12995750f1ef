"""Labels follow their audio through everything that makes a training window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from export.audio import load_recording
from export.checkpoint import LoadedModel
from export.distil import data as data_module
from export.distil.config import DistilConfig, TrainingAudio
from export.distil.conversations import Turn
from export.distil.data import TrainingWindows
from export.distil.labels import cut_turns, frame_labels, mirrored, spliced, stretched
from export.distil.losses import permutation_invariant_bce
from export.distil.objective import Objective
from export.distil.powerset import classes_of, speaker_sets
from export.distil.train import train
from export.errors import TrainingError
from export.pyannote_import import sample_recording
from export.types import FrameGeometry
from runtime_checks.rttm import read_rttm

GEOMETRY = FrameGeometry(
    sample_rate_hz=100,
    window_samples=50,
    num_frames=5,
    frame_step_samples=10,
    receptive_field_samples=10,
)
TURNS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 90), st.integers(1, 40)).map(
        lambda t: Turn(t[0], t[1], t[1] + t[2])
    ),
    max_size=6,
)


def activity(turns: tuple[Turn, ...] | list[Turn], size: int) -> dict[str, np.ndarray]:
    """Who talks in each sample."""
    tracks = {name: np.zeros(size, bool) for name in "abc"}
    for turn in turns:
        tracks[turn.speaker][turn.start : turn.end] = True
    return tracks


@given(TURNS, st.integers(0, 99), st.integers(1, 60))
def test_a_stretch_keeps_what_is_in_it(turns: list[Turn], start: int, size: int) -> None:
    whole, part = activity(turns, 200), activity(cut_turns(turns, start=start, size=size), size)
    for name in "abc":
        assert (part[name] == whole[name][start : start + size]).all()


@given(TURNS, TURNS, st.integers(0, 130))
def test_spliced_and_mirrored_turns_are_those_of_the_samples(
    first: list[Turn], second: list[Turn], at: int
) -> None:
    joined = activity(spliced(first, second, at=at, size=130), 130)
    one, two = activity(first, 130), activity(second, 130)
    back = activity(mirrored(first, size=130), 260)
    for name in "abc":
        assert (joined[name] == np.concatenate([one[name][:at], two[name][at:]])).all()
        assert (back[name] == np.concatenate([one[name], one[name][::-1]])).all()


def test_frames_are_labelled_at_their_centres() -> None:
    turns = [Turn("x", 0, 16), Turn("y", 14, 36), Turn("z", 44, 46), Turn("y", 44, 50)]
    labels = frame_labels(turns, GEOMETRY, speakers=2)  # centres at 5, 15, 25, 35, 45
    assert labels[:, 0].tolist() == [0, 1, 1, 1, 1]  # y talks longest
    assert labels[:, 1].tolist() == [1, 1, 0, 0, 0]  # z, the third, has no room
    assert stretched(turns, before=50, after=100)[0] == Turn("x", 0, 32)


def test_windows_are_the_same_with_and_without_labels(
    zoo_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A speaker who is a loud half of the recording: labels and loudness agree in every window."""
    geometry = zoo_model.spec.geometry
    for name in ("MIX_SHARE", "BABBLE_SHARE"):
        monkeypatch.setattr(data_module, name, 0.0)
    monkeypatch.setattr(data_module, "ROOM_SHARE", {"simulated": 0.0, "real": 0.0})
    monkeypatch.setattr(data_module, "augment", lambda samples, rng, **_: samples)
    tone = np.sin(np.arange(10 * 16000) * 0.3).astype(np.float32)
    turns = (Turn("loud", 3 * 16000, 7 * 16000),)
    tone[: 3 * 16000] = tone[7 * 16000 :] = 0
    arguments = {"geometry": geometry, "seed": 1, "simulated_share": 0.0, "first": 0, "count": 24}
    known = TrainingWindows([tone], {}, turns=[turns], **arguments)  # type: ignore[arg-type]
    unknown = TrainingWindows([tone], {}, **arguments)  # type: ignore[arg-type]
    both = 0
    for index in range(24):
        samples, labels = known.labelled(index, speakers=3)
        assert torch.equal(samples, unknown[index])
        centres = [round(geometry.frame_center_s(f) * 16000) for f in range(geometry.num_frames)]
        loud = torch.stack([samples[0, max(c - 40, 0) : c + 40].abs().max() > 0.5 for c in centres])
        assert (loud.float() == labels[:, 0]).float().mean() > 0.98
        both += int(0 < float(labels[:, 0].mean()) < 1)
    assert both > 5


def test_label_losses_are_cross_entropies() -> None:
    logits = torch.randn(2, 9, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 9, 3)
    labels[0, 2:5, 0], labels[0, 4:, 1], labels[1, :4, 2] = 1, 1, 1
    classes = classes_of(labels, largest=2)
    sets = speaker_sets(3, 2)
    for row, index in zip(labels.reshape(-1, 3), classes.flatten().tolist(), strict=True):
        assert sets[index] == tuple(torch.nonzero(row).flatten().tolist())
    assert sets[int(classes_of(torch.ones(1, 1, 3), largest=2))] == (0, 1)
    given = Objective(3, 2).label_loss(logits, labels)
    as_it_stands = cross_entropy(logits.flatten(0, 1), classes.flatten())
    assert 0 < float(given) <= float(as_it_stands) + 1e-5
    alone = torch.zeros(1, 4, 3)  # nobody talks: there is one order only
    assert float(Objective(3, 2).label_loss(logits[:1, :4], alone)) == pytest.approx(
        float(cross_entropy(logits[0, :4], torch.zeros(4, dtype=torch.long))), rel=1e-4
    )
    multi = logits[..., :3]
    assert Objective(3).label_loss(multi, labels) == permutation_invariant_bce(multi, labels)


@pytest.mark.parametrize("pool_windows", [0, 4])
def test_a_share_of_the_loss_is_the_labels(
    pool_windows: int, zoo_model: LoadedModel, tmp_path: Path
) -> None:
    audio, rttm = sample_recording()
    recording = load_recording(audio, sample_rate_hz=16000)
    turns = tuple(
        Turn(t.speaker, round(t.start_s * 16000), round(t.end_s * 16000))
        for t in read_rttm(rttm)[recording.uri]
    )
    known = TrainingAudio([recording], turns={recording.uri: turns})
    losses = {}
    for share in (0.0, 0.5, 1.0):
        config = DistilConfig(
            student="sinc-1uni",
            steps=1,
            batch_size=4,
            pool_windows=pool_windows,
            label_share=share,
        )
        trained = train(zoo_model, known, config, folder=tmp_path / f"{share}")
        losses[share] = float(trained.log_rows[0]["loss"])
    assert losses[0.5] == pytest.approx((losses[0.0] + losses[1.0]) / 2, rel=1e-4)
    assert abs(losses[0.0] - losses[1.0]) > 1e-3
    with pytest.raises(TrainingError, match="sample: no turns to learn from"):
        train(zoo_model, TrainingAudio([recording]), config, folder=tmp_path / "none")
