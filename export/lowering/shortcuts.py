"""What exporters do over and over and nobody reads, left out while they run.

None of it changes a byte of what is written.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FEW_COLLECTIONS = 50_000
"""Objects between two searches for cycles; Python's 700 are for programs that keep little."""


@contextmanager
def lower_quickly() -> Iterator[None]:
    """PyTorch's graph passes, without copies of where every node once came from.

    Each of some hundred passes makes a node anew and copies, deeply, the history of the old one,
    which has as many generations as there were passes. It is never changed, so nodes may share it.
    """
    from torch.fx.traceback import NodeSource

    source: Any = NodeSource
    source.__deepcopy__ = lambda self, memo: self
    try:
        with collect_seldom():
            yield
    finally:
        del source.__deepcopy__


@contextmanager
def convert_quickly() -> Iterator[None]:
    """coremltools' passes, with programs checked after dead code was removed, not after each pass.

    The checks look at every use of every value, and there are a hundred passes; no pass depends on
    them, and every pipeline removes dead code several times.
    """
    from coremltools.converters.mil.mil import Program

    program: Any = Program
    validate = program.validate

    def seldom(self: Any, check_essential_scope: bool | None = False) -> None:
        if check_essential_scope:
            validate(self, check_essential_scope)

    program.validate = seldom
    try:
        with collect_seldom():
            yield
    finally:
        program.validate = validate


@contextmanager
def collect_seldom() -> Iterator[None]:
    """Look for cycles of objects less often: what the tools are still working on has many."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], FEW_COLLECTIONS), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
