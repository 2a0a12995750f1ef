"""Where the instructions of an ExecuTorch program run: in delegates, on portable kernels, in loops.

A program is a list of instructions: calls of kernels, calls of delegates, and jumps. A scan is
emitted as its body followed by a jump back to the body's start.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from ..types import GraphStats

DELEGATE_CALL, KERNEL_CALL, JUMP = "DelegateCall", "KernelCall", "JumpFalseCall"
RESET = "executorch_prim::sub.Scalar"

# They fill, number, reorder, pad and copy, once a window, and compute nothing on values.
HOUSEKEEPING = frozenset(
    {
        "aten::alias_copy.out",
        "aten::arange.start_out",
        "aten::cat.out",
        "aten::copy_",
        "aten::full.out",
        "aten::index_select.out",
        "aten::select_copy.int_out",
        "aten::sym_size.int",
        "aten::view_copy.out",
        RESET,
    }
)
# What a scan is emitted as: slices in, copies out, a counter and a jump.
LOOP = frozenset(
    {
        JUMP,
        "aten::copy_",
        "aten::select_copy.int_out",
        "aten::view_copy.out",
        "executorch_prim::add.Scalar",
        "executorch_prim::eq.Scalar",
        "executorch_prim::et_copy_index.tensor",
    }
)
# The body of a scan that no delegate computes.
RECURRENCE = frozenset(
    {
        "aten::add.out",
        "aten::addmm.out",
        "aten::bmm.out",
        "aten::cat.out",
        "aten::mm.out",
        "aten::mul.out",
        "aten::relu.out",
        "aten::rsub.Scalar_out",
        "aten::sigmoid.out",
        "aten::slice_copy.Tensor_out",
        "aten::sub.out",
        "aten::tanh.out",
        "dim_order_ops::_clone_dim_order.out",
    }
)


def program_stats(program: Any, graph_module: Any, *, weight_bytes: int) -> GraphStats:
    """Counts for an emitted program (executorch.exir.schema.Program) and the lowered graph it is
    of; loops are counted once."""
    (plan,) = program.execution_plan
    (chain,) = plan.chains
    names = [operator(plan, instruction) for instruction in chain.instructions]
    looping = {index for loop in loops(chain.instructions) for index in loop}
    delegates = {delegate.id for delegate in plan.delegates}
    return GraphStats(
        operators=_counts(names),
        delegates=len(plan.delegates),
        weight_bytes=weight_bytes,
        delegated=_delegated(program, graph_module),
        portable=_counts(
            name for i, name in enumerate(names) if i not in looping and name not in delegates
        ),
        looped=_counts(name for i, name in enumerate(names) if i in looping),
    )


def fallbacks(stats: GraphStats, *, portable_recurrence: bool) -> dict[str, int]:
    """Operators on portable kernels that are no housekeeping; with `portable_recurrence` the bodies
    of loops may compute there as well."""
    delegates = {name.partition(" ")[0] for name in stats.delegated}
    in_loops = LOOP | delegates | (RECURRENCE if portable_recurrence else frozenset())
    found = Counter({n: c for n, c in stats.portable.items() if n not in HOUSEKEEPING})
    found += Counter({n: c for n, c in stats.looped.items() if n not in in_loops})
    return dict(found)


def operator(plan: Any, instruction: Any) -> str:
    """`aten::add.out`, the id of a delegate, or the kind of another instruction."""
    call = instruction.instr_args
    kind = type(call).__name__
    if kind == KERNEL_CALL:
        called = plan.operators[call.op_index]
        return f"{called.name}.{called.overload}".removesuffix(".")
    return str(plan.delegates[call.delegate_index].id) if kind == DELEGATE_CALL else kind


def loops(instructions: Any) -> list[range]:
    """The instructions of every loop, its jump included, in the program's order."""
    return [
        range(call.destination_instruction, index + 1)
        for index, instruction in enumerate(instructions)
        if type(call := instruction.instr_args).__name__ == JUMP
        and call.destination_instruction <= index
    ]


def _delegated(program: Any, graph_module: Any) -> dict[str, dict[str, int]]:
    """Operators inside each delegate. A program knows its delegates by what they were lowered to,
    so that is what tells which graph is which."""
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    graphs = {
        hashlib.sha256(module.processed_bytes).digest(): module.original_module.graph
        for module in graph_module.modules()
        if isinstance(module, LoweredBackendModule)
    }
    found = {}
    for index, delegate in enumerate(program.execution_plan[0].delegates):
        data = program.backend_delegate_data[delegate.processed.index].data
        graph = graphs[hashlib.sha256(data).digest()]
        called = (n.target for n in graph.nodes if n.op == "call_function")
        found[f"{delegate.id} {index + 1}"] = _counts(
            target.__name__ for target in called if target.__name__ != "getitem"
        )
    return found


def _counts(names: Any) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
