"""`diarport doctor`: what works on this machine, and why the rest does not."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

import typer

from .common import JsonOption, print_json, print_table


def command(json: JsonOption = False) -> None:
    """Tell which backends can export and run here, with the reason where one cannot.

    Examples:

    - `diarport doctor`

    - `diarport doctor --json`
    """
    from ..backends.base import BACKENDS, RECIPES
    from ..checkpoint import zoo_names
    from ..pyannote_import import pyannote_audio
    from ..recipes import REFUSED

    backends = [_backend(name) for name in BACKENDS]
    pyannote_audio()  # raises with its reason where it cannot be imported
    machine: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "diarport": version("diarport"),
        "torch": version("torch"),
        "pyannote.audio": version("pyannote.audio"),
        "models": zoo_names(),
        "recipes": sorted(RECIPES),
        "refused recipes": [f"{key} ({why})" for key, why in sorted(REFUSED.items())],
    }
    if json:
        print_json({"machine": machine, "backends": backends})
        return
    print_table("Backends", backends)
    for key, value in machine.items():
        typer.echo(f"{key:>15}  {', '.join(value) if isinstance(value, list) else value}")


def _backend(name: str) -> dict[str, Any]:
    from runtime_checks.runners.base import RUNNERS, why_untimed

    from ..backends.base import BACKENDS

    backend = BACKENDS[name]
    exports = backend.unavailable()
    runs = why_untimed(name) if name in RUNNERS else "no runner"
    versions = {} if exports else backend.tool_versions()
    return {
        "backend": name,
        "exports": exports or "yes",
        "runs": runs or "yes",
        "tools": ", ".join(f"{tool} {number}" for tool, number in versions.items()),
    }
