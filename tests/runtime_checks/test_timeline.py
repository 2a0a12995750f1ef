"""Timelines: windows laid end to end, with speakers who keep their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.audio import Recording, cut_windows
from export.types import FrameGeometry, ModelSpec
from runtime_checks.parity.reference import ReferenceScores
from runtime_checks.results import Timeline, TimelineRow, Turn
from runtime_checks.rttm import SpeechReference
from runtime_checks.timeline import build_timeline, lay_end_to_end

GEOMETRY = FrameGeometry(
    sample_rate_hz=16000,
    window_samples=80000,
    num_frames=293,
    frame_step_samples=270,
    receptive_field_samples=991,
)
SPEC = ModelSpec(
    name="made-up",
    architecture="PyanNet",
    geometry=GEOMETRY,
    classes=("a", "b", "c"),
    powerset_max_classes=None,
    permutation_invariant=True,
    inputs=(),
    outputs=(),
    licence="MIT",
    trained_on="nothing",
)
TRUTH = (
    Turn(0.5, 6.0, "alice"),
    Turn(5.0, 8.5, "bob"),
    Turn(6.5, 14.0, "alice"),
    Turn(12.5, 17.0, "bob"),
)


def recording(seconds: float = 18.0) -> Recording:
    samples = np.zeros(round(seconds * 16000), np.float32)
    return Recording("meeting", Path("meeting.wav"), samples, 16000, ())


def spoken(start_s: float, order: tuple[int, int]) -> NDArray[np.float32]:
    """Scores of a perfect model on one window, with its speakers in some order."""
    times = start_s + (np.arange(293) * 270 + 495.5) / 16000
    scores = np.full((293, 3), 0.1, np.float32)
    for turn in TRUTH:
        slot = order[("alice", "bob").index(turn.speaker)]
        scores[(times >= turn.start_s) & (times < turn.end_s), slot] = 0.9
    return scores


def timeline(hop_s: float, speech: SpeechReference | None) -> Timeline:
    """A perfect model's timeline; it orders its speakers anew in every window."""
    windows = cut_windows(recording(), GEOMETRY, hop_s=hop_s)
    orders = [(0, 1), (2, 0), (1, 2)]
    scores = tuple(spoken(w.start_s, orders[i % 3]) for i, w in enumerate(windows))
    shifted = tuple(each + np.float32(0.01) for each in scores)
    exact = tuple(each.astype(np.float64) for each in scores)
    return build_timeline(
        recording(),
        windows,
        reference=ReferenceScores(exact, scores, (0.0,) * len(windows)),
        artifacts=[("segmentation.onnx", shifted)],
        spec=SPEC,
        speech=speech,
    )


def rows(found: Timeline) -> dict[str, TimelineRow]:
    return {row.source: row for row in found.rows}


@settings(max_examples=50, deadline=None)
@given(st.floats(0.3, 40.0), st.sampled_from([1.0, 2.0, 2.5, 3.3, 5.0]))
def test_pieces_show_every_moment_once(seconds: float, hop_s: float) -> None:
    windows = cut_windows(recording(seconds), GEOMETRY, hop_s=hop_s)
    pieces = lay_end_to_end(list(enumerate(windows)), GEOMETRY)
    shown = [
        windows[piece.index].start_s + GEOMETRY.frame_center_s(frame)
        for piece in pieces
        for frame in range(piece.first, piece.last)
    ]
    gaps = np.diff(shown)
    step, edge = GEOMETRY.frame_step_s, GEOMETRY.receptive_field_samples / 16000
    assert (gaps > 0).all()
    assert (gaps <= edge + 2 * step).all()
    assert shown[0] == pytest.approx(GEOMETRY.frame_center_s(0))
    assert shown[-1] <= seconds
    assert shown[-1] > min(seconds, windows[-1].start_s + 5.0) - edge - step


def test_windows_without_overlap_are_used_whole() -> None:
    windows = cut_windows(recording(15.0), GEOMETRY, hop_s=2.5)
    pieces = lay_end_to_end(list(enumerate(windows)), GEOMETRY)
    assert [(p.index, p.first, p.last) for p in pieces] == [(0, 0, 293), (2, 0, 293), (4, 0, 293)]


def test_speakers_are_named_after_the_reference() -> None:
    speech = SpeechReference({"meeting": TRUTH}, {})
    found = timeline(2.5, speech)
    assert found.has_reference
    assert [row.source for row in found.rows] == ["reference", "pytorch", "segmentation.onnx"]
    assert rows(found)["reference"].turns == TRUTH
    for source in ("pytorch", "segmentation.onnx"):
        turns = rows(found)[source].turns
        assert [turn.speaker for turn in turns] == [turn.speaker for turn in TRUTH]
        for mine, theirs in zip(turns, TRUTH, strict=True):
            assert mine.start_s == pytest.approx(theirs.start_s, abs=0.04)
            assert mine.end_s == pytest.approx(theirs.end_s, abs=0.04)


def test_without_a_reference_speakers_keep_their_names_where_windows_overlap() -> None:
    found = timeline(2.0, None)
    assert not found.has_reference
    assert [row.source for row in found.rows] == ["pytorch", "segmentation.onnx"]
    turns = rows(found)["pytorch"].turns
    names = {"alice": turns[0].speaker, "bob": turns[1].speaker}
    assert len(set(names.values())) == 2
    assert [turn.speaker for turn in turns] == [names[turn.speaker] for turn in TRUTH]
    assert turns == rows(found)["segmentation.onnx"].turns


def test_differences_are_from_float64_per_frame() -> None:
    found = rows(timeline(2.5, None))
    pytorch, artifact = found["pytorch"], found["segmentation.onnx"]
    assert pytorch.difference is not None and artifact.difference is not None
    assert artifact.difference_s is not None
    assert not pytorch.difference.any()
    assert artifact.difference == pytest.approx(np.full(len(artifact.difference), 0.01), rel=1e-4)
    assert len(artifact.difference_s) == len(artifact.difference)
    assert (np.diff(artifact.difference_s) > 0).all()
    assert artifact.difference_s[-1] == pytest.approx(18.0, abs=0.1)


def test_a_speaker_that_the_reference_lacks_is_told_apart() -> None:
    speech = SpeechReference({"meeting": TRUTH[:1]}, {})
    turns = rows(timeline(5.0, speech))["pytorch"].turns
    assert {turn.speaker for turn in turns} >= {"alice"}
    assert all(turn.speaker == "alice" or turn.speaker.startswith("other ") for turn in turns)
