"""Exact graph rewrites: each replaces modules of one kind by an equal one, in one file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

from torch import nn

from ..registry import Registry


class Rewrite(Protocol):
    """Replaces one module by an equal one."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The module's replacement, or None when this rewrite does not concern it."""
        ...


REWRITES: Registry[Rewrite] = Registry("rewrite", "export.rewrites")
register_rewrite = REWRITES.register


def apply_rewrites(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A copy of the model with the named rewrites applied in order to every submodule.

    What a rewrite computes ahead of time is computed in float64 and rounded once, to the model's
    own type: SincNet's filters, computed in float32, would alone account for more rounding than
    the rest of the network.
    """
    dtype = next(model.parameters()).dtype
    model = copy.deepcopy(model).double()
    for name in names:
        _apply(model, REWRITES[name])
    return model.to(dtype).eval()


def _apply(parent: nn.Module, rewrite: Rewrite) -> None:
    for child_name, child in list(parent.named_children()):
        replacement = rewrite.replace(child)
        if replacement is None:
            _apply(child, rewrite)
        else:
            setattr(parent, child_name, replacement)
