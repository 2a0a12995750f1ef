"""The one place that imports pyannote.audio, and torchaudio.

Two things are set right before it is imported. Its telemetry is switched off. And where torchaudio
was built for CUDA and torch was not, torchaudio's compiled extension cannot load and takes the
whole import down with it; its Python parts, all that pyannote.audio uses here, need no extension,
so the import is repeated with torchaudio told that there is none.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

from .errors import ExportError


@cache
def pyannote_audio() -> ModuleType:
    """Import pyannote.audio on any machine, without telemetry."""
    os.environ["PYANNOTE_METRICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchcodec's missing libraries: audio is decoded by us
        torchaudio()
        return importlib.import_module("pyannote.audio")


@cache
def torchaudio() -> ModuleType:
    """Import torchaudio on any machine."""
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        utils = sys.modules["torchaudio._extension.utils"]
        original = utils._load_lib
        utils._load_lib = lambda lib: False  # type: ignore[attr-defined]
        try:
            return importlib.import_module("torchaudio")
        finally:
            utils._load_lib = original  # type: ignore[attr-defined]


def sample_recording() -> tuple[Path, Path]:
    """Paths of the 30 s two-speaker recording and its RTTM inside pyannote.audio's wheel."""
    spec = importlib.util.find_spec("pyannote.audio")
    if spec is None or spec.origin is None:
        raise ExportError("pyannote.audio", found="not installed", todo="Install diarport again.")
    folder = Path(spec.origin).parent / "sample"
    return folder / "sample.wav", folder / "sample.rttm"
