"""A few of Apple's own operator tests, compared with the evaluator as docs/coreml.md has all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "apple_operator_tests.py"


def test_apples_recurrent_and_attention_tests_agree_with_the_evaluator(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    families = ("--family", "recurrent", "--family", "transformers")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--each", "1", *families, "--markdown", str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stdout[-2000:]
    total = next(line for line in out.read_text().splitlines() if line.startswith("| all |"))
    passed, differs, unknown, *_ = (int(cell) for cell in total.split("|")[2:-1])
    assert passed >= 8 and differs == unknown == 0, out.read_text()
