"""Who speaks when, read from RTTM and UEM files, and matched with recordings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.audio import Recording
from export.errors import AudioError

from .results import Turn

# NIST RT-09 evaluation plan, appendix A: the other kinds of line say nothing about turns.
OTHER_TYPES = {
    "SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT",
    "IP", "SU", "CB", "A/P", "SPKR-INFO",
}  # fmt: skip
OVERHANG_S = 0.5  # turns are rounded; one that ends much later belongs to other audio


@dataclass(frozen=True)
class SpeechReference:
    """The turns of each recording that the reference covers, and where it may be scored.

    `turns` has an entry for every covered recording; a recording without an entry is one that
    the reference says nothing about. `scored` are intervals in seconds (from a UEM); a covered
    recording without an entry is scored throughout.
    """

    turns: dict[str, tuple[Turn, ...]]
    scored: dict[str, tuple[tuple[float, float], ...]]

    def covers(self, uri: str) -> bool:
        """Whether the recording can be scored."""
        return uri in self.turns


def load_reference(
    rttm: Path, *, uem: Path | None, recordings: Sequence[Recording]
) -> SpeechReference:
    """Read a reference and check that it belongs to these recordings.

    A recording that the UEM lists and the RTTM does not is covered, and silent. Raises AudioError
    on a file that is missing, malformed or without any turn, on turns whose recording is missing,
    and on turns or scored intervals that lie outside their recording.
    """
    turns = read_rttm(rttm)
    scored = read_uem(uem) if uem is not None else {}
    known = {recording.uri: recording for recording in recordings}
    for path, uris in ((rttm, turns), (uem, scored)):
        missing = sorted(set(uris) - set(known))
        if missing and path is not None:
            raise AudioError(
                path,
                found=f"{_some(missing)} without audio of that name",
                expected=f"names among the audio's: {_some(sorted(known))}",
                todo="Give the missing audio too, or remove these lines.",
            )
    for uri, spoken in turns.items():
        last = max(turn.end_s for turn in spoken)
        if last > known[uri].duration_s + OVERHANG_S:
            raise AudioError(
                rttm,
                found=f"a turn of {uri} that ends at {last:.2f} s",
                expected=f"turns within {known[uri].path} ({known[uri].duration_s:.2f} s)",
                todo="Check that reference and audio belong together.",
            )
    covered = {uri: tuple(turns.get(uri, ())) for uri in known if uri in turns or uri in scored}
    return SpeechReference(covered, {uri: tuple(parts) for uri, parts in scored.items()})


def read_rttm(path: Path) -> dict[str, list[Turn]]:
    """Turns by recording. Raises AudioError naming the line that is malformed."""
    turns: dict[str, list[Turn]] = {}
    for number, fields in _lines(path):
        if fields[0] in OTHER_TYPES:
            continue
        where = f"{path}, line {number}"
        if fields[0] != "SPEAKER":
            raise AudioError(where, found=f"{fields[0]!r}", expected="SPEAKER at its start")
        if len(fields) < 8:
            raise AudioError(where, found=f"{len(fields)} fields", expected="8 or more")
        start, duration = (_number(text, where) for text in fields[3:5])
        if start < 0 or duration < 0:
            raise AudioError(where, found=f"{start} {duration}", expected="no negative time")
        if duration > 0:
            turns.setdefault(fields[1], []).append(Turn(start, start + duration, fields[7]))
    if not turns:
        raise AudioError(path, found="no turns", expected="at least one SPEAKER line")
    return turns


def read_uem(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Scored intervals by recording. Raises AudioError naming the line that is malformed."""
    scored: dict[str, list[tuple[float, float]]] = {}
    for number, fields in _lines(path):
        where = f"{path}, line {number}"
        if len(fields) != 4:
            raise AudioError(where, found=f"{len(fields)} fields", expected="4")
        start, end = (_number(text, where) for text in fields[2:4])
        if not 0 <= start < end:
            raise AudioError(where, found=f"{start} to {end}", expected="an interval")
        scored.setdefault(fields[0], []).append((start, end))
    if not scored:
        raise AudioError(path, found="no intervals", expected="at least one")
    return scored


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AudioError(path, found=f"not readable ({error})", expected="a text file") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith(";;"):
            yield number, line.split()


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AudioError(where, found=f"{text!r}", expected="a time in seconds")
    return value


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
