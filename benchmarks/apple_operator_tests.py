"""Apple's own operator tests against the evaluator of Core ML packages.

coremltools' wheel carries the tests of its operators. Each converts a small program, lets Core ML
predict and compares with expected values, but where there is no macOS that comparison is silently
left out. Here the evaluator answers in Core ML's place, and the comparison is made:

    python benchmarks/apple_operator_tests.py --each 6 --markdown table.md

runs up to six parametrisations, drawn by a fixed seed, of every test of a family that the evaluator
covers (`--each 0`: all of them, hours) and prints what passed, what differs and what is skipped. On
a Mac, `--native` lets Core ML itself answer the same tests.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime_checks.coreml_mil.evaluator import EvaluationError, Evaluator
from runtime_checks.coreml_mil.package import load_program
from runtime_checks.runners.base import NotRunnableError

SEED = 0
FAMILIES = (
    "activation",
    "compression",
    "constexpr_ops",
    "control_flow",
    "conv",
    "elementwise_binary",
    "elementwise_unary",
    "linear",
    "normalization",
    "pool",
    "quantization",
    "recurrent",
    "reduction",
    "scatter_gather",
    "states",
    "tensor_operation",
    "tensor_transformation",
    "transformers",
)
PASSED, DIFFERS, UNKNOWN = "passed", "differs", "unknown operation"
SKIPPED, NOT_COMPARED = "skipped", "nothing to compare"
OUTCOMES = (PASSED, DIFFERS, UNKNOWN, SKIPPED, NOT_COMPARED)


@dataclass
class Results:
    """Outcomes by test function, and why a test differs."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """Over all tests."""
        return sum(counter[outcome] for counter in self.outcomes.values())

    @property
    def rate(self) -> float:
        """Share of the compared tests of known operations that pass."""
        compared = self.count(PASSED) + self.count(DIFFERS)
        return self.count(PASSED) / compared if compared else 0.0


class ApplesTests:
    """A pytest plugin: draws the tests, answers their predictions and counts their outcomes."""

    def __init__(self, *, each: int, native: bool = False) -> None:
        self.results = Results()
        self._each, self._native = each, native
        self._predicted = False

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Keep ML Programs, and some of each test."""
        kept = _draw([item for item in items if _is_program(item)], self._each)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        """Answer predictions while a test runs."""
        self._predicted = False
        with contextlib.nullcontext() if self._native else _answering(self):
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, Any]:
        """Count how it went."""
        report = yield
        name = _name(item)
        if report.when == "call" or report.skipped:
            outcome = self._outcome(report, call)
            self.results.outcomes[name][outcome] += 1
            if outcome in (DIFFERS, UNKNOWN):
                self.results.reasons.setdefault(name, _reason(call.excinfo.value))
        return report

    def predict(self, path: Path | None, inputs: Mapping[str, Any], state: Any) -> dict[str, Any]:
        """What a package gives; `state` is an evaluator that keeps its states."""
        self._predicted = True
        if path is None:
            pytest.skip("a neural network, no ML Program")
        evaluator = state or Evaluator(load_program(path))
        given = {name: np.asarray(value) for name, value in inputs.items()}
        try:
            return {**evaluator.run(given)}
        except EvaluationError as error:  # in Core ML's words, which tests of errors look for
            message = f"Unable to compute the prediction using ML Program: {error}"
            raise RuntimeError(message) from error

    def _outcome(self, report: Any, call: Any) -> str:
        if report.skipped:
            return SKIPPED
        if not self._predicted and not self._native:
            return NOT_COMPARED
        if report.passed:
            return PASSED
        return UNKNOWN if isinstance(call.excinfo.value, NotRunnableError) else DIFFERS


def _is_program(item: Any) -> bool:
    backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")
    return backend is None or getattr(backend, "backend", "") == "mlprogram"


