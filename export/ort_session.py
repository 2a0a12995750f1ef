"""ONNX Runtime sessions: their options by ONNX Runtime's own names, and what its profiler tells."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RecipeError
from .types import RuntimeOption

PROVIDER = "CPUExecutionProvider"
FLAGS = ("enable_cpu_mem_arena", "enable_mem_pattern", "enable_mem_reuse")
COUNTS = ("inter_op_num_threads", "intra_op_num_threads")
ENUMS = {"execution_mode": "ExecutionMode", "graph_optimization_level": "GraphOptimizationLevel"}


@dataclass(frozen=True)
class ProfiledNode:
    """One node of a loaded session and its time in every run, in milliseconds."""

    provider: str
    operator: str
    ms: tuple[float, ...]


def session_options(options: Mapping[str, RuntimeOption], *, threads: int) -> Any:
    """SessionOptions from attributes and `session.*` entries by name, for a number of threads.

    Raises `RecipeError` on an option that is unknown or has a value it cannot have.
    """
    import onnxruntime as ort

    made = ort.SessionOptions()
    made.log_severity_level = 3
    for name, value in options.items():
        if name.startswith("session."):
            made.add_session_config_entry(name, str(int(value) if type(value) is bool else value))
        elif (name in FLAGS and type(value) is bool) or (name in COUNTS and type(value) is int):
            setattr(made, name, value)
        elif name in ENUMS and str(value) in getattr(ort, ENUMS[name]).__members__:
            setattr(made, name, getattr(getattr(ort, ENUMS[name]), str(value)))
        else:
            raise RecipeError(
                f"runtime option {name}",
                found=repr(value),
                expected=f"an entry session.*, or one of {', '.join((*FLAGS, *COUNTS, *ENUMS))} "
                "with a value of its kind",
            )
    made.intra_op_num_threads = threads
    return made


def open_session(model: str | bytes, options: Mapping[str, RuntimeOption], *, threads: int) -> Any:
    """A session on the CPU; whatever ONNX Runtime raises passes."""
    import onnxruntime as ort

    made = session_options(options, threads=threads)
    return ort.InferenceSession(model, made, providers=[PROVIDER])


def profile_session(
    model: str | bytes,
    windows: Sequence[Mapping[str, NDArray[np.float32]]],
    *,
    options: Mapping[str, RuntimeOption],
    threads: int,
    warmup_runs: int = 3,
) -> list[ProfiledNode]:
    """Nodes as the session runs them, in its order, with one time for every window.

    The profiler writes an event a node and run; the warm-up runs, on the first window, are left
    out. Raises ValueError when the runs are not of the same nodes.
    """
    import onnxruntime as ort

    made = session_options(options, threads=threads)
    made.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="diarport-profile-") as folder:
        made.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(model, made, providers=[PROVIDER])
        for window in [windows[0]] * warmup_runs + list(windows):
            session.run(None, dict(window))
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith("_kernel_time")]
    nodes.sort(key=lambda event: int(event["ts"]))
    runs = warmup_runs + len(windows)
    if len(nodes) % runs:
        raise ValueError(f"{len(nodes)} events of nodes in {runs} runs: these differ")
    return _gathered(nodes, width=len(nodes) // runs, first=warmup_runs)


def _gathered(nodes: list[Any], *, width: int, first: int) -> list[ProfiledNode]:
    rounds = [nodes[start : start + width] for start in range(first * width, len(nodes), width)]
    return [
        ProfiledNode(
            provider=same[0]["args"]["provider"],
            operator=same[0]["args"]["op_name"],
            ms=tuple(event["dur"] / 1000 for event in same),
        )
        for same in zip(*rounds, strict=True)
    ]
