"""Check artifacts against PyTorch on real audio: the whole of it, from recordings to verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from export.audio import Recording, Window, cut_windows
from export.errors import AudioError
from export.progress import Progress, silent
from export.types import (
    Artifact,
    DerScore,
    ModelSpec,
    ParityReport,
    ParitySummary,
    Recipe,
    Role,
    Verdict,
)

from .der import DerScorer, DerSettings
from .parity.decisions import decide
from .parity.examine import Examiner
from .parity.limits import limits_for
from .parity.reference import ReferenceScores, evaluate
from .parity.stress import stress_windows
from .results import Timeline
from .rttm import SpeechReference, load_reference
from .timeline import build_timeline
from .verification import Segments


@dataclass(frozen=True)
class CheckResult:
    """All that a check found.

    `reports` holds two reports an artifact, against the compressed and the float model, and
    `summaries` one verdict each, in the order of the artifacts. `reference_der` is that of
    PyTorch in float64 (None without a reference). `noise_floors` are the float model's by window
    name, the `num_speech_windows` of the audio first, then the stress windows. `notes` tell what
    a reader must know: what of the audio was converted, what no reference covers, and what runners
    tell of artifacts.
    """

    reports: tuple[ParityReport, ...]
    summaries: tuple[ParitySummary, ...]
    timelines: tuple[Timeline, ...]
    notes: tuple[str, ...]
    reference_der: DerScore | None
    noise_floors: dict[str, float]
    num_speech_windows: int
    hop_s: float

    @property
    def verdict(self) -> Verdict:
        """The worst of all artifacts."""
        return Verdict.worst([summary.verdict for summary in self.summaries])


def check(
    artifacts: Sequence[tuple[Artifact, Path]],
    *,
    spec: ModelSpec,
    reference: nn.Module,
    compressed: Callable[[Recipe], nn.Module],
    recordings: Sequence[Recording],
    rttm: Path | None = None,
    trials: Segments | None = None,
    uem: Path | None = None,
    hop_s: float | None = None,
    der_settings: DerSettings | None = None,
    limits: Mapping[str, object] | None = None,
    threads: int = 1,
    runners: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> CheckResult:
    """Run the parity ladder on every artifact (each with the path of its file).

    `reference` is the float model as trained and `compressed(recipe)` the canonical module that
    was exported, before the backend's rewrites. Windows are taken every `hop_s` seconds (half a
    window by default), and stress windows are added. `limits` changes limits by name
    (`runtime_checks.parity.limits.Limits`); `trials` are those that an embedding
    model's error rates are compared on; `threads` are the artifact's; `runners` names another
    runner for a backend's artifacts than its own.

    Raises AudioError when there is no recording, or the reference of who speaks when is empty,
    malformed or does not belong to the audio; RecipeError on a limit that does not exist. Whatever
    goes wrong with an artifact is its verdict and holds up no other.
    """
    if not recordings:
        raise AudioError("audio", found="no recordings", expected="at least one")
    if hop_s is not None and hop_s <= 0:
        raise AudioError("hop", found=f"{hop_s} s", expected="more than nothing between windows")
    for artifact, _ in artifacts:  # before anything takes time
        limits_for(artifact.recipe, artifact.recipe.tolerance, changes=limits)
    hop_s = hop_s or spec.geometry.window_s / 2
    segments = spec.role is Role.SEGMENTATION
    speech = load_reference(rttm, uem=uem, recordings=recordings) if rttm and segments else None
    windows = [w for each in recordings for w in cut_windows(each, spec.geometry, hop_s=hop_s)]
    num_speech = len(windows)
    windows += stress_windows(windows)
    scores = evaluate(reference, windows, spec=spec, stage="PyTorch", progress=progress)
    scorer, reference_der = _score_reference(
        speech, windows, scores=scores, spec=spec, settings=der_settings, rttm=rttm
    )
    examiner = Examiner(
        spec=spec,
        windows=windows,
        float_model=reference,
        float_scores=scores,
        compressed=compressed,
        der=scorer,
        changes=limits,
        threads=threads,
        progress=progress,
        cache={},
        runners=runners or {},
        trials=None if segments else trials,
    )
    examined = [examiner.examine(artifact, path) for artifact, path in artifacts]
    shown = [
        (each.summary.artifact_path, each.scores) for each in examined if each.scores is not None
    ]
    return CheckResult(
        reports=tuple(report for each in examined for report in each.reports),
        summaries=tuple(each.summary for each in examined),
        timelines=tuple(
            build_timeline(
                each, windows, reference=scores, artifacts=shown, spec=spec, speech=speech
            )
            for each in recordings
            if segments
        ),
        notes=(
            *_notes(recordings, speech, spec),
            *(note for each in examined for note in each.notes),
        ),
        reference_der=reference_der,
        noise_floors={
            window.name: floor for window, floor in zip(windows, scores.noise_floors, strict=True)
        },
        num_speech_windows=num_speech,
        hop_s=hop_s,
    )


def _score_reference(
    speech: SpeechReference | None,
    windows: Sequence[Window],
    *,
    scores: ReferenceScores,
    spec: ModelSpec,
    settings: DerSettings | None,
    rttm: Path | None,
) -> tuple[DerScorer | None, DerScore | None]:
    if speech is None:
        return None, None
    scorer = DerScorer(speech, windows, geometry=spec.geometry, settings=settings)
    der = scorer.score([decide(each, spec) for each in scores.float64])
    if der is None:
        raise AudioError(
            str(rttm),
            found="no speech where it is scored",
            expected="turns within the scored audio",
            todo="Check RTTM and UEM, or leave both out to check parity alone.",
        )
    return scorer, der


def _notes(
    recordings: Sequence[Recording], speech: SpeechReference | None, spec: ModelSpec
) -> list[str]:
    notes = [f"{each.uri}: {note}" for each in recordings for note in each.notes]
    if spec.role is Role.EMBEDDING:
        return notes
    if speech is None:
        return [*notes, "no reference (RTTM) was given: DER was not computed"]
    silent_about = [each.uri for each in recordings if not speech.covers(each.uri)]
    if silent_about:
        notes.append(
            f"the reference says nothing about {', '.join(silent_about)}: "
            "used for parity only, not for DER"
        )
    return notes
