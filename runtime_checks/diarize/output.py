"""Turns and decisions as text: RTTM and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..results import Turn
from .online import Decision


def rttm_line(turn: Turn, *, uri: str) -> str:
    """One SPEAKER line (NIST RT-09 evaluation plan, appendix A); a name has no spaces there."""
    name = "_".join(uri.split()) or "audio"
    length_s = turn.end_s - turn.start_s
    return (
        f"SPEAKER {name} 1 {turn.start_s:.3f} {length_s:.3f} <NA> <NA> {turn.speaker} <NA> <NA>\n"
    )


def decision_line(decision: Decision) -> str:
    """One hop as a line of JSON.

    `until_s` is up to where who speaks is decided, `heard_s` how much was heard by then (the
    difference is the latency), `speaking` who speaks in between, as intervals by name.
    """
    said: dict[str, Any] = {
        "hop": decision.index,
        "heard_s": round(decision.heard_s, 4),
        "from_s": round(decision.from_s, 4),
        "until_s": round(decision.until_s, 4),
        "speaking": _by_name(decision.speaking),
        "slots": list(decision.assignment),
        "segmentation_ms": round(decision.segmentation_ms, 3),
        "embedding_ms": round(decision.embedding_ms, 3),
        "clustering_ms": round(decision.clustering_ms, 3),
    }
    return json.dumps(said) + "\n"


def turn_line(turn: Turn) -> str:
    """One turn as a line of JSON."""
    said = {
        "speaker": turn.speaker,
        "start_s": round(turn.start_s, 4),
        "end_s": round(turn.end_s, 4),
    }
    return json.dumps(said) + "\n"


def _by_name(turns: Sequence[Turn]) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for turn in turns:
        found.setdefault(turn.speaker, []).append([round(turn.start_s, 4), round(turn.end_s, 4)])
    return found