def _draw(items: Sequence[Any], each: int) -> set[Any]:
    by_name: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        by_name[_name(item)].append(item)
    if not each:
        return set(items)
    drawn: set[Any] = set()
    for name, group in by_name.items():
        # Seeded by name, so that a test's sample does not depend on what else is run.
        generator = random.Random(f"{SEED} {name}")  # noqa: S311 - a sample, not a secret
        drawn.update(generator.sample(group, min(each, len(group))))
    return drawn


def _name(item: Any) -> str:
    _, _, test = item.nodeid.partition("::")
    return f"{'/'.join(item.path.parts[-2:])}::{test.partition('[')[0]}"


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    mismatch = [line for line in lines if line.startswith(("Mismatched", "Max absolute"))]
    return f"{type(error).__name__}: {'; '.join(mismatch or lines[:1])[:200]}"


@contextlib.contextmanager
def _answering(plugin: ApplesTests) -> Iterator[None]:
    """Have coremltools believe in a macOS whose Core ML is the evaluator."""
    import coremltools as ct
    import coremltools.converters.mil.testing_utils as testing
    from coremltools.models import utils

    def predict(model: Any, data: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
        path = model.package_path
        return plugin.predict(Path(path) if path else None, data, state)

    def make_state(model: Any) -> Evaluator:
        return Evaluator(load_program(Path(model.package_path)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "_IS_MACOS", True)
        patch.setattr(utils, "_macos_version", lambda: (15, 4))
        patch.setattr(ct.models.MLModel, "predict", predict)
        patch.setattr(ct.models.MLModel, "make_state", make_state)
        yield


def files(families: Sequence[str]) -> list[Path]:
    """Test files of the wheel, by family."""
    from coremltools.converters.mil.mil.ops import tests

    folder = Path(str(tests.__file__)).parent
    found = [path for name in families for path in sorted(folder.glob(f"iOS*/test_{name}.py"))]
    return sorted(found)


def run(paths: Sequence[Path], *, each: int, native: bool = False, keyword: str = "") -> Results:
    """Run the tests in this process, without this project's own pytest settings."""
    plugin = ApplesTests(each=each, native=native)
    options = ["-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-c", "/dev/null", "--rootdir", str(paths[0].parent), "-W", "ignore"]
    options += ["-k", keyword] if keyword else []
    with contextlib.redirect_stderr(io.StringIO()):
        pytest.main([*options, *(str(path) for path in paths)], plugins=[plugin])
    return plugin.results


def table(results: Results) -> str:
    """Markdown: one row a test file, then every test that differs, then what is not covered."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for name, counter in results.outcomes.items():
        rows[name.partition("::")[0]].update(counter)
    lines = [f"| test file | {' | '.join(OUTCOMES)} |", f"|---|{'---:|' * len(OUTCOMES)}"]
    total: Counter[str] = Counter()
    for name, counter in sorted(rows.items()):
        total.update(counter)
        lines.append(f"| `{name}` | {' | '.join(str(counter[each]) for each in OUTCOMES)} |")
    lines.append(f"| all | {' | '.join(str(total[each]) for each in OUTCOMES)} |")
    for title, outcome in (("Differ", DIFFERS), ("Not covered", UNKNOWN)):
        named = {n: c for n, c in results.outcomes.items() if c[outcome]}
        if named:
            lines += ["", f"{title}:", ""]
        for name, counter in sorted(named.items()):
            share = f"{counter[outcome]} of {counter.total()}"
            lines.append(f"- `{name}` ({share}): {results.reasons[name]}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, print, and fail under 90 per cent."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--each", type=int, default=6, help="parametrisations a test; 0: all")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="default: all")
    parser.add_argument("-k", dest="keyword", default="", help="as pytest's")
    parser.add_argument("--native", action="store_true", help="let Core ML answer (a Mac)")
    parser.add_argument("--markdown", type=Path, help="write the table")
    given = parser.parse_args()
    results = run(
        files(given.family or FAMILIES),
        each=given.each,
        native=given.native,
        keyword=given.keyword,
    )
    text = table(results)
    sys.stdout.write(f"\n{text}\n{results.rate:.1%} of the compared tests pass\n")
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    raise SystemExit(results.rate < 0.9)


if __name__ == "__main__":
    main()
