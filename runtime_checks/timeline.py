"""Who speaks when over a whole recording, from windows that were scored one by one.

Windows are laid end to end. Their speaker slots mean nothing beyond the window, so each window's
speakers are named anew: after the reference's speakers that they overlap most where there is a
reference, and otherwise after the speakers of the window before, by agreement in the frames that
both windows have in common (windows that have none keep their slots). Every source is named in
the same way, so that a difference between rows is a difference between sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from export.audio import Recording, Window
from export.types import FrameGeometry, ModelSpec

from .der import turns_of
from .parity.decisions import Bools, best_permutation, decide, probabilities
from .parity.reference import ReferenceScores
from .results import Timeline, TimelineRow, Turn
from .rttm import SpeechReference

EPSILON_S = 1e-6


@dataclass(frozen=True)
class Piece:
    """The part of a window that the timeline shows: frames [first, last) of window `index`."""

    index: int
    first: int
    last: int


def build_timeline(
    recording: Recording,
    windows: Sequence[Window],
    *,
    reference: ReferenceScores,
    artifacts: Sequence[tuple[str, Sequence[NDArray[np.float32]]]],
    spec: ModelSpec,
    speech: SpeechReference | None,
) -> Timeline:
    """Rows of the reference (where there is one), of PyTorch in float32 and of every artifact.

    `windows` are all windows of the check and `artifacts` pairs of a name and the scores
    [frames, classes] of each; only this recording's windows are used.
    """
    mine = [index for index, window in enumerate(windows) if window.uri == recording.uri]
    pieces = lay_end_to_end([(i, windows[i]) for i in mine], spec.geometry)
    covered = speech is not None and speech.covers(recording.uri)
    truth = speech.turns[recording.uri] if speech is not None and covered else None
    rows = [] if truth is None else [TimelineRow("reference", truth, None, None)]
    for source, scores in (("pytorch", reference.float32), *artifacts):
        decided = {i: decide(scores[i], spec) for i in mine}
        turns = _turns(pieces, windows, decided=decided, geometry=spec.geometry, truth=truth)
        times, difference = _difference(
            pieces, windows, scores=scores, exact=reference.float64, spec=spec
        )
        rows.append(TimelineRow(source, turns, times, difference))
    return Timeline(
        recording.uri, recording.samples, recording.sample_rate_hz, covered, tuple(rows)
    )


def lay_end_to_end(windows: Sequence[tuple[int, Window]], geometry: FrameGeometry) -> list[Piece]:
    """Pieces that cover a recording once: each window shows what the shown ones before do not.

    Of windows that overlap, as few as possible are used. A window has no frames at its very edges
    (half a receptive field); where two meet there, the timeline has a gap of that length.
    """
    pieces: list[Piece] = []
    shown_s = 0.0
    half = geometry.frame_step_s / 2
    edge_s = (
        geometry.receptive_field_samples / geometry.sample_rate_hz
    )  # a window's frameless edges
    for position, (index, window) in enumerate(windows):
        following = windows[position + 1 :]
        if pieces and following and following[0][1].start_s <= shown_s + edge_s:
            continue  # the next window reaches as far back, and further on
        end_s = window.start_s + window.valid_samples / geometry.sample_rate_hz
        centers = window.start_s + _centers_s(geometry)
        first = int(np.searchsorted(centers, shown_s)) if pieces else 0
        last = int(np.searchsorted(centers, end_s))
        if last > first:
            pieces.append(Piece(index, first, last))
            shown_s = float(centers[last - 1]) + half
    return pieces


def _centers_s(geometry: FrameGeometry) -> NDArray[np.float64]:
    start = geometry.frame_center_s(0)
    frames: NDArray[np.float64] = np.linspace(0, geometry.num_frames - 1, geometry.num_frames)
    centers: NDArray[np.float64] = start + frames * geometry.frame_step_s
    return centers


def _turns(
    pieces: Sequence[Piece],
    windows: Sequence[Window],
    *,
    decided: dict[int, Bools],
    geometry: FrameGeometry,
    truth: Sequence[Turn] | None,
) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    edges: list[float] = []
    half = geometry.frame_step_s / 2
    order: tuple[int, ...] | None = None
    before: Piece | None = None
    for piece in pieces:
        window, active = windows[piece.index], decided[piece.index]
        speakers = active.shape[1]
        if truth is not None:
            names = _names_from_truth(active, window, geometry=geometry, truth=truth)
        else:
            order = _follow(
                order, before, piece, windows=windows, decided=decided, step_s=geometry.frame_step_s
            )
            names = [f"speaker {order.index(slot) + 1}" for slot in range(speakers)]
        shown = np.zeros_like(active)
        shown[piece.first : piece.last] = active[piece.first : piece.last]
        turns += turns_of(shown, geometry, start_s=window.start_s, names=names)
        edges.append(window.start_s + geometry.frame_center_s(piece.first) - half)
        before = piece
    edge_s = geometry.receptive_field_samples / geometry.sample_rate_hz
    return tuple(_join(turns, edges_s=edges, gap_s=edge_s + 2 * half, slack_s=half + EPSILON_S))


def _names_from_truth(
    active: Bools, window: Window, *, geometry: FrameGeometry, truth: Sequence[Turn]
) -> list[str]:
    """The reference speaker of each slot that speaks at the same time; `other n` without one."""
    speakers = sorted({turn.speaker for turn in truth})
    times = window.start_s + _centers_s(geometry)
    overlap = np.zeros((active.shape[1], len(speakers)))
    for column, speaker in enumerate(speakers):
        spoken = np.zeros(len(times), dtype=np.bool_)
        for turn in truth:
            if turn.speaker == speaker:
                spoken |= (times >= turn.start_s) & (times < turn.end_s)
        overlap[:, column] = (active & spoken[:, None]).sum(axis=0)
    names = [f"other {slot + 1}" for slot in range(active.shape[1])]
    for slot, column in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[slot, column] > 0:
            names[slot] = speakers[column]
    return names


def _follow(
    order: tuple[int, ...] | None,
    before: Piece | None,
    piece: Piece,
    *,
    windows: Sequence[Window],
    decided: dict[int, Bools],
    step_s: float,
) -> tuple[int, ...]:
    """Slots of this window in the order of the speakers so far."""
    active = decided[piece.index]
    if order is None or before is None:
        return tuple(range(active.shape[1]))
    shift = round((windows[piece.index].start_s - windows[before.index].start_s) / step_s)
    shared = len(active) - shift
    if shared <= 0:
        return order
    earlier = decided[before.index][-shared:][:, order]
    return best_permutation(active[:shared], earlier)


def _join(
    turns: Sequence[Turn], *, edges_s: Sequence[float], gap_s: float, slack_s: float
) -> list[Turn]:
    """Turns in order of time, with what the edges of windows cut put together again.

    The frames of two windows need not be in step: turns may meet an edge only to within
    `slack_s`.
    """
    joined: list[Turn] = []
    for turn in sorted(turns, key=lambda each: (each.speaker, each.start_s)):
        last = joined[-1] if joined else None
        cut = (
            last is not None
            and last.speaker == turn.speaker
            and turn.start_s - last.end_s <= gap_s
            and any(last.end_s - slack_s <= edge <= turn.start_s + slack_s for edge in edges_s)
        )
        if last is not None and cut:
            joined[-1] = Turn(last.start_s, turn.end_s, turn.speaker)
        else:
            joined.append(turn)
    return sorted(joined, key=lambda each: (each.start_s, each.speaker))


def _difference(
    pieces: Sequence[Piece],
    windows: Sequence[Window],
    *,
    scores: Sequence[NDArray[np.float32]],
    exact: Sequence[NDArray[np.float64]],
    spec: ModelSpec,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Times of the shown frames and the largest difference over the classes, in probability."""
    centers = _centers_s(spec.geometry)
    times, values = [], []
    for piece in pieces:
        part = slice(piece.first, piece.last)
        mine = probabilities(scores[piece.index][part], spec)
        theirs = probabilities(exact[piece.index][part], spec)
        times.append(windows[piece.index].start_s + centers[part])
        values.append(np.abs(mine - theirs).max(axis=1))
    return (
        np.concatenate([*times, []]).astype(np.float32),
        np.concatenate([*values, []]).astype(np.float32),
    )
