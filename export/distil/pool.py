"""A pool of training windows with the teacher's answers, computed once and cached on disk.

A student whose front-end is not trained (the teacher's own, or MFCC, which has no parameters)
needs no more for a step than the front-end's features and the teacher's scores: a fifth of the
time of a step that starts from the waveform and asks the teacher.

The cache is files of `SHARD` windows each, named by what decides their content, so a run that was
killed while it labelled goes on with the next file, a larger pool begins with the files of a
smaller one, and students with the same front-end share all of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from ..progress import Progress, silent
from .data import TrainingWindows
from .parts import front_end

CACHE = "cache"
SHARD = 1024
BATCH = 16
Label = Callable[[Tensor], Tensor]
DRAWS = 1  # separates the draws from the pool from the draws that made its windows


@dataclass(frozen=True)
class Pool:
    """`features` float16 [windows, channels, frames], `scores` float32 [windows, frames, classes].

    `labels`, where they are learnt from, are float32 [windows, frames, speakers].
    Half precision moves the features by 5e-4 of their size, far less than the augmentation does.
    """

    features: Tensor
    scores: Tensor
    labels: Tensor | None = None


class PoolDraws(Dataset[tuple[Tensor, ...]]):
    """Draws `first` to `first + count` of an endless seeded sequence of draws from the pool.

    Every window is drawn once before any is drawn again.
    """

    def __init__(self, pool: Pool, *, seed: int, first: int, count: int) -> None:
        self._pool, self._seed, self._first, self._count = pool, seed, first, count
        self._orders: dict[int, np.ndarray[Any, np.dtype[np.int64]]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        size = len(self._pool.features)
        turn, place = divmod(self._first + index, size)
        if turn not in self._orders:
            rng = np.random.default_rng([self._seed, turn, DRAWS])
            self._orders = {turn: rng.permutation(size)}
        drawn = int(self._orders[turn][place])
        labels = () if self._pool.labels is None else (self._pool.labels[drawn],)
        return self._pool.features[drawn].float(), self._pool.scores[drawn], *labels


def hash_of(identity: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that stand for plain-JSON data."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def labelled_pool(
    teacher: nn.Module,
    student: nn.Module,
    windows: TrainingWindows,
    *,
    cache: Path,
    identity: dict[str, dict[str, Any]],
    progress: Progress = silent,
) -> Pool:
    """The features that the student's front-end gives of the windows, and the teacher's scores.

    `identity` holds all that decides the `scores` and all that decides the `features`; what the
    cache has under these names is not computed again, a damaged file is.
    """
    names = {kind: hash_of(identity[kind]) for kind in ("scores", "features")}
    computed: dict[str, Label] = {"scores": teacher, "features": features_given(teacher, student)}
    found: dict[str, list[Tensor]] = {"scores": [], "features": []}
    for first in range(0, len(windows), SHARD):
        span = range(first, min(first + SHARD, len(windows)))
        paths = {
            kind: cache / f"{kind}-{name}-{first:06d}-{len(span):04d}.safetensors"
            for kind, name in names.items()
        }
        known = {kind: _read(path) for kind, path in paths.items()}
        shard = {kind: values for kind, values in known.items() if values is not None}
        lacking = {kind: computed[kind] for kind in names if kind not in shard}
        if lacking:
            made = _compute(lacking, Subset(windows, span), progress, total=len(windows))
            for kind, values in made.items():
                _write(paths[kind], values)
            shard |= made
        for kind, values in shard.items():
            found[kind].append(values)
    return Pool(torch.cat(found["features"]), torch.cat(found["scores"]))


def pool_labels(
    windows: TrainingWindows, *, speakers: int, cache: Path, identity: dict[str, Any]
) -> Tensor:
    """Who talks in the windows of a pool, [windows, frames, speakers], cached as the rest of it."""
    path = cache / f"labels-{hash_of(identity)}-{len(windows):06d}.safetensors"
    labels = _read(path)
    if labels is None:
        span = range(len(windows))
        labels = torch.stack([windows.labelled(i, speakers=speakers)[1] for i in span])
        _write(path, labels)
    return labels


def features_given(teacher: nn.Module, student: nn.Module) -> Label:
    """What gives the features of the student's front-end, [batch, channels, frames] in float16.

    Where the teacher has the same front-end, those are taken that it made of the same batch just
    before, for its scores.
    """
    block, teachers = front_end(student), front_end(teacher)
    heard: list[tuple[Tensor, Tensor]] = []
    if type(block) is type(teachers) and _equal(block.state_dict(), teachers.state_dict()):

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            heard[:] = [(inputs[0], output)]

        teachers.register_forward_hook(keep)

    def features(batch: Tensor) -> Tensor:
        known = heard and heard[0][0] is batch
        found: Tensor = heard[0][1] if known else block(batch)
        return found.half()

    return features


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@torch.no_grad()
def _compute(
    lacking: dict[str, Label],
    windows: Subset[Tensor],
    progress: Progress,
    *,
    total: int,
) -> dict[str, Tensor]:
    made: dict[str, list[Tensor]] = {kind: [] for kind in lacking}
    done = windows.indices[0]
    for batch in DataLoader(windows, batch_size=BATCH):
        for kind, compute in lacking.items():
            made[kind].append(compute(batch))
        done += len(batch)
        progress("labelling windows", done, total)
    return {kind: torch.cat(parts).contiguous() for kind, parts in made.items()}


def _write(path: Path, values: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        save_file({"values": values}, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> Tensor | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as tensors:
            values: Tensor = tensors.get_tensor("values")
            return values
    except SafetensorError:
        return None
