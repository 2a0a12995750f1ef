"""A WAV as it comes out of a pipe: without seeking, and without believing its lengths.

Programs that write into a pipe cannot know the length that a WAV's header asks for; they write
zero or the largest number. Audio is then what comes until the pipe ends. RIFF layout: "Multimedia
Programming Interface and Data Specifications 1.0" (1991), with WAVE_FORMAT_EXTENSIBLE.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from export.errors import AudioError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
FORMATS = {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)}
CHUNK_BYTES = 1 << 16
LARGEST_HEADER = 1 << 20
ENDLESS_BYTES = 0x7FFF_0000  # from here on a length means that nobody knew it
NAME = "stdin"


@dataclass(frozen=True)
class WavePipe:
    """Blocks of float32 [samples, channels] of any length, as they arrive."""

    sample_rate_hz: int
    channels: int
    blocks: Iterator[NDArray[np.float32]]


def read_wave_pipe(pipe: BinaryIO) -> WavePipe:
    """Read the header and leave the samples for later.

    Raises `AudioError` when it is no WAV, ends within its header or has a format of no PCM.
    """
    start = pipe.read(12)
    if start[:4] not in (b"RIFF", b"RF64") or start[8:] != b"WAVE":
        found = "nothing" if not start else f"bytes that begin with {start[:4]!r}"
        raise AudioError(
            NAME,
            found=found,
            expected="a WAV",
            todo="Pipe it through `ffmpeg -i … -f wav -` or `sox … -t wav -`.",
        )
    layout: tuple[int, int, int, int] | None = None
    while True:
        name, size = _chunk(pipe)
        if name == b"data":
            break
        if size > LARGEST_HEADER:
            raise AudioError(NAME, found=f"a header chunk {name!r} of {size} bytes")
        body = _exactly(pipe, size + size % 2)
        if name == b"fmt ":
            layout = _layout(body)
    if layout is None:
        raise AudioError(NAME, found="a WAV without a format", expected="fmt before data")
    kind, channels, rate, bits = layout
    length = size if 0 < size < ENDLESS_BYTES else None
    pieces = _pieces(pipe, length)
    return WavePipe(rate, channels, _blocks(pieces, kind=kind, channels=channels, bits=bits))


def _chunk(pipe: BinaryIO) -> tuple[bytes, int]:
    name, size = struct.unpack("<4sI", _exactly(pipe, 8))
    return name, size


def _exactly(pipe: BinaryIO, size: int) -> bytes:
    read = pipe.read(size)
    if len(read) < size:
        raise AudioError(NAME, found="a WAV that ends within its header", expected="audio")
    return read


def _layout(body: bytes) -> tuple[int, int, int, int]:
    if len(body) < 16:
        raise AudioError(NAME, found=f"a WAV format of {len(body)} bytes", expected="16 or more")
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if kind == EXTENSIBLE and len(body) >= 26:
        kind = struct.unpack("<H", body[24:26])[0]
    if (kind, bits) not in FORMATS or channels == 0 or rate == 0:
        raise AudioError(
            NAME,
            found=f"WAV format {kind} of {bits} bits, {channels} channels, {rate} Hz",
            expected="PCM of 8, 16, 24 or 32 bits, or floating point",
        )
    return kind, channels, rate, bits


def _pieces(pipe: BinaryIO, length: int | None) -> Iterator[bytes]:
    """What comes, until the length that the header tells or the end."""
    # What is there is taken at once: a pipe that stalls must not hold back what it gave before.
    read = getattr(pipe, "read1", pipe.read)
    left = length
    while left != 0 and (piece := read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))):
        left = None if left is None else left - len(piece)
        yield piece


def _blocks(
    pieces: Iterator[bytes], *, kind: int, channels: int, bits: int
) -> Iterator[NDArray[np.float32]]:
    frame = channels * bits // 8
    left = b""
    for piece in pieces:
        left += piece
        whole = len(left) - len(left) % frame
        if whole:
            yield _samples(left[:whole], kind=kind, bits=bits).reshape(-1, channels)
        left = left[whole:]


def _samples(data: bytes, *, kind: int, bits: int) -> NDArray[np.float32]:
    if kind == FLOAT:
        return np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if bits == 24:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    whole = np.frombuffer(data, f"<i{bits // 8}").astype(np.float64)
    return (whole / 2.0 ** (bits - 1)).astype(np.float32)
