"""`diarport check --pipeline`: a bundle's pipeline beside the one of PyTorch."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from ..progress import Progress
from ..types import Verdict
from .common import print_json, print_table, say

if TYPE_CHECKING:
    from runtime_checks.der import DerSettings
    from runtime_checks.diarize.compare import PipelineComparison

PARTS = ("hop", "segmentation", "embedding", "clustering")


def check_pipeline(
    bundle: Path,
    *,
    models: tuple[str | None, str | None],
    audio: list[Path] | None,
    rttm: Path | None,
    uem: Path | None,
    backends: list[str],
    recipes: list[str],
    settings: DerSettings,
    progress: Progress,
) -> tuple[dict[str, PipelineComparison], dict[str, float]]:
    """Compare every asked-for combination of backend and recipe; and check the goldens.

    `models` are those that the segmentation and the embedding were built from. Without a backend
    or recipe the first artifact that runs here is compared.
    """
    from runtime_checks.diarize.compare import compare_pipelines
    from runtime_checks.diarize.goldens import check_pipeline_goldens
    from runtime_checks.diarize.networks import artifact_stages, torch_stages
    from runtime_checks.parity.reference import torch_threads
    from runtime_checks.rttm import load_reference

    from ..bundle import read_bundle
    from .bundles import model_of_bundle
    from .diarizing import pair_name, pipeline_parts
    from .inputs import load_audio

    asked: tuple[list[str | None], list[str | None]] = ([*backends] or [None], [*recipes] or [None])
    chosen = [
        pipeline_parts(bundle, backend=backend, recipe=recipe)
        for backend, recipe in product(*asked)
    ]
    read = read_bundle(bundle)
    if read.content.pipeline is None:
        raise BundleError(bundle, found="no pipeline in it", expected="one that carries a pipeline")
    inner = bundle / read.content.pipeline.embedding_path
    loaded = [
        model_of_bundle(path, read_bundle(path), model)
        for path, model in zip((bundle, inner), models, strict=True)
    ]
    pytorch = torch_stages(loaded[0], loaded[1])
    recordings, rttm = load_audio(
        audio, rttm=rttm, sample_rate_hz=loaded[0].spec.geometry.sample_rate_hz
    )
    speech = load_reference(rttm, uem=uem, recordings=recordings) if rttm else None
    compared = {}
    with torch_threads(1):
        for segmentation, embedding, parameters in chosen:
            tolerances = (segmentation.artifact.recipe.tolerance,
                          embedding.artifact.recipe.tolerance)  # fmt: skip
            name = pair_name(segmentation, embedding)
            compared[name] = compare_pipelines(
                artifact_stages(segmentation, embedding),
                pytorch,
                parameters=parameters,
                tolerance=max(tolerances, key=list(type(tolerances[0])).index),
                recordings=recordings,
                speech=speech,
                settings=settings,
                progress=progress,
            )
    goldens = check_pipeline_goldens(
        bundle / read.content.pipeline.goldens_path, pytorch, parameters=chosen[0][2]
    )
    return compared, goldens


def verdict_of(compared: dict[str, PipelineComparison], goldens: dict[str, float]) -> Verdict:
    """FAIL where a pipeline decides otherwise than PyTorch, or a golden is not met."""
    verdicts = [each.verdict for each in compared.values()]
    return Verdict.FAIL if any(goldens.values()) else Verdict.worst(verdicts)


def show_pipeline(
    compared: dict[str, PipelineComparison],
    goldens: dict[str, float],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print what was found, as tables or JSON."""
    from runtime_checks.runners.base import why_untimed

    rows = [row for name, each in compared.items() for row in _der_rows(name, each)]
    untimed = {name: why_untimed(name.partition("/")[0]) for name in compared}
    times = [
        row
        for name, each in compared.items()
        if untimed[name] is None
        for row in _time_rows(name, each)
    ]
    if as_json:
        verdict = verdict_of(compared, goldens).value
        print_json(
            {"verdict": verdict, "der": rows, "latency": times, "goldens_differing": goldens}
        )
    elif not quiet:
        print_table("DER, percent, artifacts beside PyTorch", rows)
        if times:
            print_table("Milliseconds a hop, in turns in one run", times)
        for name, reason in untimed.items():
            if reason is not None:
                say(f"note: {name}: {reason}", quiet=quiet)
        wrong = [f"{name}: {count:.0f} differ" for name, count in goldens.items() if count]
        say("; ".join(wrong) or "goldens: every stage gives what it gave", quiet=quiet)


def _der_rows(name: str, compared: PipelineComparison) -> list[dict[str, Any]]:
    return [
        {
            "pipeline": name,
            "mode": mode.mode,
            "artifacts": "-" if mode.artifact_der is None else mode.artifact_der,
            "PyTorch": "-" if mode.pytorch_der is None else mode.pytorch_der,
            "between": mode.between_der,
            "limit": mode.limit,
            "speakers": ", ".join(f"{a}/{p}" for a, p in mode.speakers.values()),
            "verdict": mode.verdict.value,
        }
        for mode in compared.modes
    ]


def _time_rows(name: str, compared: PipelineComparison) -> list[dict[str, Any]]:
    rows = []
    for part in PARTS:
        mine = [compared.artifact.percentile(part, p) for p in (50, 95)]
        theirs = [compared.pytorch.percentile(part, p) for p in (50, 95)]
        rows.append(
            {
                "pipeline": name,
                "part": part,
                "p50": mine[0],
                "p95": mine[1],
                "PyTorch p50": theirs[0],
                "PyTorch p95": theirs[1],
                "p50 ratio": mine[0] / theirs[0] if theirs[0] else 0.0,
            }
        )
    return rows
