"""`diarport bench` on a real bundle. No test asserts a time."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from export.backends.base import select_recipes
from export.bundle import hash_path, size_of, write_manifest
from export.checkpoint import LoadedModel
from export.cli.app import app
from export.errors import (
    BackendUnavailableError,
    BundleError,
    CheckpointError,
    ExportError,
    RecipeError,
)
from export.pipeline import Exporter, created_by
from export.types import Artifact, BenchRecord, BundleContent, LatencyReport

ONNX, COREML = "segmentation.fp32.onnx", "segmentation.fp32.mlpackage"
ONE_PROCESS = ["--runs", "6", "--warmup", "1", "--repeats", "1"]
QUICK = [*ONE_PROCESS[:-1], "2"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, zoo_model: LoadedModel) -> Path:
    """The zoo model as ONNX that runs, and as a Core ML package that no runtime here can open."""
    folder = tmp_path_factory.mktemp("bench") / "bundle"
    folder.mkdir()
    (recipe,) = select_recipes(["onnx_ort"], ["fp32"])
    artifact = Exporter(zoo_model).export(recipe, folder)
    package = folder / COREML
    package.mkdir()
    (package / "Manifest.json").write_text("{}")
    other = artifact.model_copy(
        update={
            "path": COREML,
            "sha256": hash_path(package),
            "size_bytes": size_of(package),
            "recipe": recipe.model_copy(update={"backend": "coreml_mlprogram"}),
        }
    )
    write(folder, zoo_model, (artifact, other))
    return folder


def write(folder: Path, model: LoadedModel, artifacts: tuple[Artifact, ...]) -> None:
    content = BundleContent(
        spec=model.spec,
        model_source=model.source,
        checkpoint_sha256=model.sha256,
        artifacts=artifacts,
        goldens=(),
        files=(),
        parity=(),
        created_by=created_by(),
    )
    write_manifest(folder, content, evidence=())


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["bench", *(str(each) for each in arguments)])


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac runs Core ML")
def test_times_what_runs_and_tells_what_does_not(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    result = run(bundle, "--json", "--out", out, "--threads", "1", "--threads", "1", *QUICK)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    written = json.loads(out.read_text())
    assert data == written | {"statistics": data["statistics"], "comparison": None}
    assert [(r["candidate"], r["threads"]) for r in data["reports"]] == [
        ("pytorch-eager", 1),
        (ONNX, 1),
    ]
    (reason,) = data["not_run"].values()
    assert list(data["not_run"]) == [f"sinc-1bi, 5 s: {COREML}"] and "macOS" in reason
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert data["models"] == {"sinc-1bi": manifest["content_sha256"]}
    for report in data["reports"]:
        assert len(report["samples_ms"]) == 6 and report["processes"] == [3, 3]
        assert report["failures"] == []
        assert (report["model"], report["window_s"]) == ("sinc-1bi", 5.0)
        assert min(report["samples_ms"]) > 0 and report["load_ms"] > 0 and report["first_ms"] > 0
        assert (report["warmup_runs"], report["hop_s"]) == (1, 0.5)
    eager, onnx = data["reports"]
    assert eager["artifact_sha256"] is None
    assert onnx["artifact_sha256"] == manifest["content"]["artifacts"][0]["sha256"]
    # ONNX Runtime's process loads no PyTorch, which alone takes over a hundred megabytes.
    assert eager["peak_rss_bytes"] - onnx["peak_rss_bytes"] > 100e6
    first, second = data["statistics"]
    assert first["ratio_to_eager"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert second["ratio_to_eager"]["value"] == pytest.approx(
        second["summary"]["all"]["p50_ms"] / first["summary"]["all"]["p50_ms"]
    )


def test_a_broken_artifact_is_an_error_after_the_others_were_timed(
    bundle: Path, tmp_path: Path, zoo_model: LoadedModel
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    file = folder / ONNX
    file.write_bytes(file.read_bytes()[:1000])
    manifest = json.loads((bundle / "bundle.json").read_text())
    artifact = Artifact.model_validate(manifest["content"]["artifacts"][0])
    shutil.rmtree(folder / COREML)
    write(folder, zoo_model, (artifact.model_copy(update={"sha256": hash_path(file)}),))
    result = run(folder, "--model", "sinc-1bi", *ONE_PROCESS)
    assert isinstance(result.exception, BundleError) and result.exception.exit_code == 2
    assert f"{ONNX} with 1 threads: load: BundleError" in str(result.exception)
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    rows = {line[0]: line[1:] for line in lines if line[0] in {"pytorch-eager", ONNX}}
    assert "(1.00-1.00)" in rows["pytorch-eager"]
    assert len(rows[ONNX]) == 1  # its memory; it has no times


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--out", "missing/times.json"], ExportError, "its folder does not exist"),
        (["--recipe", "int4"], RecipeError, "no artifact of int4"),
        (["--audio", "missing.wav"], ExportError, "missing.wav"),
        (["--model", "missing.bin"], ExportError, "missing.bin"),
        (["--html", "missing/times.html"], ExportError, "its folder does not exist"),
        (["--peer", "tensorrt"], RecipeError, "pytorch-compile or executorch-stock"),
        (["--repeats", "101"], RecipeError, "at least a run a process"),
        (["--window-s", "2"], ExportError, "whose artifacts have windows already"),
        (["--against", "missing.json"], BundleError, "cannot be read"),
        (["--against", "pyproject.toml"], BundleError, "not a run of diarport bench"),
        (["sinc-0bi"], CheckpointError, "no such file or zoo model"),
    ],
)
def test_bad_input_is_told_before_anything_is_timed(
    bundle: Path, arguments: list[str], error: type[ExportError], message: str
) -> None:
    result = run(bundle, *arguments)
    assert isinstance(result.exception, error) and result.exception.exit_code == 2
    assert message in str(result.exception)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac runs Core ML")
def test_a_backend_asked_for_by_name_must_run(bundle: Path) -> None:
    result = run(bundle, "--backend", "coreml_mlprogram")
    assert isinstance(result.exception, BackendUnavailableError)
    assert result.exception.exit_code == 3


def test_help_tells_the_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "diarport bench bundles/sinc-1bi" in result.stdout


def test_models_are_exported_timed_with_each_window_and_compared_with_an_older_run(
    tmp_path: Path,
) -> None:
    out, html, past = (tmp_path / name for name in ("now.json", "now.html", "past.json"))
    past.write_text(older_run(window_s=1.0, ratio=0.001).to_json())
    windows = ["--window-s", "0.5", "--window-s", "1"]
    files: list[str | Path] = ["--out", out, "--html", html, "--against", past]
    result = run("mfcc80-1uni", "-b", "onnx_ort", *windows, *files, *ONE_PROCESS)
    assert result.exit_code == 1, result.output
    data = json.loads(out.read_text())
    assert [(r["window_s"], r["candidate"]) for r in data["reports"]] == [
        (window_s, candidate) for window_s in (0.5, 1.0) for candidate in ("pytorch-eager", ONNX)
    ]
    assert all(len(r["samples_ms"]) == 6 and not r["failures"] for r in data["reports"])
    page = html.read_text()
    assert "Growth with the window" in page and page.count('class="slower"') == 1
    assert '<tr data-subject="mfcc80-1uni, 0.5 s, 1 thread">' in page
    assert "slower" in result.stdout


def older_run(*, window_s: float, ratio: float) -> BenchRecord:
    """A run in which ONNX Runtime took so much of eager's time."""

    def report(candidate: str, ms: float) -> LatencyReport:
        return LatencyReport(
            candidate=candidate,
            model="mfcc80-1uni",
            window_s=window_s,
            artifact_sha256=None,
            device="another",
            threads=1,
            warmup_runs=1,
            hop_s=0.5,
            samples_ms=(ms,) * 6,
            processes=(2, 2, 2),
            load_ms=1.0,
            first_ms=1.0,
            peak_rss_bytes=0,
            thermal="unknown",
            failures=(),
        )

    reports = (report("pytorch-eager", 1.0), report(ONNX, ratio))
    return BenchRecord(seed=0, models={"mfcc80-1uni": None}, reports=reports, not_run={}, notes=())
