"""What `diarport pareto` does: find or build bundles, measure all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..audio import Recording, cut_windows
from ..bundle import verify_bundle
from ..bundle_place import MANIFEST
from ..checkpoint import LoadedModel
from ..errors import AudioError, BundleError, RecipeError
from ..progress import Progress
from ..types import DerScore, FrameGeometry, LatencyReport, ModelSpec, Role, Verdict
from .inputs import audio_notes, load_audio
from .subjects import load_for_timing

if TYPE_CHECKING:
    from runtime_checks.der import DerScorer, DerSettings
    from runtime_checks.pareto import Contestant, ParetoRecord
    from runtime_checks.rttm import SpeechReference

    from ..audio import Window

# The architecture of pyannote/segmentation, which the field's papers start from.
BASELINE = "sinc-4bi-2lin"
SEED = 0


@dataclass(frozen=True)
class ParetoRequest:
    """The command's options; see its help."""

    sources: list[str]
    bundles: Path
    baseline: str
    audio: list[Path]
    rttm: Path | None
    uem: Path | None
    backends: list[str]
    recipes: list[str]
    hop_s: float | None
    der_settings: DerSettings
    threads: int
    runs: int


def run_pareto(request: ParetoRequest, progress: Progress) -> ParetoRecord:
    """Check all input, build what is not built yet, then measure every artifact.

    Errors are measured on the same windows, times in one interleaved run.
    """
    from runtime_checks.parity.reference import torch_threads
    from runtime_checks.rttm import load_reference

    if request.audio and request.rttm is None:
        raise AudioError(
            request.audio[0],
            found="audio without a reference",
            expected="who speaks when in it: models compare by DER",
            todo="Give it by --rttm, or leave --audio out to use the sample recording.",
        )
    baseline = load_for_timing(request.baseline, None)
    rate_hz = baseline.spec.geometry.sample_rate_hz
    recordings, rttm = load_audio(request.audio, rttm=request.rttm, sample_rate_hz=rate_hz)
    assert rttm is not None  # noqa: S101 - either given or the sample recording's
    speech = load_reference(rttm, uem=request.uem, recordings=recordings)
    with torch_threads(1):
        contestants = find_contestants(request, progress)
        geometry = _one_window([*(each.spec for each in contestants), baseline.spec])
        if baseline.spec.geometry.window_samples != geometry.window_samples:
            baseline = load_for_timing(request.baseline, geometry.window_s)
        return _measure(request, contestants, baseline, recordings, speech, progress)


def _measure(
    request: ParetoRequest,
    contestants: Sequence[Contestant],
    baseline: LoadedModel,
    recordings: Sequence[Recording],
    speech: SpeechReference,
    progress: Progress,
) -> ParetoRecord:
    from runtime_checks.der import DerScorer
    from runtime_checks.pareto import (
        ParetoRecord,
        error_rate,
        make_point,
        mark_non_dominated,
        measure_times,
    )
    from runtime_checks.timing.contenders import OpenEager, candidate
    from runtime_checks.timing.peers import module_of

    geometry = contestants[0].spec.geometry
    hop_s = request.hop_s or geometry.window_s / 2
    windows = [w for r in recordings for w in cut_windows(r, geometry, hop_s=hop_s)]
    scorer = DerScorer(speech, windows, geometry=geometry, settings=request.der_settings)
    errors = [error_rate(each, windows, scorer, progress=progress) for each in contestants]
    load = partial(load_for_timing, request.baseline, geometry.window_s)
    eager = OpenEager(partial(module_of, load), baseline.spec)
    reference, times = measure_times(
        contestants,
        candidate(f"baseline {baseline.spec.name}", eager, spec=baseline.spec),
        recordings,
        runs=request.runs,
        threads=request.threads,
        seed=SEED,
        progress=progress,
    )
    _raise_without_samples(reference)
    points = [
        make_point(contestant, error, time, baseline=reference)
        for contestant, error, time in zip(contestants, errors, times, strict=True)
    ]
    return ParetoRecord(
        baseline=baseline.spec.name,
        baseline_der=_baseline_der(baseline, windows, scorer),
        device=reference.device,
        threads=request.threads,
        runs=request.runs,
        window_s=geometry.window_s,
        hop_s=hop_s,
        recordings=tuple(recording.uri for recording in recordings),
        audio_s=round(sum(recording.duration_s for recording in recordings), 3),
        points=mark_non_dominated(points),
        notes=tuple(audio_notes(recordings)),
    )


