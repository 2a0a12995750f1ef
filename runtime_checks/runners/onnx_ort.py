"""Run ONNX artifacts on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import BundleError, ExportError
from export.ort_session import open_session, profile_session
from export.types import ModelSpec, NodeTime, RuntimeOption, TensorSpec

from .base import Arrays, Inputs, register_runner

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
}


@register_runner("onnx_ort")
class OnnxOrtRunners:
    """Opens `.onnx` files."""

    def unavailable(self) -> str | None:
        """Always available: onnxruntime is a dependency."""
        return None

    def open(
        self,
        path: Path,
        spec: ModelSpec,
        *,
        threads: int,
        options: Mapping[str, RuntimeOption] | None = None,
    ) -> OnnxOrtRunner:
        """Make a session; raises BundleError when ONNX Runtime refuses the file, RecipeError when
        it has no such option."""
        return OnnxOrtRunner(path, threads=threads, options=options or {})

    def profile(
        self, path: Path, windows: Sequence[Inputs], *, options: Mapping[str, RuntimeOption]
    ) -> tuple[NodeTime, ...]:
        """From ONNX Runtime's own profiler: nodes by provider and operator, as they were fused."""
        times: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
        for node in profile_session(str(path), windows, options=options, threads=1):
            times.setdefault((node.provider, node.operator), []).append(np.array(node.ms))
        return tuple(
            NodeTime(
                place=provider,
                kind=operator,
                nodes=len(nodes),
                ms=float(np.median(np.sum(nodes, axis=0))),
            )
            for (provider, operator), nodes in times.items()
        )


class OnnxOrtRunner:
    """One session."""

    def __init__(self, path: Path, *, threads: int, options: Mapping[str, RuntimeOption]) -> None:
        self._path, self._threads, self._options = path, threads, options
        self._session = self._open(str(path))
        self.inputs = tuple(_tensor(value) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor(value) for value in self._session.get_outputs())

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> Arrays:
        """Outputs by the names that the file gives them."""
        values = self._session.run(None, dict(inputs))
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}

    def taps(self, inputs: Mapping[str, NDArray[np.float32]], layers: Sequence[str]) -> Arrays:
        """Layer outputs, from this file with its internal tensors made outputs.

        A layer is found by the scope that the exporter writes into node names; its output is
        that of the scope's last node.
        """
        import onnx

        model = onnx.load(str(self._path))
        wanted = {}
        for layer in layers:
            scope = _scope(layer)
            nodes = [node for node in model.graph.node if node.name.startswith(scope)]
            if nodes:
                wanted[layer] = nodes[-1].output[0]
        final = {value.name for value in model.graph.output}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in sorted(set(wanted.values()) - final)
        )
        session = self._open(model.SerializeToString())
        names = list(dict.fromkeys(wanted.values()))
        values = dict(zip(names, session.run(names, dict(inputs)), strict=True))
        return {layer: values[name] for layer, name in wanted.items()}

    def _open(self, model: str | bytes) -> Any:
        try:
            return open_session(model, self._options, threads=self._threads)
        except ExportError:
            raise
        except Exception as error:
            # ONNX Runtime raises bare exceptions of a dozen classes; all mean: not loadable.
            raise BundleError(
                self._path,
                found=f"ONNX Runtime cannot load it ({str(error).splitlines()[0][:160]})",
                expected="an ONNX model",
                todo="Build the bundle again.",
            ) from error


def _scope(layer: str) -> str:
    """`frontend.conv1d.0` -> `/frontend/conv1d.0/`: list members keep their dot."""
    parts: list[str] = []
    for part in layer.split("."):
        if part.isdigit() and parts:
            parts[-1] = f"{parts[-1]}.{part}"
        else:
            parts.append(part)
    return "/" + "/".join(parts) + "/"


def _tensor(value: Any) -> TensorSpec:
    shape = tuple(d if isinstance(d, int) else None for d in value.shape)
    return TensorSpec(name=value.name, dtype=DTYPES.get(value.type, value.type), shape=shape)
