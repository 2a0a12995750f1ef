"""What recipes are for, whatever the backend: one description each, and who refuses which and why.

A backend registers a recipe (`backends.base.register_recipe`) or refuses it here with its reason,
in its own file. What neither names, a backend does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

DESCRIPTIONS: Mapping[str, str] = {
    "fp32": "as trained",
    "fp16": "weights in float16, computed in float16 where the runtime does",
    "int8-weights": "weights stored in int8, computed in floats",
    "int8-dynamic": "LSTM and linear layers multiply int8, inputs quantised as they come",
    "int8-static": "convolutions on integers too, their ranges calibrated on audio",
    "int8-qat": "all convolutions on integers, weights and ranges from training",
    "w8a16": "int8 weights, activations in 16-bit integers",
    "palette-8": "weights are indices into tables of 256 values",
    "palette-6": "weights are indices into tables of 64 values",
    "palette-4": "weights are indices into tables of 16 values",
    "int4-weights": "weights stored in 4 bits, in blocks with a scale and an offset",
    "pruned-int8": "the smallest weights left out, the others in int8",
}

REFUSED: dict[str, str] = {}
"""Reasons by `backend/recipe`."""


def refuse(backend: str, reasons: Mapping[str, str]) -> None:
    """Say why a backend has no such recipes; ValueError on a recipe that has no description."""
    for name, reason in reasons.items():
        if name not in DESCRIPTIONS or not reason:
            raise ValueError(f"no description of recipe {name!r}, or no reason to refuse it")
        REFUSED[f"{backend}/{name}"] = reason
