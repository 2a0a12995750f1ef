"""pyannote.audio imports on any machine, quietly and without telemetry."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import soundfile

from export.pyannote_import import pyannote_audio, sample_recording


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )


def test_a_fresh_process_imports_it_without_telemetry() -> None:
    ran = run(
        "from export.pyannote_import import pyannote_audio\n"
        "from importlib.metadata import version\n"
        "assert pyannote_audio().__version__ == version('pyannote.audio')\n"
        "from pyannote.audio.telemetry.metrics import is_metrics_enabled\n"
        "assert not is_metrics_enabled()\n"
        "import os; print(os.environ['PYANNOTE_METRICS_ENABLED'])",
        PYANNOTE_METRICS_ENABLED="true",
    )
    assert ran.stdout.split() == ["false"]
    assert ran.stderr == ""


def test_torchaudios_own_lookup_is_put_back() -> None:
    pyannote_audio()
    lookup = sys.modules["torchaudio._extension.utils"]._load_lib
    assert lookup.__module__ == "torchaudio._extension.utils"
    assert pyannote_audio() is sys.modules["pyannote.audio"]


def test_the_sample_recording_is_found_without_importing_anything_heavy() -> None:
    ran = run(
        "import sys\n"
        "from export.pyannote_import import sample_recording\n"
        "print(*sample_recording(), sep='\\n')\n"
        "assert 'torch' not in sys.modules"
    )
    assert ran.stdout.split() == [str(path) for path in sample_recording()]


def test_the_sample_recording_is_two_people_in_thirty_seconds() -> None:
    wav, rttm = sample_recording()
    samples, rate = soundfile.read(wav)
    assert (samples.shape, rate) == ((480_000,), 16000)
    assert np.abs(samples).max() > 0.1
    turns = [line.split() for line in rttm.read_text().splitlines()]
    assert {turn[0] for turn in turns} == {"SPEAKER"}
    assert len({turn[7] for turn in turns}) == 2
    assert max(float(turn[3]) + float(turn[4]) for turn in turns) <= 30.0