def find_contestants(request: ParetoRequest, progress: Progress) -> list[Contestant]:
    """Artifacts of the bundles that the sources name, hold, or give when they are built.

    Raises BundleError on a bundle that was changed, on two of one name and on none at all,
    RecipeError when the backends and recipes asked for are in none.
    """
    from runtime_checks.pareto import Contestant

    from ..checkpoint import zoo_names

    folders: list[Path] = []
    for source in request.sources or zoo_names(Role.SEGMENTATION):
        folders += bundles_in(Path(source)) or [_built(source, request, progress)]
    found: list[Contestant] = []
    for folder in dict.fromkeys(folder.absolute() for folder in folders):
        read = verify_bundle(folder)
        verdicts = {each.artifact_path: each for each in read.content.parity}
        for artifact in read.content.artifacts:
            recipe, parity = artifact.recipe, verdicts.get(artifact.path)
            if artifact.stream is not None:  # it takes hops: no time or size of another form
                continue
            if (request.backends and recipe.backend not in request.backends) or (
                request.recipes and recipe.name not in request.recipes
            ):
                continue
            found.append(
                Contestant(
                    spec=read.content.spec,
                    artifact=artifact,
                    path=folder / artifact.path,
                    verdict=parity.verdict if parity else Verdict.NOT_RUN,
                    reason=parity.reason if parity else "the bundle says nothing about it",
                )
            )
    _raise_unless_comparable(found, request)
    return found


def bundles_in(path: Path) -> list[Path]:
    """The bundle at a path, or those in the folder; none when the path is something else."""
    if (path / MANIFEST).is_file():
        return [path]
    if not path.is_dir():
        return []
    return sorted(
        sub for sub in path.iterdir() if (sub / MANIFEST).is_file() and not sub.name.startswith(".")
    )


def _built(source: str, request: ParetoRequest, progress: Progress) -> Path:
    """Build a model's bundle as `diarport build` does, with every recipe unless some are named."""
    from ..backends.base import BACKENDS, RECIPES
    from ..checkpoint import load_model
    from .building import BuildRequest, run_build

    len(BACKENDS)  # recipes are registered by their backends
    of_backends = [r for r in RECIPES.values() if r.backend in (request.backends or BACKENDS)]
    recipes = request.recipes or sorted({recipe.name for recipe in of_backends})
    out = request.bundles / load_model(source).spec.name
    build = BuildRequest(
        model=source,
        out=out,
        audio=request.audio,
        rttm=request.rttm,
        uem=request.uem,
        backends=request.backends,
        recipes=recipes,
        window_s=None,
        hop_s=request.hop_s,
        dynamic_length=False,
        allow=[],
        limits={},
        der_settings=request.der_settings,
        runs=0,
    )

    def named(stage: str, done: int, total: int) -> None:
        progress(f"{source}: {stage}", done, total)

    return run_build(build, named).folder


def _raise_unless_comparable(found: Sequence[Contestant], request: ParetoRequest) -> None:
    if not found:
        asked = [*request.backends, *request.recipes]
        raise RecipeError(
            ", ".join(request.sources) or "zoo",
            found=f"no artifact of {', '.join(asked)}" if asked else "no artifact",
            expected="at least one to compare",
        )
    keys = [contestant.key for contestant in found]
    twice = [index for index, key in enumerate(keys) if key in keys[:index]]
    if twice:
        first, second = keys.index(keys[twice[0]]), twice[0]
        raise BundleError(
            found[second].path.parent,
            found=f"{', '.join(keys[second])} is in {found[first].path.parent} too",
            expected="each artifact once",
            todo="Name one of the two bundles, or build one under another model name.",
        )


def _one_window(specs: Sequence[ModelSpec]) -> FrameGeometry:
    """The windows that all models take: errors and times of others do not compare.

    The last one is the baseline: its window follows the others'.
    """
    *others, baseline = specs
    first = others[0]
    for other in others[1:]:
        if other.geometry.window_samples != first.geometry.window_samples:
            raise BundleError(
                other.name,
                found=f"windows of {other.geometry.window_s:g} s",
                expected=f"{first.geometry.window_s:g} s, as {first.name}",
                todo="Build both with the same --window-s.",
            )
    for other in (*others, baseline):
        if other.geometry.sample_rate_hz != first.geometry.sample_rate_hz:
            raise BundleError(
                other.name,
                found=f"audio of {other.geometry.sample_rate_hz} Hz",
                expected=f"{first.geometry.sample_rate_hz} Hz, as {first.name}",
                todo="All models are measured on the same audio: compare those of one rate.",
            )
    return first.geometry


def _baseline_der(
    baseline: LoadedModel, windows: Sequence[Window], scorer: DerScorer
) -> DerScore | None:
    from runtime_checks.parity.decisions import decide
    from runtime_checks.parity.reference import evaluate

    if not baseline.sha256:
        return None
    scores = evaluate(baseline.module, windows, spec=baseline.spec)
    return scorer.score([decide(each, baseline.spec) for each in scores.float64])


def _raise_without_samples(report: LatencyReport) -> None:
    if not report.samples_ms:
        raise BundleError(
            report.candidate,
            found=f"cannot be timed ({'; '.join(report.failures)})",
            expected="the time that all others are compared with",
        )
