"""Control flow, lists and states."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Call, Held, List, Result, operator


@operator("cond")
def cond(call: Call) -> Result:
    """The first block where the condition holds, else the second."""
    chosen = call.operation.blocks[0 if call.flag("pred") else 1]
    return tuple(call.run_block(chosen, ()))


@operator("while_loop")
def while_loop(call: Call) -> Result:
    """The second block as long as the first one says so, on its own results."""
    condition, body = call.operation.blocks
    values: list[Held] = list(call.values("loop_vars"))
    while True:
        (goes_on,) = call.run_block(condition, values)
        if not isinstance(goes_on, Tensor) or not bool(goes_on.reshape(-1)[0]):
            return tuple(values)
        values = call.run_block(body, values)


@operator("read_state")
def read_state(call: Call) -> Tensor:
    """What a state holds."""
    return call.states[call.text("input")].clone()


@operator("coreml_update_state", "write_state")
def update_state(call: Call) -> Tensor:
    """Have a state hold another value, which is the result too."""
    call.states[call.text("state")] = call.tensor("value").clone()
    return call.tensor("value")


@operator("make_list")
def make_list(call: Call) -> List:
    """A list of zeros."""
    sizes = [int(each) if isinstance(each, Tensor) else 1 for each in call.values("elem_shape")]
    return [torch.zeros(sizes) for _ in range(call.whole("init_length", 1))]


@operator("list_length")
def list_length(call: Call) -> Tensor:
    """How many tensors a list holds."""
    return torch.tensor(len(call.listed()))


@operator("list_read")
def list_read(call: Call) -> Tensor:
    """One tensor of a list."""
    return call.listed()[call.whole("index")]


@operator("list_write")
def list_write(call: Call) -> List:
    """A list with one tensor changed; it grows where it must."""
    return _written(call.listed(), [call.whole("index")], [call.tensor("value")])


@operator("list_gather")
def list_gather(call: Call) -> Tensor:
    """Some tensors of a list, stacked."""
    values = call.listed()
    return torch.stack([values[index] for index in call.wholes("indices")])


@operator("list_scatter")
def list_scatter(call: Call) -> List:
    """A list with the tensors at `indices` changed."""
    return _written(call.listed(), call.wholes("indices"), list(call.tensor("value")))


def _written(given: List, indices: list[int], values: list[Tensor]) -> List:
    out = list(given)
    for index, value in zip(indices, values, strict=True):
        out += [torch.zeros_like(value)] * (index + 1 - len(out))
        out[index] = value
    return out
