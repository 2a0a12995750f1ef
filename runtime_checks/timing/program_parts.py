"""Where the time of an ExecuTorch program goes, measured on copies of it that end early.

ETDump, ExecuTorch's own profiler, is not compiled into its wheel. But a program is a list of
instructions, so it is cut behind every delegate's call and every loop, each copy runs the program
up to its cut on real data, and a part's time is the median of the difference of two copies. The
copies take turns, so that a slow spell of the machine falls on all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.lowering.placement import RESET, loops, operator
from export.quiet import quiet_tools
from export.types import NodeTime

METHOD = "forward"
PORTABLE = "portable"
WARMUP_RUNS = 2


def profile_program(
    data: bytes, windows: Sequence[Mapping[str, NDArray[np.float32]]]
) -> tuple[NodeTime, ...]:
    """Times of the program's parts in its order, one a delegate's call, loop or run of kernels.

    A loop is one part, of its delegates' place if it calls one: its turns depend on each other.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary

    with quiet_tools():
        plan = deserialize_pte_binary(data).program.execution_plan[0]
        (chain,) = plan.chains
        parts = split(plan, chain.instructions)
        methods = [_cut(data, part.stop) for part in parts]
        samples_ms = _take_turns([method for _, method in methods], windows)
    spent_ms = np.median(np.diff(samples_ms, axis=0, prepend=0.0), axis=1)
    loop_starts = [loop.start for loop in loops(chain.instructions)]
    found = []
    for part, ms in zip(parts, spent_ms, strict=True):
        inside = Counter(operator(plan, chain.instructions[index]) for index in part)
        delegates = {delegate.id for delegate in plan.delegates} & set(inside)
        looping = part.start in loop_starts
        found.append(
            NodeTime(
                place=min(delegates, default=PORTABLE),
                kind=_describe(plan, chain.instructions, part, looping=looping),
                nodes=len(part),
                ms=float(ms),
            )
        )
    return tuple(found)


def split(plan: Any, instructions: Sequence[Any]) -> list[range]:
    """Instructions in parts: every loop (with the reset of its counter), every call of a delegate
    outside of loops, and what lies between."""
    delegates = {delegate.id for delegate in plan.delegates}
    names = [operator(plan, instruction) for instruction in instructions]
    alone = {loop.start: loop.stop for loop in loops(instructions)}
    looping = {index for loop in loops(instructions) for index in loop}
    alone |= {i: i + 1 for i, n in enumerate(names) if n in delegates and i not in looping}
    parts, start = [], 0
    while start < len(names):
        stop = alone.get(start) or min([s for s in alone if s > start], default=len(names))
        if start in looping and names[stop : stop + 1] == [RESET]:
            stop += 1  # a copy that ends before would leave the counter where the loop ended
        parts.append(range(start, stop))
        start = stop
    return parts


def _describe(plan: Any, instructions: Sequence[Any], part: range, *, looping: bool) -> str:
    """`delegate 2`, `loop over delegate 2 and 9 operators`, or the operators' names."""
    calls = [
        instruction.instr_args.delegate_index + 1
        for instruction in (instructions[index] for index in part)
        if type(instruction.instr_args).__name__ == "DelegateCall"
    ]
    called = "delegate " + ", ".join(str(call) for call in calls)
    if looping:
        rest = f"{len(part) - len(calls)} operators"
        return f"loop over {called} and {rest}" if calls else f"loop over {rest}"
    if calls:
        return called
    names = Counter(operator(plan, instructions[index]) for index in part)
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in sorted(names.items()))


def _cut(data: bytes, stop: int) -> tuple[Any, Any]:
    """The program without the instructions from `stop` on, and its method (which points into the
    program's memory without keeping it)."""
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
    from executorch.runtime import Runtime

    file = deserialize_pte_binary(data)
    (chain,) = file.program.execution_plan[0].chains
    del chain.instructions[stop:]
    if chain.stacktrace:
        del chain.stacktrace[stop:]
    program = Runtime.get().load_program(
        bytes(serialize_pte_binary(file, extract_delegate_segments=True))
    )
    return program, program.load_method(METHOD)


def _take_turns(
    methods: Sequence[Any], windows: Sequence[Mapping[str, NDArray[np.float32]]]
) -> NDArray[np.float64]:
    """Milliseconds [methods, windows], in a new order for every window."""
    rng = np.random.default_rng(0)
    samples_ms = np.zeros((len(methods), len(windows)))
    first = [torch.from_numpy(np.ascontiguousarray(v)) for v in windows[0].values()]
    for method in methods:
        for _ in range(WARMUP_RUNS):
            method.execute(first)
    for column, window in enumerate(windows):
        given = [torch.from_numpy(np.ascontiguousarray(value)) for value in window.values()]
        for row in rng.permutation(len(methods)):
            start = time.perf_counter_ns()
            methods[row].execute(given)
            samples_ms[row, column] = (time.perf_counter_ns() - start) / 1e6
    return samples_ms
