"""Run ExecuTorch programs on the runtime inside executorch's wheel."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import BackendUnavailableError, BundleError
from export.quiet import quiet_tools
from export.types import ModelSpec, NodeTime, RuntimeOption, TensorSpec

from ..timing.program_parts import profile_program
from .base import Arrays, Inputs, register_runner

METHOD = "forward"
# ScalarType of executorch/runtime/core/portable_type/scalar_type.h -> numpy's name
DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"}

_alive: weakref.WeakSet[ExecuTorchRunner] = weakref.WeakSet()


@register_runner("executorch_xnnpack")
class ExecuTorchXnnpackRunners:
    """Opens `.pte` files."""

    def unavailable(self) -> str | None:
        """None where the wheel's runtime loads and knows XNNPACK."""
        try:
            with quiet_tools():
                from executorch.runtime import Runtime

                known = Runtime.get().backend_registry.registered_backend_names
        except (ImportError, OSError) as error:
            return f"ExecuTorch's runtime does not load ({error})"
        return None if "XnnpackBackend" in known else "ExecuTorch was built without XNNPACK"

    def open(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        threads: int,
        options: Mapping[str, RuntimeOption] | None = None,
    ) -> ExecuTorchRunner:
        """Load a program; raises BundleError when the runtime refuses the file.

        The number of threads belongs to the process: asking for another one while a program is
        open raises `BackendUnavailableError`.
        """
        return ExecuTorchRunner(path, spec, threads=threads)

    def profile(
        self, path: Path, windows: Sequence[Inputs], *, options: Mapping[str, RuntimeOption]
    ) -> tuple[NodeTime, ...]:
        """By parts of the program, from copies of it that end early: the wheel has no ETDump."""
        with quiet_tools():  # resizing the pool is told on standard error
            _use_threads(1)
            return profile_program(_read(path), windows)


class ExecuTorchRunner:
    """One loaded method. The file keeps shapes and dtypes; names are the spec's, by position."""

    def __init__(self, path: Path, spec: ModelSpec, *, threads: int) -> None:
        data = _read(path)
        with quiet_tools() as told:
            from executorch.runtime import Runtime

            _use_threads(threads)
            try:
                # The method points into the program's memory and does not keep it.
                self._program = Runtime.get().load_program(data)
                self._method = self._program.load_method(METHOD)
                meta = self._method.metadata
            except (RuntimeError, KeyError, ValueError) as error:
                raise _refused(path, f"{error}".splitlines()[0], told.getvalue()) from error
        self.inputs = _tensors(meta.num_inputs(), meta.input_tensor_meta, spec.inputs)
        self.outputs = _tensors(meta.num_outputs(), meta.output_tensor_meta, spec.outputs)
        _alive.add(self)

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """Outputs under the spec's names, copied out of memory that the next run overwrites."""
        given = [torch.from_numpy(np.ascontiguousarray(inputs[t.name])) for t in self.inputs]
        values = self._method.execute(given)
        return {t.name: np.array(v.numpy()) for t, v in zip(self.outputs, values, strict=True)}

    def taps(
        self, inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[str]
    ) -> Arrays | None:
        """None: a delegated program cannot be seen into."""
        return None


def _use_threads(threads: int) -> None:
    """Size the process's thread pool; loaded programs keep a pointer to it, so never under them."""
    from executorch.extension.pybindings import portable_lib

    current = portable_lib._threadpool_get_thread_count()
    if current == threads:
        return
    if len(_alive):
        raise BackendUnavailableError(
            "executorch_xnnpack",
            found=f"programs are open with {current} threads, {threads} were asked for",
            todo="Run different numbers of threads in processes of their own.",
        )
    portable_lib._unsafe_reset_threadpool(threads)


def _read(path: Path) -> bytes:
    """The file's bytes, after the checks that the runtime leaves out (it would read past the end).

    An ExecuTorch file is a flatbuffer with the identifier ET12 and an extended header (eh00) that
    says how long program and data segments are.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _refused(path, f"{error.strerror}", "") from error
    if data[4:6] != b"ET" or data[8:12] != b"eh00":
        raise _refused(path, "no ExecuTorch program", "")
    length = int.from_bytes(data[12:16], "little")
    fields = [int.from_bytes(data[i : i + 8], "little") for i in range(16, 8 + length, 8)]
    program_size, segment_base = fields[0], fields[1]
    expected = segment_base + fields[2] if len(fields) > 2 else max(program_size, segment_base)
    if len(data) < expected:
        raise _refused(path, f"cut off: {len(data)} of {expected} bytes", "")
    return data


def _refused(path: Path, reason: str, log: str) -> BundleError:
    last = log.strip().splitlines()[-1:] or [""]
    return BundleError(
        path,
        found=f"ExecuTorch cannot load it ({reason}{'; ' if last[0] else ''}{last[0]})",
        expected="an ExecuTorch program with the method 'forward'",
        todo="Build the bundle again.",
    )


def _tensors(count: int, meta: Any, named: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """What the file declares, under the spec's names as far as they go."""
    tensors = []
    for index in range(count):
        info = meta(index)
        name = named[index].name if index < len(named) else f"tensor_{index}"
        dtype = DTYPES.get(info.dtype(), f"ScalarType {info.dtype()}")
        tensors.append(TensorSpec(name=name, dtype=dtype, shape=tuple(info.sizes())))
    return tuple(tensors)
