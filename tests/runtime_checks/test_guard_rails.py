"""Smaller artifacts beside fp32, with controlled timings: none of these tests reads a clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from export.backends.base import BACKENDS, RECIPES
from export.bundle import read_bundle
from export.cli.app import app
from export.errors import RecipeError
from export.types import Artifact, FloatComparison, GraphStats, GuardRecord, LatencyReport, Recipe
from runtime_checks.guard_rails import FEWEST_RUNS, broken_promises, compare_with_float
from runtime_checks.timing import contenders

len(BACKENDS)  # recipes are registered by their backends
FP32, FP16 = RECIPES["onnx_ort/fp32"], RECIPES["onnx_ort/fp16"]
PROMISES = {"promises": {"size": 0.5, "time": 1.0}}


def artifact(recipe: Recipe, size_bytes: int, options: dict[str, Any] | None = None) -> Artifact:
    return Artifact(
        path=f"segmentation.{recipe.name}.onnx",
        sha256=f"{size_bytes:064x}",
        size_bytes=size_bytes,
        recipe=recipe.model_copy(update={"options": options or {}}),
        rewrites=(),
        dynamic_length=False,
        tool_versions={},
        graph_stats=GraphStats(operators={}, delegates=0, weight_bytes=size_bytes),
    )


def timed(of: Artifact, samples_ms: Any) -> LatencyReport:
    samples = tuple(float(each) for each in samples_ms)
    return LatencyReport(
        candidate=of.path,
        artifact_sha256=of.sha256,
        device="a machine",
        threads=1,
        warmup_runs=0,
        hop_s=0.5,
        samples_ms=samples,
        processes=(len(samples),),
        load_ms=1,
        first_ms=1,
        peak_rss_bytes=1,
        thermal="unknown",
        failures=(),
    )


def compare(
    share: float = 0.6,
    *,
    size: int = 400_000,
    options: dict[str, Any] = PROMISES,
    runs: int = 50,
    scatter: float = 0.01,
) -> FloatComparison:
    """fp16 whose every run takes `share` of fp32's, give or take the scatter."""
    small, whole = artifact(FP16, size, options), artifact(FP32, 1_000_000)
    noise = np.random.default_rng(0).normal(1, scatter, (2, runs))
    latencies = [timed(whole, 4 * noise[0]), timed(small, 4 * share * noise[1])]
    return compare_with_float(small, whole, latencies=latencies)


def test_a_promise_that_is_kept_finds_nothing() -> None:
    found = compare()
    assert found.findings == {} and found.broken == ()
    assert found.size_ratio == pytest.approx(0.4)
    assert found.time is not None and found.untimed is None
    assert found.time.value == pytest.approx(0.6, rel=0.02)
    assert found.time.low <= found.time.value <= found.time.high
    assert broken_promises([found]) == {}


def test_slower_and_larger_than_promised_are_broken_and_said_by_name() -> None:
    found = compare(1.2, size=600_000)
    assert found.broken == ("larger", "slower")
    sentences = broken_promises([found])["segmentation.fp16.onnx"]
    assert "larger than promised: 600000 bytes, 0.600 of fp32's 1000000" in sentences[0]
    assert sentences[0].endswith("promised is 0.5. Allow it by --allow larger")
    assert sentences[1].startswith("slower than promised: 1.2")
    assert sentences[1].endswith("--allow slower")


@pytest.mark.parametrize("name", ["larger", "slower"])
def test_what_is_allowed_by_name_stays_a_finding_and_breaks_nothing(name: str) -> None:
    found = compare(1.2, size=600_000, options=PROMISES | {"allow": [name]})
    assert set(found.findings) == {"larger", "slower"}
    assert found.allowed == (name,)
    assert name not in found.broken and len(found.broken) == 1


def test_without_a_promise_slower_and_larger_than_fp32_are_told_and_fail_nothing() -> None:
    found = compare(1.2, size=1_100_000, options={})
    assert set(found.findings) == {"larger", "slower"} and found.broken == ()
    assert "nothing was promised" in found.findings["slower"]
    assert compare(1.2, size=900_000, options={}).findings.keys() == {"slower"}


@pytest.mark.parametrize(("share", "scatter"), [(1.03, 0.001), (1.2, 2.0)])
def test_what_the_clock_cannot_tell_is_no_finding(share: float, scatter: float) -> None:
    """Within the tolerance, or with an interval that holds what was promised."""
    assert "slower" not in compare(share, scatter=scatter).findings


def test_too_few_runs_judge_nothing_and_say_so() -> None:
    found = compare(3.0, runs=FEWEST_RUNS - 1)
    assert found.time is None and found.findings == {}
    assert found.untimed == "19 timed runs, of which 20 are needed to tell"


def test_without_times_the_size_is_compared_all_the_same() -> None:
    small = artifact(FP16, 700_000, PROMISES)
    found = compare_with_float(small, artifact(FP32, 1_000_000), latencies=())
    assert found.broken == ("larger",) and found.untimed == "nothing was timed"


@pytest.mark.parametrize(
    "promises", [{"size": 0}, {"size": "small"}, {"speed": 1.0}, ["size"], {"time": -1}]
)
def test_what_is_no_promise_is_refused(promises: Any) -> None:
    with pytest.raises(RecipeError, match=r"promises are .*; expected ratios above zero"):
        compare(options={"promises": promises})


@pytest.mark.parametrize("key", sorted(RECIPES))
def test_every_recipe_but_fp32_promises_a_size(key: str) -> None:
    found = RECIPES[key].options.get("promises")
    assert found is None if key.endswith("/fp32") else isinstance(found, dict)
    if isinstance(found, dict):
        assert 0 < float(str(found["size"])) < 1 and found.get("time") in (None, 1.0)


def build(out: Path, *arguments: str) -> tuple[int, str]:
    quick = ["--backend", "onnx_ort", "--recipe", "fp16", "--window-s", "1", "--hop-s", "5"]
    result = CliRunner().invoke(app, ["build", "sinc-1bi", "--out", str(out), *quick, *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, " ".join(result.output.split())


def test_a_build_holds_recipes_to_their_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32 is made for the comparison alone; `--allow` passes both and is recorded."""
    strict = {"promises": {"size": 0.1, "time": 1.0}}
    monkeypatch.setitem(RECIPES, "onnx_ort/fp16", FP16.model_copy(update={"options": strict}))

    def slow(artifacts: Any, **_: Any) -> tuple[LatencyReport, ...]:
        assert [path.is_file() for _, path in artifacts] == [True, True]
        return tuple(timed(made, [1 + (made.recipe.name == "fp16")] * 30) for made, _ in artifacts)

    monkeypatch.setattr(contenders, "time_artifacts", slow)
    code, said = build(tmp_path / "bundle")
    assert code == 1
    assert "FAIL segmentation.fp16.onnx: larger than promised" in said
    assert "FAIL segmentation.fp16.onnx: slower than promised: 2.00" in said
    failed = tmp_path / "bundle.failed"
    assert not (tmp_path / "bundle").exists()
    assert [a.recipe.name for a in read_bundle(failed).content.artifacts] == ["fp16"]
    (found,) = GuardRecord.model_validate_json(
        (failed / "guard_rails.json").read_text()
    ).comparisons
    assert found.broken == ("larger", "slower") and 0.4 < found.size_ratio < 0.7

    code, said = build(tmp_path / "bundle", "--allow", "slower", "--allow", "larger")
    assert code == 0 and "FAIL" not in said
    (made,) = read_bundle(tmp_path / "bundle").content.artifacts
    assert made.recipe.options["allow"] == ["slower", "larger"]
