"""The model card of a student, generated from the record of its training."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import DerScore, ModelSpec
from .config import DistilConfig
from .objective import THRESHOLD
from .record import SplitFigures, TrainingRecord, pooled_der
from .wording import labels_in_words, loss_in_words, schedule_in_words


def model_card(record: TrainingRecord, spec: ModelSpec) -> str:
    """Markdown: what the model is, its data, figures, limits and licence."""
    sections = [
        f"# {spec.name}\n\n{_summary(record, spec)}",
        f"## Data\n\n{_data(record)}",
        f"## Training\n\n{_training(record, spec)}",
        f"## Figures\n\n{_figures(record.figures)}",
        f"## Limits\n\n{_limits(record, spec)}",
        f"## Licence\n\n{_licence(record, spec)}",
    ]
    return "\n\n".join(sections) + "\n"


def _summary(record: TrainingRecord, spec: ModelSpec) -> str:
    geometry = spec.geometry
    return (
        f"Speaker segmentation of {geometry.window_s:g} s windows of {geometry.sample_rate_hz} Hz "
        f"mono audio: {len(spec.classes)} speaker probabilities in each of {geometry.num_frames} "
        f"frames. {spec.architecture}, {record.parameters:,} parameters "
        f"({record.parameters * 4 / 1e6:.2f} MB in float32), distilled from {record.teacher}. "
        "Which output is which person changes from window to window: the order of speakers is "
        "arbitrary."
    )


def _data(record: TrainingRecord) -> str:
    audio = record.audio
    lines = []
    if audio["recordings"].recordings:
        part = audio["recordings"]
        lines.append(f"- training: {_recordings(part.recordings)}, {part.audio_s:.0f} s")
    if audio["speakers"].recordings:
        part = audio["speakers"]
        lines.append(
            f"- training: conversations simulated from {part.recordings} utterances of "
            f"{part.speakers} speakers, {part.audio_s:.0f} s"
        )
    if audio["validation"].recordings:
        part = audio["validation"]
        lines.append(f"- choosing: {_recordings(part.recordings)}, {part.audio_s:.0f} s")
    lines += [f"- source: {credit}" for credit in record.credits]
    return (
        "\n".join(lines) + f"\n\n{labels_in_words(record.lineage())} Windows are "
        "spliced, mixed, talked over, played faster or slower, moved to simulated rooms, filtered, "
        "band-limited, laid over babble and noise, and scaled, all at random. The hashes of all "
        "audio are in `training.json`."
    )


def _training(record: TrainingRecord, spec: ModelSpec) -> str:
    config = record.config
    pool = f" drawn from a pool of {config.pool_windows}" if config.pool_windows else ""
    text = (
        f"{config.steps} steps of {config.batch_size} windows{pool}, AdamW, "
        f"{schedule_in_words(config)}, seed {config.seed}; {loss_in_words(config, spec)}. "
        f"{_start(config)} The "
        f"weights are a moving average; those of step {record.chosen_step} were chosen"
        + (" on the validation audio" if record.audio["validation"].recordings else "")
        + f".{_averaged(record)} Settings are in `training.json`, the course of the training in "
        "`log.csv`."
    )
    commands = [each.command for each in record.lineage() if each.command]
    if len(commands) > 1:
        text += " The commands, in their order:"
    return "\n\n".join([text, *(f"```\n{command}\n```" for command in commands)])


def _averaged(record: TrainingRecord) -> str:
    """What was done to the weights after the training."""
    text, onset = "", record.config.onset
    if record.averaged_with is not None:
        text += (
            " They are averaged with those of a second student (Wortsman et al., ICML 2022), whose "
            "record is in this one's."
        )
    if onset != THRESHOLD:
        text += f" The bias is shifted so that a score of {onset:g} became 0.5."
    return text


def _start(config: DistilConfig) -> str:
    """What the student has of its teacher."""
    if config.start_from is not None:
        return f"All weights start from those of {config.start_from}.{_rounded(config)}"
    if config.student.startswith("mfcc"):
        return (
            "The linear layers and the classifier start from the teacher's where their shapes "
            "agree. The front-end has no parameters."
        )
    recurrent = "" if config.student.endswith(("-gru", "-rnn")) else "the first recurrent layer, "
    kept = config.pool_windows and config.qat is None
    front_end = " The front-end is the teacher's and stays as it is." if kept else ""
    return (
        f"SincNet, {recurrent}the first linear layer and the classifier start from the teacher's "
        f"where their shapes agree.{front_end}{_rounded(config)}"
    )


def _rounded(config: DistilConfig) -> str:
    if config.qat is None:
        return ""
    return (
        f" Weights and activations were rounded in training as the recipe {config.qat} rounds "
        "them; their ranges are in `quantisation.json`, and the figures are those of the rounding "
        "model."
    )


def _figures(figures: Sequence[SplitFigures]) -> str:
    if not figures:
        return "None: there was no audio to measure on."
    header = (
        "| part | audio | windows | agreement with the teacher, decisions | frames | window DER | "
        "teacher's |\n|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {f.split} | {_recordings(f.recordings)}, {f.audio_s:.0f} s | {f.agreement.windows}, "
        f"hop {f.hop_s:g} s | {f.agreement.decisions_percent:.2f} % | "
        f"{f.agreement.frames_percent:.2f} % | {_der(f.student_der)} | {_der(f.teacher_der)} |"
        for f in figures
    ]
    scored = next((f.student_der for f in figures if f.student_der), None)
    rule = ""
    if scored is not None:
        overlap = "not scored" if scored.skip_overlap else "scored"
        rule = (
            f" DER is pooled over windows, each with its own best mapping of speakers; collar "
            f"{scored.collar_s:g} s, overlapped speech {overlap}."
        )
    both = pooled_der(figures) if len(figures) > 1 else None
    if both is not None:
        rule += f" All parts together: {both[0]:.2f} %, the teacher {both[1]:.2f} %."
    return (
        "\n".join([header, *rows]) + "\n\nAgreement counts decisions at a score of 0.5, under each "
        f"window's best permutation; a frame agrees when all its decisions do.{rule}"
    )


def _recordings(number: int) -> str:
    return "1 recording" if number == 1 else f"{number} recordings"


def _der(score: DerScore | None) -> str:
    return f"{score.pooled:.2f} %" if score else "no reference"


def _limits(record: TrainingRecord, spec: ModelSpec) -> str:
    measured_s = sum(f.audio_s for f in record.figures)
    lines = [
        f"- Measured on {measured_s:.0f} s of audio: an indication, not a benchmark.",
        f"- At most {len(spec.classes)} speakers in a window; more are merged or missed.",
        "- It repeats its teacher's errors, and adds its own on rooms, languages and microphones "
        "unlike the training data.",
        "- It tells speakers apart within a window and identifies nobody.",
        *(f"- {note}" for note in record.notes),
    ]
    return "\n".join(lines)


def _licence(record: TrainingRecord, spec: ModelSpec) -> str:
    return (
        f"{spec.licence} (text in `LICENSE`). The weights were started from those of "
        f"{record.teacher} ({record.teacher_licence}), whose notice is kept there."
    )
