"""Turns as a picture: an SVG with a row a speaker, of one or more sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from ..results import Turn

WIDTH, LEFT, ROW, GAP, TOP = 960, 130, 22, 14, 26
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e")
TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
MOST_TICKS = 12


def timeline_svg(sources: Sequence[tuple[str, Sequence[Turn]]], *, duration_s: float) -> str:
    """An SVG of (title, turns) of each source over one time axis in seconds."""
    duration_s = max(duration_s, 0.1)
    scale = (WIDTH - LEFT - 10) / duration_s
    parts, y = [], TOP
    for title, turns in sources:
        parts.append(f'<text x="4" y="{y + 13}" class="t">{escape(title)}</text>')
        y += ROW - 4
        for index, name in enumerate(dict.fromkeys(turn.speaker for turn in turns)):
            parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" class="n">{escape(name)}</text>')
            parts += [
                f'<rect x="{LEFT + turn.start_s * scale:.1f}" y="{y + 3}" '
                f'width="{max(0.5, (turn.end_s - turn.start_s) * scale):.1f}" height="{ROW - 7}" '
                f'fill="{COLOURS[index % len(COLOURS)]}"><title>{escape(name)} '
                f"{turn.start_s:.2f}–{turn.end_s:.2f} s</title></rect>"
                for turn in turns
                if turn.speaker == name
            ]
            y += ROW
        y += GAP
    axis = _axis(duration_s, scale=scale, bottom=y)
    style = (
        "text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.n{text-anchor:end}"
        ".a{text-anchor:middle;fill:#777}line{stroke:#ddd}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 8}" '
        f'viewBox="0 0 {WIDTH} {y + 8}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join([*axis, *parts])
        + "\n</svg>\n"
    )


def _axis(duration_s: float, *, scale: float, bottom: int) -> list[str]:
    coarsest = 3600 * math.ceil(duration_s / 3600 / MOST_TICKS)
    step = next((t for t in TICKS_S if duration_s / t <= MOST_TICKS), coarsest)
    lines = []
    for tick in range(int(duration_s / step) + 1):
        x, at = LEFT + tick * step * scale, tick * step
        clock = f"{at} s" if duration_s < 120 else f"{at // 60}:{at % 60:02d}"
        lines.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}"/>')
        lines.append(f'<text x="{x:.1f}" y="{TOP - 10}" class="a">{clock}</text>')
    return lines
