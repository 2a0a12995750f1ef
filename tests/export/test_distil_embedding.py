"""Distillation of speaker embeddings: voices, windows, losses, and a run from audio to a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from export.audio import Recording
from export.checkpoint import LoadedModel, load_model, save_model
from export.cli.app import app
from export.distil.conversations import Turn
from export.distil.data import load_speakers
from export.distil.embedding.audio import hold_out, spoken_alone
from export.distil.embedding.config import EmbeddingAudio, EmbeddingConfig
from export.distil.embedding.losses import cosine_loss, label_loss, mse_loss, principal_axes
from export.distil.embedding.pool import VoicePool, Voices, build_pool
from export.distil.embedding.train import train_embedding
from export.distil.embedding.voices import Voice, borrow_mouth, move_formants, speak
from export.distil.embedding.windows import VOICES, VoiceWindows
from export.errors import TrainingError
from export.models.base import MODELS
from export.models.speaker_cnn import SpeakerCnn, folded
from export.types import Role

Samples = NDArray[np.float32]
RATE = 16000


def tone(pitch_hz: float, seconds: float = 2.0) -> Samples:
    """Something like a vowel: a pitch with formants, loud and quiet in turns."""
    time = np.arange(round(seconds * RATE)) / RATE
    harmonics = np.arange(1, int(4000 / pitch_hz))
    envelope = np.exp(-(((harmonics * pitch_hz - 700) / 300) ** 2)) + 0.05
    wave = (envelope[:, None] * np.sin(2 * np.pi * pitch_hz * harmonics[:, None] * time)).sum(0)
    made: Samples = (0.1 * wave * (0.6 + 0.4 * np.sin(9 * time))).astype(np.float32)
    return made


def centre_hz(samples: Samples) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((np.fft.rfftfreq(len(samples), 1 / RATE) * power).sum() / power.sum())


def test_formants_move_and_the_pitch_stays() -> None:
    vowel = tone(120.0)
    assert np.abs(move_formants(vowel, (1.0, 1.0, 1.0), sample_rate_hz=RATE) - vowel).max() < 1e-6
    higher = move_formants(vowel, (1.15, 1.15, 1.15), sample_rate_hz=RATE)
    assert centre_hz(higher) / centre_hz(vowel) == pytest.approx(1.15, abs=0.06)
    strongest = [np.abs(np.fft.rfft(each))[230:250].argmax() for each in (vowel, higher)]
    assert strongest[0] == strongest[1]  # the second harmonic, 240 Hz
    slower = speak(vowel, Voice(percent=125), sample_rate_hz=RATE)
    assert len(slower) == len(vowel) * 5 // 4
    assert centre_hz(slower) / centre_hz(vowel) == pytest.approx(0.8, abs=0.02)


def test_a_borrowed_mouth_moves_the_envelope_and_keeps_the_pitch() -> None:
    mine, theirs = tone(120.0), speak(tone(210.0, 1.5), Voice(percent=80), sample_rate_hz=RATE)
    assert np.abs(borrow_mouth(mine, theirs, 0.0) - mine).max() < 1e-6
    half, whole = (borrow_mouth(mine, theirs, share) for share in (0.5, 1.0))
    assert whole.shape == mine.shape
    assert centre_hz(mine) * 1.03 < centre_hz(half) < centre_hz(whole) < centre_hz(theirs) * 1.1
    assert np.abs(np.fft.rfft(whole))[230:250].argmax() == 10  # the second harmonic, 240 Hz


def random_pool(size: int = 12) -> VoicePool:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(-5, 1, (size, 16, 598)).astype(np.float16))
    lengths = torch.from_numpy(rng.integers(200, 598, size))
    return VoicePool(features, lengths, torch.eye(size, 24))


def test_windows_weigh_voices_where_they_are_alone() -> None:
    pool = random_pool()
    windows = VoiceWindows(pool, frames=498, pooled=8, seed=3, first=0, count=60)
    shapes = {name: tuple(value.shape) for name, value in windows[0].items()}
    assert shapes == {"features": (16, 498), "weights": (VOICES, 63), "voices": (VOICES,)}
    voices = [int((windows[index]["voices"] >= 0).sum()) for index in range(60)]
    assert set(voices) == {0, 1, 2, 3} or set(voices) == {1, 2, 3}
    for index in range(60):
        window = windows[index]
        assert (window["features"] >= 0).all()
        assert not window["weights"][window["voices"] < 0].any()
        assert (window["weights"][window["voices"] >= 0].sum(1) > 0).all()
    later = VoiceWindows(pool, frames=498, pooled=8, seed=3, first=7, count=1)[0]
    assert torch.equal(later["features"], windows[7]["features"])
    assert not torch.equal(windows[6]["features"], windows[7]["features"])


def test_losses_are_zero_for_the_teacher_and_grow_with_the_distance() -> None:
    teacher = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.manual_seed(0)))
    for loss in (mse_loss, cosine_loss):
        assert float(loss(teacher, 3 * teacher)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_loss(-teacher, teacher)) == pytest.approx(2)
    assert float(mse_loss(torch.zeros(5, 8), teacher)) == pytest.approx(1)
    assert float(label_loss(7 * teacher, teacher, temperature=0.1)) == pytest.approx(0, abs=1e-5)
    confused = teacher[[1, 0, 2, 3, 4]]
    assert float(label_loss(confused, teacher, temperature=0.1)) > 0.1


def test_principal_axes_keep_cosines() -> None:
    generator = torch.manual_seed(0)
    flat = torch.randn(40, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    axes = principal_axes(flat, 3)
    assert torch.allclose(axes.t() @ axes, torch.eye(3), atol=1e-5)
    assert torch.allclose((flat @ axes) @ (flat @ axes).t(), flat @ flat.t(), atol=1e-3)


def test_stretches_of_one_speaker_alone_are_cut_out() -> None:
    recording = Recording("m", Path("m"), np.arange(10 * RATE, dtype=np.float32), RATE, ())
    turns = (
        Turn("a", 0, 3 * RATE),
        Turn("b", 2 * RATE, 6 * RATE),
        Turn("b", 6 * RATE, 7 * RATE),
        Turn("a", 8 * RATE, 9 * RATE),
    )
    found = spoken_alone([recording], {"m": turns})
    assert {name: [len(u.samples) / RATE for u in spoken] for name, spoken in found.items()} == {
        "a": [2.0],
        "b": [4.0],
    }
    assert found["b"][0].samples[0] == 3 * RATE
    with pytest.raises(TrainingError, match="no speaker c"):
        hold_out(found, ["c"])
    with pytest.raises(TrainingError, match="1 speakers to train on"):
        hold_out(found, ["a"])


def test_folding_batch_norms_changes_nothing() -> None:
    torch.manual_seed(0)
    net = SpeakerCnn(student="resnet10", channels=(4, 4, 8, 8), batch_norm=True)
    norms: list[Any] = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.running_mean, -1, 1)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
    net = net.double().eval()
    spec = MODELS["SpeakerCnn"].spec(net, name="n", licence="l", trained_on="t")
    inputs = [x.double() for x in MODELS["SpeakerCnn"].example_inputs(spec)]
    plain = folded(net).double()
    # folded() gives float32 weights to load; the difference is their rounding.
    with torch.inference_mode():
        assert (plain(*inputs) - net(*inputs)).abs().max() < 1e-4
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with random weights, in a folder."""
    torch.manual_seed(0)
    architecture = MODELS["Ge2eEncoder"]
    module = architecture.build(architecture.tiny_config() | {"dimension": 160, "frames": {}})
    spec = architecture.spec(module, name="tiny", licence="MIT", trained_on="nothing")
    folder = tmp_path_factory.mktemp("teacher")
    save_model(folder, module, spec, source="test")
    return folder


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speakers")
    for index, pitch_hz in enumerate((100.0, 140.0, 190.0, 230.0)):
        (folder / f"s{index}").mkdir()
        samples = tone(pitch_hz, 6.5)
        soundfile.write(folder / f"s{index}" / "u.wav", samples, RATE)
    return folder


