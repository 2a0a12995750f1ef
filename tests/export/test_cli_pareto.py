"""`diarport pareto` on real bundles, and on what cannot be compared. No test asserts a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.backends.base import select_recipes
from export.bundle import read_bundle, write_manifest
from export.checkpoint import LoadedModel, with_window
from export.cli.app import app
from export.errors import AudioError, BundleError, CheckpointError, ExportError, RecipeError
from export.pipeline import Exporter, created_by
from export.pyannote_import import sample_recording
from export.types import BundleContent, ParitySummary, Verdict
from runtime_checks.pareto import ParetoRecord

QUICK = ["--runs", "2", "--quiet"]


def write(folder: Path, model: LoadedModel, recipes: list[str]) -> Path:
    folder.mkdir(parents=True)
    exporter = Exporter(model)
    artifacts = tuple(
        exporter.export(recipe, folder) for recipe in select_recipes(["onnx_ort"], recipes)
    )
    content = BundleContent(
        spec=model.spec,
        model_source=model.source,
        checkpoint_sha256=model.sha256,
        artifacts=artifacts,
        goldens=(),
        files=(),
        parity=tuple(
            ParitySummary(artifact_path=each.path, verdict=Verdict.PASS, reason=None)
            for each in artifacts
        ),
        created_by=created_by(),
    )
    write_manifest(folder, content, evidence=())
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, zoo_model: LoadedModel) -> Path:
    """The zoo model as ONNX in two recipes."""
    return write(tmp_path_factory.mktemp("pareto") / "sinc-1bi", zoo_model, ["fp32", "fp16"])


def call(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["pareto", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_folder_of_bundles_becomes_a_page_a_table_and_a_record(
    bundle: Path, tmp_path: Path
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "table.md"
    found = call(
        *(bundle.parent, "--out", page, "--markdown", table, "--runs", "2", "--json"),
        *("--baseline", "sinc-1bi", "--hop-s", "5"),
    )
    record = ParetoRecord.model_validate(json.loads(found))
    half, full = sorted(record.points, key=lambda point: point.size_bytes)
    assert (half.recipe, full.recipe) == ("fp16", "fp32")
    assert all(point.verdict is Verdict.PASS and point.time for point in record.points)
    # fp32 decides as PyTorch does, so its error is the baseline's, here the model itself.
    assert full.der is not None and record.baseline_der is not None
    assert full.der.pooled == pytest.approx(record.baseline_der.pooled, abs=0.05)
    assert half.der is not None and half.non_dominated  # nothing is as small
    assert record.recordings == ("sample",) and record.window_s == 5 and record.hop_s == 5
    assert page.read_text().count('class="mark') == 2
    assert f"{full.der.pooled:.2f} %" in table.read_text()


def test_recipes_can_be_chosen(bundle: Path) -> None:
    with pytest.raises(RecipeError, match=r"no artifact of executorch_xnnpack"):
        call(bundle, "--backend", "executorch_xnnpack", *QUICK)


def test_audio_without_a_reference_has_no_error_rate(bundle: Path) -> None:
    with pytest.raises(AudioError, match=r"audio without a reference.*--rttm"):
        call(bundle, "--audio", sample_recording()[0], *QUICK)


def test_one_artifact_in_two_bundles_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy"
    shutil.copytree(bundle, other)
    with pytest.raises(BundleError, match=r"sinc-1bi, onnx_ort, fp32 is in .* too"):
        call(bundle, other, *QUICK)


def test_windows_of_other_lengths_are_refused(
    bundle: Path, zoo_model: LoadedModel, tmp_path: Path
) -> None:
    shorter = with_window(zoo_model, 2.0)
    renamed = LoadedModel(
        **{**vars(shorter), "spec": shorter.spec.model_copy(update={"name": "short"})}
    )
    other = write(tmp_path / "short", renamed, ["fp32"])
    with pytest.raises(BundleError, match=r"short: windows of 2 s; expected 5 s, as sinc-1bi"):
        call(bundle, other, *QUICK)


def test_a_changed_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "changed"
    shutil.copytree(bundle, other)
    artifact = other / read_bundle(other).content.artifacts[0].path
    artifact.write_bytes(artifact.read_bytes()[:-1])
    with pytest.raises(BundleError, match="hash"):
        call(other, *QUICK)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["nowhere"], CheckpointError, "no such file or zoo model"),
        (["sinc-1bi", "--baseline", "nothing"], CheckpointError, "no such file or zoo model"),
        (["sinc-1bi", "--out", "no/such/page.html"], ExportError, "folder does not exist"),
        (["sinc-1bi", "--rttm", "turns.rttm"], AudioError, "a reference without audio"),
    ],
)
def test_bad_input_is_told(arguments: list[str], error: type[ExportError], message: str) -> None:
    with pytest.raises(error, match=message):
        call(*arguments, *QUICK)
