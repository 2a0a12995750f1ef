"""What `diarport build` does, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..budget import check_budgets
from ..bundle import write_goldens, write_manifest
from ..bundle_place import BundleWriter
from ..checkpoint import load_model, with_window
from ..compress.layers import layers_in_float
from ..pipeline import Exporter, Plan, created_by, plan
from ..progress import Progress
from ..types import (
    Artifact,
    Bundle,
    BundleContent,
    Verdict,
)
from .calibrating import (
    CalibrationRequest,
    calibration_notes,
    load_calibration,
    write_calibration,
)
from .evidence import EVIDENCE, Measured, write_evidence
from .guarding import fp32_partners
from .inputs import load_audio, load_trials
from .pipelining import add_pipeline
from .texts import portable_name, write_texts

if TYPE_CHECKING:
    from runtime_checks.check import CheckResult
    from runtime_checks.der import DerSettings

    from ..audio import Recording


@dataclass(frozen=True)
class BuildRequest:
    """The command's options; see its help. Of recipes that are only `implied`, those that the model
    refuses are left out."""

    model: str
    out: Path | None
    audio: list[Path]
    rttm: Path | None
    uem: Path | None
    backends: list[str]
    recipes: list[str]
    window_s: float | None
    hop_s: float | None
    dynamic_length: bool
    allow: list[str]
    limits: Mapping[str, object]
    der_settings: DerSettings
    runs: int
    lengths_s: tuple[float, ...] = ()
    streaming_hop_s: float | None = None
    trials: Path | None = None
    skip: tuple[str, ...] = ()
    embedding: str | None = None
    implied: bool = False
    parameters: Path | None = None
    calibration: CalibrationRequest = field(default_factory=CalibrationRequest)


@dataclass(frozen=True)
class BuildResult:
    """A written bundle (`folder` is OUT, or OUT.failed) and what was found on the way."""

    folder: Path
    bundle: Bundle
    measured: Measured
    left_out: tuple[str, ...]
    verdict: Verdict


def run_build(request: BuildRequest, progress: Progress) -> BuildResult:
    """Load and check all input first, then export, check, time, report and write.

    A failing bundle is written beside the target, which is then left as it was.
    """
    from runtime_checks.parity.reference import torch_threads

    with torch_threads(1):  # the same rounding every time, and no waiting for a second thread
        return _build(request, progress)


def _build(request: BuildRequest, progress: Progress) -> BuildResult:
    from runtime_checks.parity.goldens import make_goldens

    model = with_window(load_model(request.model), request.window_s)
    planned = plan(
        model,
        implied=request.implied,
        backends=request.backends,
        recipes=request.recipes,
        dynamic_length=request.dynamic_length,
        lengths_s=request.lengths_s,
        streaming_hop_s=request.streaming_hop_s,
        allow=request.allow,
        skip=request.skip,
    )
    calibration = load_calibration(
        request.calibration, planned.recipes, geometry=model.spec.geometry
    )
    recordings, rttm = load_audio(
        request.audio, rttm=request.rttm, sample_rate_hz=model.spec.geometry.sample_rate_hz
    )
    out = request.out or Path("bundles") / model.spec.name
    exporter = Exporter(model, calibration=calibration)
    for recipe in planned.recipes:  # before anything takes time
        layers_in_float(recipe, exporter.canonical)
    with BundleWriter(out) as writer:
        folder = writer.folder
        artifacts = _export(exporter, planned, folder, progress)
        goldens = make_goldens(model.module, model.spec, recordings)
        checked = _check(exporter, artifacts, folder, recordings, rttm, request, progress)
        measured = _measure(exporter, artifacts, checked, folder, recordings, request, progress)
        pipeline = add_pipeline(request, folder, model, recordings, progress)
        content = BundleContent(
            spec=model.spec,
            model_source=portable_name(model),
            checkpoint_sha256=model.sha256,
            artifacts=artifacts,
            goldens=write_goldens(folder, goldens),
            files=(
                *write_texts(folder, model),
                *write_calibration(exporter, folder),
                *(pipeline.files if pipeline else ()),
            ),
            parity=checked.summaries,
            created_by=created_by(),
            pipeline=pipeline.content if pipeline else None,
        )
        left_out = tuple(f"{r.backend}/{r.name} was left out: {why}" for r, why in planned.left_out)
        said = calibration_notes(exporter, given=bool(request.calibration.audio))
        notes = (*said, *left_out, *_weights_left(artifacts))
        write_evidence(folder, content, measured, notes=notes)
        inner = [pipeline.content.embedding_path] if pipeline else []
        bundle = write_manifest(folder, content, evidence=[*EVIDENCE, *inner])
        verdict = Verdict.FAIL if pipeline and pipeline.failed else measured.verdict
        failed = verdict is Verdict.FAIL
        target = out.with_name(f"{out.name}.failed") if failed else out
        writer.commit(target)
    return BuildResult(target, bundle, measured, left_out, verdict)


def _export(
    exporter: Exporter, planned: Plan, folder: Path, progress: Progress
) -> tuple[Artifact, ...]:
    artifacts = []
    for index, recipe in enumerate(planned.recipes):
        progress("exporting", index, len(planned.recipes))
        artifacts.append(exporter.export(recipe, folder))
    progress("exporting", len(artifacts), len(artifacts))
    check_budgets(artifacts)
    return tuple(artifacts)


def _check(
    exporter: Exporter,
    artifacts: tuple[Artifact, ...],
    folder: Path,
    recordings: list[Recording],
    rttm: Path | None,
    request: BuildRequest,
    progress: Progress,
) -> CheckResult:
    from runtime_checks.check import check

    return check(
        [(artifact, folder / artifact.path) for artifact in artifacts],
        spec=exporter.model.spec,
        reference=exporter.model.module,
        compressed=exporter.compressed,
        recordings=recordings,
        rttm=rttm,
        trials=load_trials(request.trials, exporter.model.spec),
        uem=request.uem,
        hop_s=request.hop_s,
        der_settings=request.der_settings,
        limits=request.limits,
        progress=progress,
    )


def _measure(
    exporter: Exporter,
    artifacts: tuple[Artifact, ...],
    checked: CheckResult,
    folder: Path,
    recordings: list[Recording],
    request: BuildRequest,
    progress: Progress,
) -> Measured:
    """Times of the artifacts and of fp32 beside them, which need not be in the bundle."""
    from runtime_checks.guard_rails import compare_all
    from runtime_checks.timing.contenders import time_artifacts
    from runtime_checks.timing.profiles import profile_artifacts

    files = [(artifact, folder / artifact.path) for artifact in artifacts]
    with TemporaryDirectory(prefix="diarport-") as scratch:
        partners = fp32_partners(exporter, artifacts, folder, scratch=Path(scratch))
        others = [(made, path) for made, path in partners.values() if made not in artifacts]
        latencies = time_artifacts(
            [*files, *others],
            model=exporter.model,
            recordings=recordings,
            runs=request.runs,
            progress=progress,
        )
    profiles = profile_artifacts(
        files,
        spec=exporter.model.spec,
        recordings=recordings,
        runs=request.runs,
        progress=progress,
    )
    fp32 = {key: made for key, (made, _) in partners.items()}
    return Measured(checked, latencies, profiles, compare_all(artifacts, fp32, latencies=latencies))


def _weights_left(artifacts: tuple[Artifact, ...]) -> tuple[str, ...]:
    """What each artifact should have stored smaller, and was allowed not to."""
    return tuple(
        f"{artifact.path}: {', '.join(left)} were left as they were ({sum(left.values())} values)"
        for artifact in artifacts
        if (left := artifact.graph_stats.not_smaller)
    )
