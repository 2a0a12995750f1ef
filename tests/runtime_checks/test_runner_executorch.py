"""Opening and running ExecuTorch programs, good and bad."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import LoadedModel
from export.errors import BackendUnavailableError, BundleError
from export.pipeline import Exporter
from runtime_checks.runners.base import RUNNERS, Runner

len(BACKENDS)  # recipes are registered by their backends


@pytest.fixture(scope="module")
def program(zoo_model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    return folder / Exporter(zoo_model).export(RECIPES["executorch_xnnpack/fp32"], folder).path


def open_runner(path: Path, model: LoadedModel, *, threads: int = 1) -> Runner:
    return RUNNERS["executorch_xnnpack"].open(path, model.spec, threads=threads)


def test_it_runs_here() -> None:
    assert RUNNERS["executorch_xnnpack"].unavailable() is None


def test_the_contract_is_read_from_the_file(program: Path, zoo_model: LoadedModel) -> None:
    runner = open_runner(program, zoo_model)
    assert runner.inputs == zoo_model.spec.inputs
    assert runner.outputs == zoo_model.spec.outputs
    other = zoo_model.spec.model_copy(
        update={"outputs": (zoo_model.spec.outputs[0].model_copy(update={"shape": (1, 292, 3)}),)}
    )
    declared = RUNNERS["executorch_xnnpack"].open(program, other, threads=1).outputs
    assert declared == zoo_model.spec.outputs


def test_results_survive_the_next_run(
    program: Path, zoo_model: LoadedModel, speech: NDArray[np.float32]
) -> None:
    runner = open_runner(program, zoo_model)
    first = runner.run({"waveform": speech[0].reshape(1, 1, -1)})["scores"]
    kept = first.copy()
    second = runner.run({"waveform": speech[1].reshape(1, 1, -1)})["scores"]
    assert np.array_equal(first, kept)
    assert np.abs(second - first).max() > 0.1
    again = runner.run({"waveform": speech[0].reshape(1, 1, -1)})["scores"]
    assert np.array_equal(again, kept)


def test_the_inside_cannot_be_seen(program: Path, zoo_model: LoadedModel) -> None:
    runner = open_runner(program, zoo_model)
    waveform = np.zeros((1, 1, 80_000), np.float32)
    assert runner.taps({"waveform": waveform}, ["classifier"]) is None


def test_a_second_thread_count_is_refused_while_a_program_is_open(
    program: Path, zoo_model: LoadedModel
) -> None:
    runner = open_runner(program, zoo_model)
    with pytest.raises(BackendUnavailableError, match="processes of their own"):
        open_runner(program, zoo_model, threads=2)
    assert runner.inputs == zoo_model.spec.inputs


def test_threads_are_those_asked_for_and_nothing_is_printed(
    program: Path, zoo_model: LoadedModel
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "import numpy as np\n"
        "from export.checkpoint import load_model\n"
        "from runtime_checks.runners.base import RUNNERS\n"
        "spec = load_model('sinc-1bi').spec\n"
        "runners = RUNNERS['executorch_xnnpack']\n"
        "window = {'waveform': np.zeros((1, 1, 80_000), np.float32)}\n"
        "print(len(runners.profile(Path(sys.argv[1]), [window], options={})) > 3)\n"
        "for threads in (1, 2, 1):\n"
        "    runner = runners.open(Path(sys.argv[1]), spec, threads=threads)\n"
        "    out = runner.run(window)\n"
        "    from executorch.extension.pybindings import portable_lib\n"
        "    print(portable_lib._threadpool_get_thread_count(), out['scores'].shape)\n"
        "    del runner\n"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(program)],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = [f"{count} (1, 293, 3)" for count in (1, 2, 1)]
    assert ran.stdout.splitlines() == ["True", *shown]
    assert ran.stderr == ""


@pytest.mark.parametrize("kept", [0, 3, 10, 40, 1000, 0.5, -1])
def test_a_truncated_file_is_refused(
    kept: float, program: Path, zoo_model: LoadedModel, tmp_path: Path
) -> None:
    data = program.read_bytes()
    end = int(len(data) * kept) if isinstance(kept, float) else int(kept)
    path = tmp_path / "segmentation.fp32.pte"
    path.write_bytes(data[:end])
    with pytest.raises(BundleError, match=r"no ExecuTorch program|cut off"):
        open_runner(path, zoo_model)


def test_a_program_with_a_changed_table_is_refused_with_the_runtimes_reason(
    program: Path, zoo_model: LoadedModel, tmp_path: Path
) -> None:
    data = bytearray(program.read_bytes())
    data[60:4000] = b"\xa5" * 3940
    path = tmp_path / "segmentation.fp32.pte"
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="Verification failed"):
        open_runner(path, zoo_model)


def test_foreign_and_missing_files_are_refused(zoo_model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "segmentation.fp32.pte"
    with pytest.raises(BundleError, match="No such file"):
        open_runner(path, zoo_model)
    path.write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(BundleError, match="no ExecuTorch program"):
        open_runner(path, zoo_model)
