"""What many tests share: the shipped model and real speech."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.audio import cut_windows, load_recording
from export.checkpoint import LoadedModel, load_model
from export.cli import app
from export.models.base import MODELS
from export.pyannote_import import sample_recording

# Two processes for two cores, here and in what they start: more threads would wait for each other.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Graphs under work are full of cycles: with Python's threshold a tenth of the time goes into them.
gc.set_threshold(50_000, 10, 10)


@pytest.fixture(scope="session")
def zoo_model() -> LoadedModel:
    """The embedded default: trained weights, 5 s windows. Leave it as it is."""
    return load_model("sinc-1bi")


@pytest.fixture(scope="session")
def zoo_canonical(zoo_model: LoadedModel) -> nn.Module:
    """The embedded default in canonical form. Leave it as it is."""
    return MODELS[zoo_model.spec.architecture].canonical(zoo_model.module)


@pytest.fixture(scope="session")
def speech(zoo_model: LoadedModel) -> NDArray[np.float32]:
    """Four windows of two people talking: float32 [4, 80000] at 16 kHz."""
    recording = load_recording(sample_recording()[0], sample_rate_hz=16000)
    windows = cut_windows(recording, zoo_model.spec.geometry, hop_s=7.0)
    return np.stack([window.samples for window in windows[:4]])


@pytest.fixture
def diarport(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the command line in this process; gives the exit code and all that was said."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["diarport", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            app.main()
        said = capsys.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), " ".join((said.out + said.err).split())

    return run
