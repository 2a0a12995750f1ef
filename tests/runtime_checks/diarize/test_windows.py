"""The rolling window: what it holds, and that chunks do not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_checks.diarize.windows import Hop, RollingWindow


def hops_of(samples: np.ndarray, sizes: list[int], *, window: int, hop: int) -> list[Hop]:
    rolling = RollingWindow(window_samples=window, hop_samples=hop)
    found: list[Hop] = []
    taken = 0
    while taken < len(samples):
        size = sizes.pop(0) if sizes else len(samples)
        found += rolling.push(samples[taken : taken + size])
        taken += size
    return [*found, *rolling.finish()]


@given(
    total=st.integers(0, 60),
    hop=st.integers(1, 9),
    more=st.integers(0, 9),
    sizes=st.lists(st.integers(1, 20), max_size=30),
)
def test_every_window_holds_the_recording_where_it_says(
    total: int, hop: int, more: int, sizes: list[int]
) -> None:
    window = hop + more
    samples = np.arange(1, total + 1, dtype=np.float32)
    hops = hops_of(samples, sizes, window=window, hop=hop)

    assert len(hops) == -(-total // hop)
    padded = np.concatenate([np.zeros(window, np.float32), samples, np.zeros(window, np.float32)])
    for index, each in enumerate(hops):
        assert each.index == index
        assert each.start == (index + 1) * hop - window
        assert each.end == min(total, (index + 1) * hop)
        expected = padded[window + each.start : 2 * window + each.start].copy()
        np.testing.assert_array_equal(each.samples, expected)


def test_a_hop_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="a hop of 9 samples in a window of 8"):
        RollingWindow(window_samples=8, hop_samples=9)