def test_a_pool_is_read_from_its_cache(teacher: Path, tmp_path: Path) -> None:
    model: LoadedModel = load_model(teacher)
    voices = Voices({"a": [tone(100.0)], "b": [tone(200.0)]}, seed=0, sample_rate_hz=RATE)
    fbank: Any = SpeakerCnn().frontend.fbank
    made = [
        build_pool(
            model.module,
            voices,
            fbank,
            count=9,
            cache=tmp_path,
            identity={"a": 1},
        )
        for _ in range(2)
    ]
    assert len(list(tmp_path.iterdir())) == 1
    assert torch.equal(made[0].features, made[1].features)
    assert made[0].targets.shape == (9, 160)
    assert torch.allclose(made[0].targets.norm(dim=1), torch.ones(9), atol=1e-5)
    assert made[0].features.shape == (9, 64, 598) and int(made[0].lengths.max()) <= 598


def test_the_command_trains_a_model_that_loads_and_resumes_to_the_same(
    teacher: Path, speakers: Path, tmp_path: Path
) -> None:
    def distil(out: str, *options: str) -> dict[str, object]:
        arguments = [
            "distill-embedding", "--teacher", str(teacher), "--speakers", str(speakers),
            "--hold-out", "s1", "--hold-out", "s3", "--voices", "8", "--batch-size", "2",
            "--checkpoint-steps", "1", "--cache", str(tmp_path / "cache"), "--json",
            "--credit", "Tones, made up", "--out", str(tmp_path / out), *options,
        ]  # fmt: skip
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        found: dict[str, object] = json.loads(result.stdout)
        return found

    record = distil("whole", "--steps", "2")
    assert record["held_out"] == ["s1", "s3"]
    assert sorted(record["speakers"]) == ["s0", "s2"]  # type: ignore[call-overload]
    assert set(record["figures"]) == {"student", "teacher"}  # type: ignore[call-overload]
    loaded = load_model(tmp_path / "whole")
    assert loaded.spec.role is Role.EMBEDDING
    assert loaded.spec.outputs[0].shape == (1, 3, 128)
    assert (tmp_path / "whole" / "model.safetensors").stat().st_size < 300_000
    card = (tmp_path / "whole" / "MODEL_CARD.md").read_text()
    assert "cnn4" in card and "s1, s3" in card and str(tmp_path) not in card


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    teacher: Path, speakers: Path, tmp_path: Path
) -> None:
    model = load_model(teacher)
    audio = EmbeddingAudio(load_speakers(speakers, sample_rate_hz=RATE))
    config = EmbeddingConfig(voices=8, steps=3, batch_size=2, checkpoint_steps=1)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 2:
            raise KeyboardInterrupt

    def run(out: str, **options: Any) -> SpeakerCnn:
        folder, cache = tmp_path / out, tmp_path / "cache"
        return train_embedding(model, audio, config, folder=folder, cache=cache, **options).module

    with pytest.raises(TrainingError, match="interrupted"):
        run("stopped", progress=stop)
    with pytest.raises(TrainingError, match="holds the checkpoints of a run"):
        run("stopped")
    whole, resumed = run("whole").state_dict(), run("stopped", resume=True).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hold-out", "nobody"], "no speaker nobody"),
        (["--student", "resnet99"], "not the name of an embedding student"),
        (["--teacher", "sinc-1bi"], "a segmentation model"),
        (["--learning-rate", "0"], "learning-rate"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_trained(
    options: list[str], said: str, teacher: Path, speakers: Path, tmp_path: Path
) -> None:
    arguments = [
        "distill-embedding", "--teacher", str(teacher), "--speakers", str(speakers),
        "--out", str(tmp_path / "out"), *options,
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert said in str(result.exception)
