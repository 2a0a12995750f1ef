"""The model folder that a distillation of embeddings leaves: weights, card, record, log."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from safetensors.torch import load_file, save_file

from ...bundle import hash_path
from ...checkpoint import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, LoadedModel, save_model
from ...models.base import MODELS
from ...types import SCHEMA_VERSION, ModelSpec, Sha256, Value, VerificationScore
from ..folder import LICENCE_FILE, LOG_FILE, RECORD_FILE, TOOLS, log_text
from ..record import Provenance
from ..resume import disk_errors_told
from .config import EmbeddingAudio, EmbeddingConfig
from .train import TrainedEmbedding

ARCHITECTURE = "SpeakerCnn"


class EmbeddingRecord(Value):
    """`training.json`: all that is needed to train the same student again, and what it gave.

    `figures` are error rates of the student and of its teacher on the speakers held out; `kept` is
    the share of the teacher's embeddings that the student's dimension can hold.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    command: str = ""
    config: EmbeddingConfig
    teacher: str
    teacher_licence: str
    teacher_sha256: Sha256
    speakers: dict[str, float]
    held_out: tuple[str, ...]
    audio_sha256: dict[str, Sha256]
    credits: tuple[str, ...]
    notes: tuple[str, ...]
    step: int
    kept: float
    parameters: int
    weights_sha256: Sha256
    figures: dict[Literal["student", "teacher"], VerificationScore]
    tool_versions: dict[str, str]


