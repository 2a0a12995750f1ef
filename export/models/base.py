"""What an architecture must answer. One architecture is one file beside this one."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..registry import Registry
from ..types import ModelSpec, Recipe


class Architecture(Protocol):
    """Builds, describes and flattens models of one kind."""

    def tiny_config(self) -> dict[str, Any]:
        """A configuration of the least cost, with which the contract tests try everything."""
        ...

    def build(self, config: dict[str, Any]) -> nn.Module:
        """A model in evaluation mode with fresh weights, from a plain-JSON configuration."""
        ...

    def config(self, model: nn.Module) -> dict[str, Any]:
        """The configuration that `build` makes this model's skeleton from."""
        ...

    def spec(self, model: nn.Module, *, name: str, licence: str, trained_on: str) -> ModelSpec:
        """The model's contract for windows of its own length."""
        ...

    def with_window(self, model: nn.Module, spec: ModelSpec, window_s: float) -> ModelSpec:
        """The contract for windows of another length."""
        ...

    def canonical(self, model: nn.Module) -> nn.Module:
        """The same computation as a plain module that shares no weights with the model."""
        ...

    def example_inputs(self, spec: ModelSpec) -> tuple[Tensor, ...]:
        """Random inputs of the spec's shapes, for tracing."""
        ...


@runtime_checkable
class Selective(Protocol):
    """An architecture that not every recipe or form can be made of."""

    def refuses(self, recipe: Recipe) -> str | None:
        """Why this architecture cannot be exported so, or None."""
        ...


MODELS: Registry[Architecture] = Registry("architecture", "export.models")
register_model = MODELS.register


def example_inputs(spec: ModelSpec) -> tuple[Tensor, ...]:
    """Inputs for tracing any form of a model: its architecture's, as long as the contract says, and
    zeros for states."""
    given = [
        value[tuple(slice(size) for size in tensor.shape)]
        for value, tensor in zip(
            MODELS[spec.architecture].example_inputs(spec), spec.inputs, strict=False
        )
    ]
    states = spec.inputs[len(given) :]
    return (*given, *(torch.zeros([size or 1 for size in state.shape]) for state in states))
