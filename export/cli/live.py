"""A timeline in the terminal, while audio is heard and when it is over."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .common import say

if TYPE_CHECKING:
    from runtime_checks.results import Turn

COLUMNS, SHOWN_S = 64, 32.0


class LiveTimeline:
    """On stderr: what was said last, redrawn as it is decided; silent when quiet or no terminal."""

    def __init__(self, *, quiet: bool, total_s: float | None) -> None:
        self._quiet, self._total_s = quiet, total_s
        self._live: Any = None
        self._heard_s = 0.0
        self._rows: dict[str, str] = {}
        self._until_s = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True),
                get_renderable=self._render,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def heard(self, seconds: float) -> None:
        """So much was heard."""
        self._heard_s = seconds

    def show(self, turns: list[Turn], *, until_s: float) -> None:
        """What is decided now."""
        if self._live is not None:
            from runtime_checks.diarize.strip import strips

            begin_s = max(0.0, until_s - SHOWN_S)
            recent = [turn for turn in turns if turn.end_s > begin_s]
            self._rows = strips(recent, begin_s=begin_s, end_s=begin_s + SHOWN_S, columns=COLUMNS)
            self._until_s = until_s

    def interrupted(self) -> None:
        """Ctrl-C between two blocks: what was heard is decided yet."""
        say("note: stopped; what was heard is decided", quiet=self._quiet)

    def summary(self, turns: list[Turn], *, heard_s: float, took_s: float) -> None:
        """Who spoke for how long, and what it took."""
        from runtime_checks.diarize.strip import speaking_s, strips

        rows = strips(turns, begin_s=0.0, end_s=heard_s, columns=COLUMNS)
        spoken = speaking_s(turns)
        for name, row in rows.items():
            say(f"{name:>10} {row} {spoken[name]:7.1f} s", quiet=self._quiet)
        many = "speaker" if len(rows) == 1 else "speakers"
        rate = f", real-time factor {took_s / heard_s:.3f}" if heard_s else ""
        say(f"{len(rows)} {many} in {heard_s:.1f} s of audio{rate}", quiet=self._quiet)

    def _render(self) -> str:
        total = f" of {self._total_s:.0f} s" if self._total_s else ""
        lines = [f"{name:>10} {row}" for name, row in self._rows.items()]
        return "\n".join([*lines, f"heard {self._heard_s:.1f} s{total}"])
