"""Where a model may be, and what it is called then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.checkpoint import LoadedModel, load_model, save_pyannote
from export.pyannote_import import pyannote_audio


@pytest.fixture
def saved(zoo_model: LoadedModel, tmp_path: Path) -> Path:
    """A checkpoint as pyannote.audio writes it."""
    path = tmp_path / "small.bin"
    save_pyannote(path, zoo_model.module)
    return path


def test_a_folder_may_hold_a_whole_pipeline(zoo_model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "segmentation").mkdir()
    save_pyannote(tmp_path / "segmentation" / "pytorch_model.bin", zoo_model.module)
    (tmp_path / "segmentation" / "LICENSE").write_text("MIT License\n\nCopyright")
    loaded = load_model(tmp_path)
    assert (loaded.spec.name, loaded.spec.licence) == ("segmentation", "MIT License")


@pytest.mark.parametrize(
    "network", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "https://hub.invalid"}], ids=str
)
def test_a_hub_id_offline_is_one_line(tmp_path: Path, network: dict[str, str]) -> None:
    code = (
        "import sys\n"
        "from export.checkpoint import load_model\n"
        "from export.errors import CheckpointError\n"
        "try:\n"
        "    load_model('pyannote/segmentation-3.0')\n"
        "except CheckpointError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | network | {"HF_HOME": str(tmp_path)},
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        "pyannote/segmentation-3.0: cannot be had from the Hugging Face hub ("
    )
    assert "give the path of a downloaded checkpoint" in lines[0]
    assert ran.stderr == ""


def test_a_hub_model_is_named_after_its_repository(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "snapshots" / "0123abc"
    (snapshot / "segmentation").mkdir(parents=True)
    saved.rename(snapshot / "segmentation" / "pytorch_model.bin")

    def cached(repo: str, name: str, *, subfolder: str | None, **_: Any) -> str:
        path = snapshot / (subfolder or "") / name
        if not path.is_file():
            raise FileNotFoundError(path)
        return str(path)

    pyannote_audio()
    monkeypatch.setattr("pyannote.audio.utils.hf_hub.hf_hub_download", cached)
    loaded = load_model("someone/community-9")
    assert (loaded.spec.name, loaded.source) == ("community-9", "someone/community-9")


def test_a_checkpoint_in_the_working_directory_is_named_after_it(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    saved.rename(folder / "pytorch_model.bin")
    monkeypatch.chdir(folder)
    assert load_model("pytorch_model.bin").spec.name == "mine"
