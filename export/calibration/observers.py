"""Observers: from the values that a tensor took, the range that its integers will span.

Values outside are clipped, values inside are rounded to 255 steps: a wide range rounds coarsely, a
narrow one clips what is loudest. Every range holds zero, which then is a step of its own.

- minmax: all values. One outlier makes all steps coarse.
- percentile: all but the share (1e-4) of each tail.
- entropy: the range after whose rounding the histogram has lost the least (Migacz, "8-bit inference
  with TensorRT", 2017), as onnxruntime.quantization finds it.
- mse: the range with the least mean squared error of clipping and rounding together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..errors import RecipeError

Values = NDArray[np.float32]
Observer = Callable[[Values], tuple[float, float]]

DEFAULT_OBSERVER = "percentile"
PERCENTILE = 99.99
STEPS = 255
MOST_VALUES = 500_000
SHRINKINGS = np.linspace(1.0, 0.2, 81)
BINS = 2048
QUANTISED_BINS = 128


def observe(values: Values, observer: str, *, share: float = PERCENTILE) -> tuple[float, float]:
    """The range (low <= 0, high >= 0) of a tensor's values; `share` is what `percentile` keeps.

    Raises `RecipeError` on an observer that does not exist, and on values that are not finite.
    """
    known_observer(observer)
    if not np.isfinite(values).all():
        raise RecipeError(
            "calibration",
            found="activations that are not finite",
            todo="Check the checkpoint and the calibration audio.",
        )
    if observer == "percentile":
        return _with_zero(*percentile(values.ravel(), share=share))
    return _with_zero(*OBSERVERS[observer](values.ravel()))


def known_observer(name: str) -> str:
    """The name of an observer; raises `RecipeError` on another."""
    if name not in OBSERVERS:
        raise RecipeError(
            f"calibration observer {name}",
            found="no such observer",
            expected=f"one of {', '.join(OBSERVERS)}",
        )
    return name


def minmax(values: Values) -> tuple[float, float]:
    """All values."""
    return float(values.min()), float(values.max())


def percentile(values: Values, *, share: float = PERCENTILE) -> tuple[float, float]:
    """All but what is beyond a percentile at either end."""
    low, high = np.percentile(values, [100 - share, share])
    return float(low), float(high)


def entropy(values: Values) -> tuple[float, float]:
    """The least Kullback-Leibler divergence, by onnxruntime's own search over thresholds.

    The search knows thresholds about zero only: the range is what lies within them.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector

    largest = float(np.abs(values).max())
    if largest == 0:
        return 0.0, 0.0
    counts, edges = np.histogram(values, bins=BINS, range=(-largest, largest))
    collector = HistogramCollector("entropy", False, BINS, QUANTISED_BINS, PERCENTILE, "same")
    seen = (counts, edges, values.min(), values.max(), largest)
    low, high = collector.get_entropy_threshold(seen, QUANTISED_BINS)
    return float(low), float(high)


def mse(values: Values) -> tuple[float, float]:
    """The least squared error, over ranges of which first the upper end shrinks, then the lower."""
    sample = values[:: max(1, len(values) // MOST_VALUES)]
    low, high = _with_zero(*minmax(values))
    high = min(high * SHRINKINGS, key=lambda end: _squared_error(sample, low, end))
    low = min(low * SHRINKINGS, key=lambda end: _squared_error(sample, end, high))
    return float(low), float(high)


OBSERVERS: Mapping[str, Observer] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def _squared_error(values: Values, low: float, high: float) -> float:
    step = (high - low) / STEPS
    if step <= 0:
        return float(np.mean(values.astype(np.float64) ** 2))
    rounded = np.clip(np.round((values - low) / step), 0, STEPS) * step + low
    return float(np.mean((rounded - values) ** 2))


def _with_zero(low: float, high: float) -> tuple[float, float]:
    return min(low, 0.0), max(high, 0.0)
