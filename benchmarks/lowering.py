"""How long exporting takes and how much memory, each in a process of its own.

    python benchmarks/lowering.py sinc-4bi --window-s 10

Models are zoo names, checkpoints, or untrained students by the name of their design. Prints wall
and processor time of the export alone, the peak of the process's memory (with the libraries that
were loaded before, in brackets), and the file's size over that of its weights. `--stock` adds
ExecuTorch's own lowering, given up after `--limit-s`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.backends.base import BACKENDS, select_recipes
from export.cli.subjects import load_for_timing
from export.lowering.stock import lower_as_documented
from export.pipeline import Exporter
from export.progress import Progress
from runtime_checks.timing.processes import ChildDiedError, in_child
from runtime_checks.timing.protocol import peak_rss_bytes

STOCK = "stock ExecuTorch"


@dataclass(frozen=True)
class Cost:
    """Of one export."""

    wall_s: float
    processor_s: float
    before_bytes: int
    peak_bytes: int
    size_ratio: float | None


@dataclass(frozen=True)
class Lowering:
    """Export a model by one backend and measure that."""

    source: str
    window_s: float
    backend: str

    def __call__(self, progress: Progress) -> Cost:
        """Load first: what is measured is the export."""
        model, ratio = load_for_timing(self.source, self.window_s), None
        before = peak_rss_bytes()
        with tempfile.TemporaryDirectory() as folder:
            wall_s, processor_s = time.perf_counter(), time.process_time()
            if self.backend == STOCK:
                lower_as_documented(model, Path(folder) / "stock.pte")
            else:
                (recipe,) = select_recipes([self.backend], ["fp32"])
                artifact = Exporter(model).export(recipe, Path(folder))
                ratio = artifact.size_bytes / artifact.graph_stats.weight_bytes
            wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
        return Cost(wall_s, processor_s, before, peak_rss_bytes(), ratio)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one line an export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--window-s", type=float, default=10.0)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--limit-s", type=float, default=300.0)
    given = parser.parse_args(arguments)
    names = [name for name, backend in BACKENDS.items() if backend.unavailable() is None]
    for source in given.models:
        for name in [*names, *([STOCK] if given.stock else [])]:
            label = f"{source}, {given.window_s:g} s, {name}:"
            try:
                cost = in_child(Lowering(source, given.window_s, name), limit_s=given.limit_s)
            except ChildDiedError as error:
                sys.stdout.write(f"{label} {error}\n")
                continue
            size = f", {cost.size_ratio:.4f} of its weights" if cost.size_ratio else ""
            sys.stdout.write(
                f"{label} {cost.wall_s:.1f} s, {cost.processor_s:.1f} s of processor time, "
                f"{cost.peak_bytes / 1e6:.0f} MB ({cost.before_bytes / 1e6:.0f} before){size}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
