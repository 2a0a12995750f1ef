"""What coremltools and numpy get wrong: that it is handled, and whether it still must be."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.lowering.coreml_repairs import forget_names, plain_attention, sound_unique


def converted(module: nn.Module, *shape: int) -> Any:
    import coremltools as ct

    with torch.no_grad():
        traced = torch.jit.trace(module.eval(), torch.rand(shape), check_trace=False)  # type: ignore[no-untyped-call]
    inputs = [ct.TensorType(name="x", shape=shape)]
    return ct.convert(traced, inputs=inputs, skip_model_load=True)


def test_attention_is_converted_without_pytorchs_fast_path() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    with plain_attention():
        assert converted(layer, 1, 8, 16).get_spec().mlProgram.functions
    assert torch.backends.mha.get_fastpath_enabled()


def test_coremltools_still_lacks_the_fast_path() -> None:
    """Fails when `plain_attention` can go."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    with pytest.raises(Exception, match=r"_transformer_encoder_layer_fwd|not implemented"):
        converted(layer, 1, 8, 16)


class FlattenBySize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], int(x.shape[1] * x.shape[2]))


def test_coremltools_still_makes_numbers_of_arrays_as_numpy_2_4_forbids() -> None:
    """Fails when pyproject.toml may allow numpy 2.4: an error there is a warning until 2.3.

    https://github.com/apple/coremltools/issues/2633
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Conversion of an array with ndim > 0", DeprecationWarning)
        with pytest.raises(Exception, match=r"ndim > 0|0-dimensional"):
            converted(FlattenBySize(), 1, 3, 4)
    assert converted(FlattenBySize(), 1, 3, 4).get_spec().mlProgram.functions


def test_values_of_float16_are_counted_once_on_every_processor() -> None:
    draw, found = np.random.default_rng(0), np.unique
    for _ in range(20):
        palette = draw.normal(size=200).astype(np.float16)
        values = palette[draw.integers(0, 200, 65536)]
        with sound_unique():
            once, inverse = np.unique(values, return_inverse=True)
            assert len(np.unique(values)) == len(once) == len(set(values.tolist()))
        np.testing.assert_array_equal(once[inverse], values)
        assert once.dtype == np.float16
    assert np.unique is found


def test_names_do_not_depend_on_what_was_loaded_before() -> None:
    from coremltools.converters.mil.mil import Builder

    Builder.name_count["const"] = 7
    forget_names()
    assert not Builder.name_count
