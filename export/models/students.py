"""The family of students by name: `sinc-1bi`, `mfcc120-2uni-2lin`, `mfcc80-1uni-gru`.

Front-end (SincNet, or that many MFCC), recurrent layers with their direction, linear layers (one
where the name does not say), `gru` or `rnn` (LSTM where it does not). All layers are 128 wide, as
in the models of Sikorskyi, "On-device Speaker Diarization", 2023, whose sizes these are.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import CheckpointError

STUDENT_NAME = re.compile(
    r"(?:sinc|mfcc(?P<coefficients>80|120|150))"
    r"-(?P<layers>[1-9])(?P<kind>bi|uni)(?:-(?P<linear>[0-9])lin)?(?:-(?P<cell>gru|rnn))?"
)
WIDTH = 128
SINCNET = {"stride": 10}
# Frames lie where SincNet's lie: see MfccNet.
MFCC_FRAMES = {"n_fft": 400, "hop_length": 270, "field_length": 991}


def student_design(
    name: str, *, window_s: float = 5.0, classes: int = 3
) -> tuple[str, dict[str, Any]]:
    """Architecture and configuration of a student, as `MODELS[architecture].build` takes it.

    Raises CheckpointError on a name outside the family.
    """
    match = STUDENT_NAME.fullmatch(name)
    if match is None:
        raise CheckpointError(
            name,
            found="not the name of a student",
            expected="a name such as sinc-1bi, sinc-2uni, sinc-2bi-2lin, sinc-1bi-gru or "
            "mfcc120-1bi (80, 120 or 150 coefficients)",
        )
    lstm: dict[str, Any] = {
        "hidden_size": WIDTH,
        "num_layers": int(match["layers"]),
        "bidirectional": match["kind"] == "bi",
        "dropout": 0.0,
    }
    shared = {
        "linear": {"hidden_size": WIDTH, "num_layers": int(match["linear"] or 1)},
        "sample_rate": 16000,
        "num_channels": 1,
        "specifications": {
            "window_s": window_s,
            "classes": [f"speaker#{i + 1}" for i in range(classes)],
            "powerset_max_classes": None,
        },
    }
    cell = match["cell"] or "lstm"
    if match["coefficients"] is None:
        sinc = {"sincnet": dict(SINCNET), "lstm": lstm | {"monolithic": True}, **shared}
        return ("PyanNet", sinc) if cell == "lstm" else ("SincRnnNet", sinc | {"cell": cell})
    count = int(match["coefficients"])
    return "MfccNet", {
        "mfcc": {"n_mfcc": count, "n_mels": count, **MFCC_FRAMES},
        "lstm": lstm,
        "cell": cell,
        **shared,
    }
