"""The embedding students that ship: weights, record, log and card agree; they tell voices apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.audio import load_recording
from export.checkpoint import LoadedModel, load_model, zoo_dir, zoo_names
from export.distil.embedding.folder import EmbeddingRecord, embedding_card
from export.pyannote_import import sample_recording
from export.types import PipelineParameters, Role

# Parameters; bytes of the weights, at most; equal-error rate on speakers held out, percent, at
# most: what the trained student reaches, rounded up (docs/embeddings.md).
SHIPPED = {"cnn4": (130_688, 300_000, 7.9)}


@pytest.fixture(scope="module", params=SHIPPED)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return load_model(str(request.param))


@pytest.fixture(scope="module")
def folder(model: LoadedModel) -> Path:
    return zoo_dir() / model.spec.name


@pytest.fixture(scope="module")
def record(folder: Path) -> EmbeddingRecord:
    return EmbeddingRecord.model_validate_json((folder / "training.json").read_text())


def test_the_zoo_is_what_is_listed_here() -> None:
    assert zoo_names(Role.EMBEDDING) == sorted(SHIPPED)
    assert set(zoo_names()) == set(zoo_names(Role.SEGMENTATION)) | set(SHIPPED)


def test_record_card_and_log_belong_to_the_weights(
    record: EmbeddingRecord, model: LoadedModel, folder: Path
) -> None:
    parameters, largest, _ = SHIPPED[model.spec.name]
    assert record.weights_sha256 == model.sha256
    assert record.parameters == parameters == sum(p.numel() for p in model.module.parameters())
    assert (folder / "model.safetensors").stat().st_size < largest
    assert model.card == embedding_card(record, model.spec)
    assert record.command in model.card and model.card.count("CC BY 4.0") >= 2
    assert not set(record.held_out) & set(record.speakers)
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) + 1 == record.step == record.config.steps
    assert "MIT" in model.licence_text and "Apache" in model.licence_text


def test_weights_are_halves(folder: Path) -> None:
    for name, value in load_file(folder / "model.safetensors").items():
        assert value.dtype == torch.float16, name
        assert torch.isfinite(value).all()


def test_errors_on_speakers_held_out_are_as_shipped(
    record: EmbeddingRecord, model: LoadedModel
) -> None:
    student, teacher = record.figures["student"], record.figures["teacher"]
    assert student.eer <= SHIPPED[model.spec.name][2]
    assert teacher.eer <= student.eer
    assert student.speakers == len(record.held_out) == 4 and student.targets > 500
    assert all(0 <= cost <= 1 for cost in student.min_dcf.values())


def test_the_same_voice_is_more_alike_than_another_on_average(
    model: LoadedModel, folder: Path
) -> None:
    """The sample recording: three seconds of each speaker, in two places each."""
    parameters = PipelineParameters.model_validate_json((folder / "pipeline.json").read_text())
    assert len(parameters.embedding_mean) == model.spec.outputs[0].shape[2]
    samples = load_recording(sample_recording()[0], sample_rate_hz=16000).samples
    step = model.spec.geometry.frame_step_samples

    def embed(start_s: float, end_s: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        first = round((start_s - 0.5) * 16000)
        window = torch.from_numpy(samples[first : first + 80000])[None, None]
        weights = torch.zeros(1, 1, 293)
        weights[0, 0, round(8000 / step) : round((8000 + (end_s - start_s) * 16000) / step)] = 1
        with torch.inference_mode():
            found = model.module(window, weights)[0, 0].numpy() - parameters.embedding_mean
        return np.asarray(found / np.linalg.norm(found))

    one = [embed(11.1, 14.4), embed(18.7, 21.4)]
    other = [embed(14.8, 17.8), embed(21.9, 24.9)]
    same = [float(one[0] @ one[1]), float(other[0] @ other[1])]
    different = [float(a @ b) for a in one for b in other]
    assert np.mean(same) > np.mean(different) + 0.03