def write_embedding_student(
    folder: Path,
    trained: TrainedEmbedding,
    *,
    teacher: LoadedModel,
    audio: EmbeddingAudio,
    held_out: Sequence[str],
    config: EmbeddingConfig,
    figures: Mapping[Literal["student", "teacher"], VerificationScore],
    provenance: Provenance,
) -> EmbeddingRecord:
    """Write the model folder that `load_model` loads.

    Weights that float16 holds are written as such. Files are written beside their place and then
    moved, the weights last. Nothing in them names a path of this machine.
    """
    licence = provenance.licence_text or teacher.licence_text
    spec = MODELS[ARCHITECTURE].spec(
        trained.module,
        name=config.student,
        licence=next((x.strip() for x in licence.splitlines() if x.strip()), teacher.spec.licence),
        trained_on=_data_line(audio, provenance.credits),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with (
        disk_errors_told(folder),
        tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as name,
    ):
        made = Path(name)
        save_model(made, trained.module, spec, source=f"distilled from {teacher.spec.name}")
        if config.half:
            halves = {key: value.half() for key, value in load_file(made / WEIGHTS_FILE).items()}
            save_file(halves, made / WEIGHTS_FILE)
        record = EmbeddingRecord(
            command=provenance.command,
            config=config,
            teacher=teacher.spec.name,
            teacher_licence=teacher.spec.licence,
            teacher_sha256=teacher.sha256,
            speakers={
                name: round(sum(u.duration_s for u in spoken), 3)
                for name, spoken in sorted(audio.speakers.items())
            },
            held_out=tuple(held_out),
            audio_sha256=audio.hashes(),
            credits=tuple(provenance.credits),
            notes=tuple(provenance.notes),
            step=trained.step,
            kept=trained.kept,
            parameters=sum(p.numel() for p in trained.module.parameters()),
            weights_sha256=hash_path(made / WEIGHTS_FILE),
            figures=dict(figures),
            tool_versions={tool: version(tool) for tool in TOOLS},
        )
        (made / RECORD_FILE).write_text(record.to_json())
        (made / LOG_FILE).write_text(log_text(trained.log_rows))
        (made / LICENCE_FILE).write_text(licence or "The teacher came without a licence text.\n")
        (made / CARD_FILE).write_text(embedding_card(record, spec))
        last = {CONFIG_FILE: 1, WEIGHTS_FILE: 2}
        for path in sorted(made.iterdir(), key=lambda p: last.get(p.name, 0)):
            path.replace(folder / path.name)
    return record


def _data_line(audio: EmbeddingAudio, credits: Sequence[str]) -> str:
    names = "; ".join(credit.split(",")[0] for credit in credits)
    sources = f": {names}" if names else ""
    return f"{len(audio.speakers)} speakers ({audio.duration_s:.0f} s) in many voices{sources}"


def embedding_card(record: EmbeddingRecord, spec: ModelSpec) -> str:
    """Markdown: what the model is, its data, training, figures, limits and licence."""
    sections = {
        "": _summary(record, spec),
        "Data": _data(record),
        "Training": _training(record),
        "Figures": _figures(record),
        "Limits": _limits(record),
        "Licence": f"{spec.licence} (text in `LICENSE`).",
    }
    return (
        "\n\n".join(
            f"## {title}\n\n{text}" if title else f"# {spec.name}\n\n{text}"
            for title, text in sections.items()
        )
        + "\n"
    )


def _summary(record: EmbeddingRecord, spec: ModelSpec) -> str:
    bytes_each = 2 if record.config.half else 4
    return (
        f"Speaker embeddings of {spec.geometry.window_s:g} s windows of "
        f"{spec.geometry.sample_rate_hz} Hz mono audio: {spec.outputs[0].shape[2]} numbers for "
        f"each of {spec.outputs[0].shape[1]} speakers, whose frames the weights [speakers, "
        f"{spec.geometry.num_frames}] name. {spec.architecture}, {record.parameters:,} parameters "
        f"({record.parameters * bytes_each / 1e6:.2f} MB as stored), distilled from "
        f"{record.teacher}. Embeddings compare by cosine; they are not normalised."
    )


def _data(record: EmbeddingRecord) -> str:
    total_s = sum(record.speakers.values())
    lines = [
        f"- training: {len(record.speakers)} speakers, {total_s:.0f} s "
        f"({', '.join(record.speakers)})",
        f"- held out, for trials alone: {', '.join(record.held_out) or 'nobody'}",
        *(f"- source: {credit}" for credit in record.credits),
    ]
    return "\n".join(lines) + (
        "\n\nNo labels were used: the teacher embeds every utterance. Utterances are played faster "
        "or slower, their formants moved, in simulated rooms and through other microphones, and "
        "put together to windows of one to three voices over noise and other voices. The hashes of "
        "all audio are in `training.json`."
    )


def _training(record: EmbeddingRecord) -> str:
    config = record.config
    text = (
        f"{config.steps} steps of {config.batch_size} windows of {config.voices} utterances, each "
        f"in a voice of its own; AdamW, one-cycle learning rate up to {config.learning_rate:g}, "
        f"seed {config.seed}. Loss: {config.label_weight:g} times the divergence of who is whom in "
        f"the batch (temperature {config.temperature:g}), {config.mse_weight:g} times the squared "
        f"distance and {config.cosine_weight:g} times one minus the cosine to the teacher's "
        f"embedding on its principal axes, which keep {100 * record.kept:.1f} % of it (Wang et "
        "al., ICASSP 2019). The weights are a moving average"
        + (", rounded to float16" if config.half else "")
        + ". The course of the training is in `log.csv`."
    )
    return f"{text}\n\n```\n{record.command}\n```" if record.command else text


def _figures(record: EmbeddingRecord) -> str:
    if not record.figures:
        return "None: no speakers were held out."
    rows = [
        f"| {name} | {score.eer:.2f} % | {score.min_dcf['0.01']:.3f} | "
        f"{score.min_dcf['0.001']:.3f} |"
        for name, score in sorted(record.figures.items())
    ]
    score = next(iter(record.figures.values()))
    return (
        "| | equal-error rate | minDCF 0.01 | minDCF 0.001 |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nCosine of all {score.targets + score.impostors:,} pairs of {score.segments} "
        f"segments of {score.segment_s:g} s of {score.speakers} speakers that were not trained on; "
        f"{score.targets:,} pairs are of one voice."
    )


def _limits(record: EmbeddingRecord) -> str:
    lines = [
        "- Few speakers were trained on, and few measured on: an indication, not a benchmark.",
        "- It repeats its teacher's errors, and adds its own on languages, rooms and microphones "
        "unlike the training data.",
        "- It is made to tell the voices of one conversation apart, not to identify anybody.",
        *(f"- {note}" for note in record.notes),
    ]
    return "\n".join(lines)
