"""SincNet's filterbank as a constant convolution.

Its filters are recomputed from cut-off frequencies at every call (Ravanelli and Bengio, "Speaker
recognition from raw waveform with SincNet", 2018); they depend on nothing but weights, so baking
them is exact.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .base import register_rewrite


@register_rewrite("sincnet_filterbank")
class SincNetFilterbank:
    """asteroid's Encoder(ParamSincFB) -> Conv1d."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """A Conv1d with the filterbank's present filters."""
        from asteroid_filterbanks import Encoder, ParamSincFB

        encoder: Any = module
        if not isinstance(encoder, Encoder) or not isinstance(encoder.filterbank, ParamSincFB):
            return None
        filters = encoder.filterbank.filters().detach()
        conv = nn.Conv1d(
            1,
            filters.shape[0],
            filters.shape[2],
            stride=encoder.filterbank.stride,
            padding=encoder.padding,
            bias=False,
            dtype=filters.dtype,
        )
        conv.weight.data.copy_(filters)
        return conv
