"""Goldens of a whole pipeline: what every stage gives for a recording, as plain files.

Everything that is an array of numbers is raw little-endian float32, everything else is in
`stages.json`, which also says the shapes. A phone that reads them can check each stage alone: feed
it the golden before and compare with the golden after.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import BundleError
from export.types import PipelineParameters

from ..results import Turn
from .agglomeration import SpeakerCount
from .incremental import IncrementalClustering
from .online import OnlineDiarizer
from .stages import Samples, Stages, WindowSpeech
from .whole import WholeFileDiarizer, assign_all, turns_of_windows

LONGEST_S = 30.0
STAGES = "stages.json"
ARRAYS = ("audio", "scores", "embeddings", "clean_s")


def write_pipeline_goldens(
    folder: Path, samples: Samples, stages: Stages, *, parameters: PipelineParameters
) -> None:
    """Run the pipeline on the first seconds of a recording and write what every stage gives.

    `audio` [samples]; `scores` [hops, frames, slots], zero in slots that are not active;
    `embeddings` [hops, slots, dimension], centred, of length one or zero; `clean_s` [hops, slots].
    """
    kept = samples[: round(LONGEST_S * stages.spec.geometry.sample_rate_hz)]
    diarizer = WholeFileDiarizer(stages, parameters)
    diarizer.push(kept)
    whole = diarizer.finish()
    heard = diarizer.heard
    dimension = max((speech.embeddings.shape[1] for speech in heard), default=0)
    arrays: dict[str, NDArray[np.floating]] = {
        "audio": kept,
        "scores": np.stack([speech.scores for speech in heard]),
        "embeddings": np.stack([_filled(speech, dimension) for speech in heard]),
        "clean_s": np.stack([speech.clean_s for speech in heard]),
    }
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        (folder / f"{name}.f32").write_bytes(np.ascontiguousarray(array, "<f4").tobytes())
    clustering = IncrementalClustering(parameters)
    said = {
        "arrays": {name: {"file": f"{name}.f32", "shape": array.shape}
                   for name, array in arrays.items()},
        "window_starts": [speech.start for speech in heard],
        "window_ends": [speech.end for speech in heard],
        "online": {
            "assignments": [clustering.assign(speech).tolist() for speech in heard],
            "turns": _plain(_online(kept, stages, parameters)),
        },
        "whole_file": {
            "assignments": [each.tolist() for each in
                            assign_all(heard, parameters, count=SpeakerCount())],
            "turns": _plain(whole),
        },
    }  # fmt: skip
    (folder / STAGES).write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def check_pipeline_goldens(
    folder: Path, stages: Stages, *, parameters: PipelineParameters
) -> dict[str, float]:
    """What stages after the golden of the stage before differ in, by name; zero is the same.

    `assignments` and `turns` count what differs; networks are not run here.
    """
    said, arrays = read_pipeline_goldens(folder)
    heard = [
        WindowSpeech(
            start=start,
            end=end,
            scores=arrays["scores"][hop].astype(np.float64),
            active=arrays["scores"][hop].any(axis=0),
            embeddings=arrays["embeddings"][hop].astype(np.float64),
            clean_s=arrays["clean_s"][hop].astype(np.float64),
            segmentation_ms=0.0,
            embedding_ms=0.0,
        )
        for hop, (start, end) in enumerate(
            zip(said["window_starts"], said["window_ends"], strict=True)
        )
    ]
    clustering = IncrementalClustering(parameters)
    online = [clustering.assign(speech).tolist() for speech in heard]
    whole = assign_all(heard, parameters, count=SpeakerCount())
    turns = _plain(turns_of_windows(heard, whole, stages, parameters))
    return {
        "online assignments": _differing(online, said["online"]["assignments"]),
        "whole-file assignments": _differing(
            [each.tolist() for each in whole], said["whole_file"]["assignments"]
        ),
        "whole-file turns": _differing(turns, said["whole_file"]["turns"]),
    }


def read_pipeline_goldens(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """What `stages.json` says, and the arrays. Raises `BundleError` when they do not fit."""
    try:
        said: dict[str, Any] = json.loads((folder / STAGES).read_text(encoding="utf-8"))
        arrays: dict[str, NDArray[np.floating]] = {
            name: np.fromfile(folder / said["arrays"][name]["file"], "<f4").reshape(
                said["arrays"][name]["shape"]
            )
            for name in ARRAYS
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            folder, found=f"not readable ({error})", expected="goldens of a pipeline"
        ) from error
    return said, arrays


def _online(samples: Samples, stages: Stages, parameters: PipelineParameters) -> list[Turn]:
    diarizer = OnlineDiarizer(stages, parameters)
    decisions = [*diarizer.push(samples), *diarizer.finish()]
    return [turn for decision in decisions for turn in decision.ended]


def _filled(speech: WindowSpeech, dimension: int) -> NDArray[np.floating]:
    if speech.embeddings.shape[1] == dimension:
        return speech.embeddings
    return np.zeros((len(speech.active), dimension))


def _plain(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    return [asdict(turn) for turn in turns]


def _differing(found: Sequence[Any], expected: Sequence[Any]) -> float:
    pairs = sum(mine != theirs for mine, theirs in zip(found, expected, strict=False))
    return float(pairs + abs(len(found) - len(expected)))
