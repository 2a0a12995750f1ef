"""Sizes and score differences of the Core ML recipes: the table of docs/coreml.md.

    python benchmarks/coreml_recipes.py sinc-1bi pytorch_model.bin

Packages are built, and evaluated on the sample recording inside pyannote.audio (or on `--audio`,
with `--rttm` for the error rate) and the ladder's stress windows: no Mac is needed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import load_model, with_window
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import Artifact, ParityReport, Verdict
from runtime_checks.check import check
from runtime_checks.parity.reference import torch_threads

BACKEND = "coreml_mlprogram"
METRICS = ("max_abs", "largest_max_abs", "mean_abs", "decision_flips", "delta_der")
NAMES = ("all off by", "at most", "mean", "flips %", "delta DER")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the Core ML recipes of some models.")
    parser.add_argument("models", nargs="*", default=["sinc-1bi"])
    parser.add_argument("--recipe", action="append", default=None)
    parser.add_argument("--window-s", type=float, default=None)
    parser.add_argument("--audio", type=Path, nargs="+", default=[sample_recording()[0]])
    parser.add_argument("--rttm", type=Path, default=None)
    arguments = parser.parse_args()
    len(BACKENDS)  # recipes are registered by their backends
    of_backend = [r.name for r in RECIPES.values() if r.backend == BACKEND]
    with torch_threads(1):
        for name in arguments.models:
            exporter = Exporter(with_window(load_model(name), arguments.window_s))
            compare(
                exporter,
                arguments.recipe or of_backend,
                audio=arguments.audio,
                rttm=arguments.rttm,
            )


def compare(
    exporter: Exporter, recipes: Sequence[str], *, audio: Sequence[Path], rttm: Path | None
) -> None:
    """Print one table: a row a recipe, the first of which sizes are compared with."""
    spec = exporter.model.spec
    rate = spec.geometry.sample_rate_hz
    recordings = [load_recording(path, sample_rate_hz=rate) for path in audio]
    print(f"\n{spec.name}, windows of {spec.geometry.window_s:g} s\n")  # noqa: T201
    print(f"| recipe | MB | of fp32 | export off by | {' | '.join(NAMES)} | fails on |")  # noqa: T201
    print("|---" * (len(NAMES) + 5) + "|")  # noqa: T201
    largest = 0
    for recipe in recipes:
        with tempfile.TemporaryDirectory() as folder:
            artifact = exporter.export(RECIPES[f"{BACKEND}/{recipe}"], Path(folder))
            result = check(
                [(artifact, Path(folder) / artifact.path)],
                spec=spec,
                reference=exporter.model.module,
                compressed=exporter.compressed,
                recordings=recordings,
                rttm=rttm,
            )
        largest = largest or artifact.size_bytes
        print(row(artifact, result.reports, largest=largest), flush=True)  # noqa: T201


def row(artifact: Artifact, reports: Sequence[ParityReport], *, largest: int) -> str:
    """One line of the table."""
    found = {
        (report.against, metric.name): metric.value
        for report in reports
        for rung in report.rungs
        for metric in rung.metrics
    }
    cells = [
        artifact.recipe.name,
        f"{artifact.size_bytes / 1e6:.3f}",
        f"{artifact.size_bytes / largest:.3f}",
        f"{found['compressed', METRICS[0]]:.1e}",
        *(f"{found.get(('float', name), math.nan):.2g}" for name in METRICS),
        ", ".join(failed(reports)) or "PASS",
    ]
    return f"| {' | '.join(cells)} |"


def failed(reports: Sequence[ParityReport]) -> list[str]:
    """Rungs that failed, with what against."""
    return [
        f"{rung.name} ({report.against})"
        for report in reports
        for rung in report.rungs
        if rung.verdict is Verdict.FAIL
    ]


if __name__ == "__main__":
    main()
