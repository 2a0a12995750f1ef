"""Bundles: hashing, verification, atomic replacement."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from export.bundle import (
    GoldenArrays,
    file_entry,
    hash_path,
    read_bundle,
    read_golden,
    verify_bundle,
    write_goldens,
    write_manifest,
)
from export.bundle_place import BundleWriter
from export.errors import BundleError
from export.types import (
    Artifact,
    BundleContent,
    FrameGeometry,
    GraphStats,
    ModelSpec,
    ParitySummary,
    Precision,
    Recipe,
    Verdict,
)


def make_spec() -> ModelSpec:
    return ModelSpec(
        name="tiny",
        architecture="PyanNet",
        geometry=FrameGeometry(
            sample_rate_hz=16000,
            window_samples=80000,
            num_frames=293,
            frame_step_samples=270,
            receptive_field_samples=991,
        ),
        classes=("speaker#1",),
        powerset_max_classes=None,
        permutation_invariant=True,
        inputs=(),
        outputs=(),
        licence="MIT",
        trained_on="nothing",
    )


def fill(root: Path, payload: bytes) -> None:
    """The smallest complete bundle, with one file and one directory artifact."""
    (root / "segmentation.fp32.onnx").write_bytes(payload)
    package = root / "segmentation.fp32.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "weight.bin").write_bytes(payload * 2)
    (root / "LICENSE").write_text("MIT License\n")
    (root / "report.html").write_text("<html></html>")
    goldens = write_goldens(
        root,
        [GoldenArrays("speech", np.ones((1, 1, 4), np.float32), np.zeros((1, 2, 3), "f4"), 0.5)],
    )
    artifacts = tuple(
        Artifact(
            path=path,
            sha256=hash_path(root / path),
            size_bytes=1,
            recipe=Recipe(
                name="fp32",
                backend="onnx_ort",
                weight_precision=Precision.FP32,
                activation_precision=Precision.FP32,
            ),
            rewrites=(),
            dynamic_length=False,
            tool_versions={},
            graph_stats=GraphStats(operators={}, delegates=0, weight_bytes=0),
        )
        for path in ("segmentation.fp32.onnx", "segmentation.fp32.mlpackage")
    )
    content = BundleContent(
        spec=make_spec(),
        model_source="tiny",
        checkpoint_sha256="0" * 64,
        artifacts=artifacts,
        goldens=goldens,
        files=(file_entry(root, "LICENSE"),),
        parity=(
            ParitySummary(
                artifact_path="segmentation.fp32.onnx", verdict=Verdict.PASS, reason=None
            ),
        ),
        created_by={},
    )
    write_manifest(root, content, evidence=["report.html"])


def write(target: Path, payload: bytes = b"weights") -> None:
    with BundleWriter(target) as writer:
        fill(writer.folder, payload)
        writer.commit()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write(tmp_path / "my-bundle")
    return tmp_path / "my-bundle"


def test_an_intact_bundle_verifies(bundle: Path) -> None:
    assert verify_bundle(bundle) == read_bundle(bundle)


def test_the_content_hash_does_not_depend_on_time_or_place(bundle: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere")
    first, second = read_bundle(bundle), read_bundle(tmp_path / "elsewhere")
    assert first.content_sha256 == second.content_sha256
    write(tmp_path / "other", b"other weights")
    assert read_bundle(tmp_path / "other").content_sha256 != first.content_sha256


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


def edit_content(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["content"]["spec"]["geometry"]["frame_step_samples"] = 271
    (bundle / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: flip(b / "segmentation.fp32.onnx"), r"segmentation\.fp32\.onnx: hash"),
        (lambda b: flip(b / "segmentation.fp32.mlpackage/Data/weight.bin"), r"mlpackage: hash"),
        (lambda b: flip(b / "goldens/00.output.f32"), r"goldens/00\.output\.f32: hash"),
        (lambda b: flip(b / "report.html"), r"report\.html: hash"),
        (lambda b: (b / "LICENSE").unlink(), "LICENSE: missing"),
        (lambda b: (b / "extra.bin").write_bytes(b"x"), "extra.bin: not in the manifest"),
        (edit_content, "does not match its content_sha256"),
    ],
)
def test_every_damage_is_found(
    bundle: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(bundle)
    with pytest.raises(BundleError, match=message):
        verify_bundle(bundle)


def test_all_damages_are_listed_at_once(bundle: Path) -> None:
    flip(bundle / "report.html")
    (bundle / "LICENSE").unlink()
    with pytest.raises(BundleError, match=r"LICENSE: missing; report\.html: hash"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a manifest"),
        ("[]", "not a manifest"),
        ('{"schema_version": 99}', "schema version 99; expected schema version 1"),
        ('{"schema_version": 1}', "content: Field required"),
    ],
)
def test_manifests_of_no_known_schema(bundle: Path, text: str, message: str) -> None:
    (bundle / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle)


def test_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        read_bundle(tmp_path)


def test_a_directory_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "one.jpg").write_text("x")
    with pytest.raises(BundleError, match="not a bundle"), BundleWriter(precious):
        pass
    assert (precious / "one.jpg").read_text() == "x"


def test_a_failing_run_leaves_the_old_bundle_and_nothing_else(bundle: Path) -> None:
    before = read_bundle(bundle)
    with pytest.raises(RuntimeError), BundleWriter(bundle) as writer:
        fill(writer.folder, b"half")
        raise RuntimeError
    assert verify_bundle(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


@pytest.mark.parametrize("stage", ["writing", "moved aside"])
def test_a_killed_run_leaves_the_old_bundle(bundle: Path, stage: str) -> None:
    before = read_bundle(bundle)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from export.bundle_place import BundleWriter\n"
        "target = Path(sys.argv[1])\n"
        "writer = BundleWriter(target).__enter__()\n"
        "(writer.folder / 'half').write_text('x')\n"
        "if sys.argv[2] == 'moved aside':\n"
        "    Path.rename = (lambda original: lambda self, to: (original(self, to),\n"
        "        os.kill(os.getpid(), signal.SIGKILL)))(Path.rename)\n"
        "    writer.commit()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(bundle), stage], check=False)
    assert killed.returncode == -9
    assert len(list(bundle.parent.iterdir())) == 2
    assert verify_bundle(bundle) == before
    assert [p.name for p in bundle.parent.iterdir()] == [bundle.name]


def test_a_running_build_is_not_cleaned_away(bundle: Path) -> None:
    with BundleWriter(bundle) as writer:
        verify_bundle(bundle)
        assert writer.folder.is_dir()


@given(
    array=stn.arrays(
        np.float32,
        st.tuples(st.just(1), st.integers(1, 5), st.integers(1, 5)),
        elements=st.floats(width=32, allow_nan=False),
    )
)
def test_goldens_round_trip(array: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("golden")
    (golden,) = write_goldens(root, [GoldenArrays("g", array, array + 1, 0.0)])
    inputs, outputs = read_golden(root, golden)
    np.testing.assert_array_equal(inputs, array)
    np.testing.assert_array_equal(outputs, array + 1)
    assert (root / golden.input_path).stat().st_size == 4 * array.size
