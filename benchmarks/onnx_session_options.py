"""What ONNX Runtime's session options give, each beside the defaults, interleaved in one run.

    python benchmarks/onnx_session_options.py sinc-1bi --window-s 2 --runs 200

Prints for each variant the ratio of its median time to that of the defaults, with its 95 %
interval, and the ratio of the first deciles, which other work on the machine touches least; and
how many nodes are left at each level of optimisation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.audio import load_recording
from export.backends.base import BACKENDS, RECIPES
from export.checkpoint import load_model, with_window
from export.ort_session import PROVIDER, open_session, profile_session, session_options
from export.pipeline import Exporter
from export.pyannote_import import sample_recording
from export.types import LatencyReport, RuntimeOption
from runtime_checks.timing.contenders import windows_of
from runtime_checks.timing.protocol import Candidate, Run, measure
from runtime_checks.timing.statistics import ratio, statistics

DEFAULTS = "defaults"
VARIANTS: dict[str, dict[str, RuntimeOption]] = {
    DEFAULTS: {},
    "the same again": {},
    "optimisation: none": {"graph_optimization_level": "ORT_DISABLE_ALL"},
    "optimisation: basic": {"graph_optimization_level": "ORT_ENABLE_BASIC"},
    "optimisation: extended": {"graph_optimization_level": "ORT_ENABLE_EXTENDED"},
    "optimised offline: basic": {},
    "as the bundle records": BACKENDS["onnx_ort"].runtime_options(),
    "no spinning": {"session.intra_op.allow_spinning": False},
    "parallel execution": {"execution_mode": "ORT_PARALLEL", "inter_op_num_threads": 2},
    "no arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
    "denormals as zero": {"session.set_denormal_as_zero": True},
}


@dataclass(frozen=True)
class Open:
    """A session with these options."""

    path: Path
    options: Mapping[str, RuntimeOption]

    def __call__(self, threads: int) -> Run:
        """Load for a number of threads."""
        session = open_session(str(self.path), self.options, threads=threads)
        name = session.get_inputs()[0].name
        return lambda window: session.run(None, {name: window})


def main() -> None:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="sinc-1bi")
    parser.add_argument("--window-s", type=float, default=2.0)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    model = with_window(load_model(arguments.model), arguments.window_s)
    recording = load_recording(
        sample_recording()[0], sample_rate_hz=model.spec.geometry.sample_rate_hz
    )
    speech = windows_of([recording], spec=model.spec)
    with tempfile.TemporaryDirectory() as folder:
        artifact = Exporter(model).export(RECIPES["onnx_ort/fp32"], Path(folder))
        path = Path(folder) / artifact.path
        offline = optimise_offline(path)
        paths = {name: offline if "offline" in name else path for name in VARIANTS}
        reports = measure(
            [Candidate(name, None, Open(paths[name], o)) for name, o in VARIANTS.items()],
            speech,
            threads=arguments.threads,
            hop_s=0.5,
            seed=0,
            timed_runs=arguments.runs,
        )
        print_table(f"{model.spec.name}, {arguments.threads} threads", reports)
        print_nodes(path, speech[0])


def optimise_offline(path: Path) -> Path:
    """The file as ONNX Runtime's optimisations of the standard's own operators leave it."""
    import onnxruntime as ort

    options = session_options({"graph_optimization_level": "ORT_ENABLE_BASIC"}, threads=1)
    optimised = path.with_name(f"offline-{path.name}")
    options.optimized_model_filepath = str(optimised)
    ort.InferenceSession(str(path), options, providers=[PROVIDER])
    return optimised


def print_nodes(path: Path, window: NDArray[np.float32]) -> None:
    """Nodes that a session runs, by level of optimisation."""
    for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"):
        options: dict[str, RuntimeOption] = {"graph_optimization_level": f"ORT_{level}"}
        nodes = profile_session(str(path), [{"waveform": window}], options=options, threads=1)
        counts = Counter(node.operator for node in nodes)
        kinds = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
        sys.stdout.write(f"  {level:16} {len(nodes)} nodes: {kinds}\n")


def print_table(title: str, reports: Sequence[LatencyReport]) -> None:
    """One line a variant."""
    sys.stdout.write(f"{title}\n")
    for report in reports:
        to_defaults = ratio(report, reports[0])
        if to_defaults is None:
            raise RuntimeError(f"{report.candidate}: {report.failures}")
        p50_ms = statistics(report.samples_ms, hop_s=1).p50_ms
        p10 = np.percentile(report.samples_ms, 10) / np.percentile(reports[0].samples_ms, 10)
        sys.stdout.write(
            f"  {report.candidate:24} {p50_ms:7.2f} ms  {to_defaults.value:.3f}"
            f" ({to_defaults.low:.3f}-{to_defaults.high:.3f})  p10 {p10:.3f}\n"
        )


if __name__ == "__main__":
    main()
