"""A Core ML program as its file has it: operations, and weights in the form they are stored in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONSTANT, CONSTEXPR = "const", "constexpr_"

# By operation, the inputs that are weights; all others are computed, or biases and states.
WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "conv": ("weight",),
    "linear": ("weight",),
    "lstm": ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back"),
}

# The input of each decompressing operation whose type tells how its values are stored.
STORED_IN: Mapping[str, str] = {
    "constexpr_cast": "source_val",
    "constexpr_affine_dequantize": "quantized_data",
    "constexpr_blockwise_shift_scale": "data",
    "constexpr_sparse_blockwise_shift_scale": "nonzero_data",
    "constexpr_sparse_to_dense": "nonzero_data",
    "constexpr_lut_to_dense": "lut",
    "constexpr_lut_to_sparse": "lut",
}
SPARSE = "constexpr_sparse_to_dense"
PALETTES = ("constexpr_lut_to_dense", "constexpr_lut_to_sparse")


@dataclass(frozen=True)
class Weight:
    """One weight matrix: the name of its constant, the operation it belongs to by kind and name,
    what its values are stored as (`float16`, `int8`, `palette-6`, `sparse int8`), and its shape."""

    name: str
    kind: str
    operation: str
    stored: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many there are."""
        sizes: list[int] = list(self.shape)
        return math.prod(sizes)


class MainFunction:
    """The outermost block of a model's message (coremltools' Model_pb2.Model)."""

    def __init__(self, proto: Any) -> None:
        function = proto.mlProgram.functions["main"]
        self.operations = list(function.block_specializations[function.opset].operations)
        self._makers = {out.name: op for op in self.operations for out in op.outputs}

    def weights(self) -> Iterator[Weight]:
        """The weights of every layer's operation, each constant once."""
        seen = set()
        for op in self.operations:
            for key in WEIGHTS.get(op.type, ()):
                if key not in op.inputs:
                    continue
                name = op.inputs[key].arguments[0].name
                maker = self._makers.get(name)
                if maker is None or name in seen or not is_constant(maker):
                    continue
                seen.add(name)
                shape = _shape(maker.outputs[0].type.tensorType)
                yield Weight(name, op.type, _name(op), self._stored(maker), shape)

    def constant_bytes(self) -> int:
        """Bytes of all constants as they are stored, numbers only; what is shared counts once."""
        sizes = {}
        for op in _with_inner(self.operations):
            if is_constant(op):
                for key, value in _held(op):
                    kind, blob = value.type.tensorType, value.blobFileValue
                    place = (
                        (blob.fileName, blob.offset) if blob.fileName else (op.outputs[0].name, key)
                    )
                    sizes[place] = -(-math.prod(_shape(kind)) * _bits(kind) // 8)
        return sum(sizes.values())

    def _stored(self, maker: Any) -> str:
        """`float16`, `int8`, `palette-6`, `sparse int8`."""
        if maker.type == CONSTANT:
            return dtype_of(maker.outputs[0].type.tensorType)
        key = STORED_IN[maker.type]
        kind, inner = self._given(maker, key)
        if maker.type in PALETTES:
            # Of iOS 16 a list, of iOS 18 a list of vectors for every block.
            shape = _shape(kind)
            return f"palette-{int(math.log2(shape[0] if len(shape) == 1 else shape[-2]))}"
        if maker.type == SPARSE:
            return f"sparse {dtype_of(kind) if inner is None else self._stored(inner)}"
        return dtype_of(kind)

    def _given(self, op: Any, key: str) -> tuple[Any, Any]:
        """Type of an input, and the decompressing operation that it comes from, if any."""
        for name, value in _held(op):
            if name == key:
                return value.type.tensorType, None
        name = op.inputs[key].arguments[0].name
        maker = self._makers[name]
        kind = next(out.type.tensorType for out in maker.outputs if out.name == name)
        return kind, maker if maker.type.startswith(CONSTEXPR) else None


def _with_inner(operations: Iterable[Any]) -> Iterator[Any]:
    """Operations with those of their blocks: a loop's constants are in its body."""
    for op in operations:
        yield op
        for block in op.blocks:
            yield from _with_inner(block.operations)


def is_constant(op: Any) -> bool:
    """Whether an operation only holds or decompresses values."""
    return bool(op.type == CONSTANT or op.type.startswith(CONSTEXPR))


def _name(op: Any) -> str:
    """The operation's own name, which coremltools' settings go by."""
    return str(op.attributes["name"].immediateValue.tensor.strings.values[0])


def _held(op: Any) -> Iterator[tuple[str, Any]]:
    """Values that an operation itself holds: as attributes until iOS 17, then as its inputs."""
    yield from op.attributes.items()
    for key, given in op.inputs.items():
        for argument in given.arguments:
            if argument.WhichOneof("binding") == "value":
                yield key, argument.value


def _shape(kind: Any) -> tuple[int, ...]:
    return tuple(int(dimension.constant.size) for dimension in kind.dimensions)


def dtype_of(kind: Any) -> str:
    """`float16` of FLOAT16."""
    from coremltools.proto import MIL_pb2

    return str(MIL_pb2.DataType.Name(kind.dataType)).lower()


def _bits(kind: Any) -> int:
    """Bits of one value; none of texts and truth values, which are settings."""
    digits = "".join(c for c in dtype_of(kind) if c.isdigit())
    return int(digits) if digits else 0
