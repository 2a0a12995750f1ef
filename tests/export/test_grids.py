"""Grids of a few bits: how many levels, how far off, and that a converter finds the same again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from export.compress.grids import Floats, blocks, divisor, gathered, palette, shaped, symmetric

# Normal in float32 and far from each other's rounding: no ties, no subnormal scales.
WEIGHTS = arrays(
    np.float64, (4, 24), elements=st.floats(-2, 2).map(lambda x: round(x, 3)), unique=False
)


@given(WEIGHTS, st.sampled_from([4, 8]))
def test_a_symmetric_grid_is_near_and_is_found_again(weight: Floats, bits: int) -> None:
    made = symmetric(weight, bits=bits)
    scale = np.abs(weight).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert (np.abs(made - weight) <= scale / 2 + 1e-12).all()
    np.testing.assert_allclose(symmetric(made, bits=bits), made, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.abs(made).max(axis=1), np.abs(weight).max(axis=1), atol=1e-12)


@given(WEIGHTS)
def test_blocks_are_near_hold_zero_and_are_found_again(weight: Floats) -> None:
    made = blocks(weight, bits=4, size=8)
    values = weight.reshape(4, 3, 8)
    low, high = values.min(2, keepdims=True).clip(max=0), values.max(2, keepdims=True).clip(min=0)
    scale = np.broadcast_to((high - low) / 15, values.shape).reshape(weight.shape)
    assert (np.abs(made - weight) <= scale + 1e-12).all()
    assert (made[weight == 0] == 0).all()
    assert all(len(np.unique(block)) <= 16 for block in made.reshape(12, 8).round(12))
    np.testing.assert_allclose(blocks(made, bits=4, size=8), made, rtol=0, atol=1e-9)


def test_a_block_whose_ends_are_halves_keeps_all_its_steps() -> None:
    weight = np.array([[-1.0, 29, 3, 5, 7, 0, 1, 2]])  # steps of 2: ends at -0.5 and 14.5 steps
    made = blocks(weight, bits=4, size=8)
    assert (made.min(), made.max()) == (0, 30)
    assert np.array_equal(blocks(made, bits=4, size=8), made)


def test_blocks_that_do_not_divide_a_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"blocks of 16.*\(4, 60\)"):
        blocks(np.ones((4, 60)), bits=4, size=16)


@pytest.mark.parametrize(("width", "most", "expected"), [(60, 16, 15), (80, 16, 16), (37, 16, 1)])
def test_a_block_divides_its_width(width: int, most: int, expected: int) -> None:
    assert divisor(width, most=most) == expected


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_palette_has_so_many_values_and_no_value_has_a_nearer_one(bits: int) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 128))
    made = palette(weight, bits=bits, rows=32)
    for rows in (slice(0, 32), slice(32, 64)):
        entries = np.unique(made[rows])
        assert 0.8 * 2**bits < len(entries) <= 2**bits
        nearest = np.abs(weight[rows][..., None] - entries).min(axis=-1)
        np.testing.assert_allclose(np.abs(made[rows] - weight[rows]), nearest, rtol=0, atol=1e-12)
        for entry in entries[:: len(entries) // 8]:  # near the mean of what it stands for
            chosen = weight[rows][made[rows] == entry]
            assert chosen.mean() == pytest.approx(entry, abs=2e-3)
    np.testing.assert_array_equal(palette(made, bits=bits, rows=32), made)


def test_few_values_are_their_own_palette() -> None:
    weight = np.array([[1.0, -2.0, 0.0], [0.0, 1.0, 1.0]])
    np.testing.assert_array_equal(palette(weight, bits=4, rows=2), weight)


def test_a_shaped_filter_is_quiet_where_speech_is_loud_and_keeps_its_grid() -> None:
    taps = np.arange(-125, 126)
    cosines = [np.hamming(251) * np.cos(2 * np.pi * f * taps) for f in (0.05, 0.1, 0.2)]
    weight = np.stack(cosines)[:, None]
    made, plain = shaped(weight, bits=8), symmetric(weight, bits=8)

    def error_below_1_khz(values: Floats) -> float:
        spectrum = np.abs(np.fft.rfft((values - weight)[:, 0], 16000))
        return float(np.sqrt(np.square(spectrum[:, :1000]).mean()))

    assert error_below_1_khz(made) < 0.2 * error_below_1_khz(plain)
    scale = np.abs(weight).max(axis=2, keepdims=True) / 127
    np.testing.assert_allclose((made / scale).round() * scale, made, rtol=0, atol=1e-12)
    np.testing.assert_allclose(symmetric(made, bits=8), made, rtol=0, atol=1e-12)


def test_values_that_differ_by_rounding_are_gathered_into_one() -> None:
    draw = np.random.default_rng(0)
    cosines = np.cos(2 * np.pi * np.outer(np.arange(60), np.arange(60)) / 400)
    noisy = cosines + 1e-6 * draw.normal(size=cosines.shape)
    made = gathered(noisy, bits=8)
    assert len(np.unique(made)) <= 256 < len(np.unique(noisy))
    assert np.abs(made - noisy).max() < 1e-5
    np.testing.assert_array_equal(gathered(made, bits=8), made)
    few = np.array([[1.0, -2.0], [0.0, 1.0]])
    np.testing.assert_array_equal(gathered(few, bits=8), few)
