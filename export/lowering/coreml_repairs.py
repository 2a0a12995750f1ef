"""What coremltools 9.0 and what is below it get wrong, handled once each.

Each has a test that fails as soon as it can go (`tests/export/test_coreml_repairs.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention layers are traced as the operations they are made of.

    In evaluation mode PyTorch has a fast path that is one operation, of which coremltools knows
    nothing: https://github.com/apple/coremltools/issues/2311.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def sound_unique() -> Iterator[None]:
    """`numpy.unique` of float16 by way of float32, by which coremltools makes palettes.

    Where numpy sorts float16 with AVX-512 the order is now and then wrong (numpy 2.3, AMD Zen), so
    that values count twice, a palette of 256 seems to have too many, and is left out without an
    error. A family of it: https://github.com/numpy/numpy/issues/29808.
    """
    sorted_wrongly: Callable[..., Any] = np.unique

    def unique(ar: Any, *args: Any, **kwargs: Any) -> Any:
        values = np.asanyarray(ar)
        if values.dtype != np.float16:
            return sorted_wrongly(ar, *args, **kwargs)
        found = sorted_wrongly(values.astype(np.float32), *args, **kwargs)
        if isinstance(found, tuple):
            return (found[0].astype(np.float16), *found[1:])
        return found.astype(np.float16)

    np.unique = unique
    try:
        yield
    finally:
        np.unique = sorted_wrongly


def forget_names() -> None:
    """Count the names of constants from nought again.

    coremltools counts them in the process and forgets them after a conversion, but not after it has
    loaded a package: the next conversion would give the same program other names, and another hash.
    """
    from coremltools.converters.mil.mil import Builder

    Builder.name_count.clear()
