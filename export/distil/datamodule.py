"""Windows as Lightning takes them: fresh ones or draws from a pool, and those that judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..checkpoint import LoadedModel
from .config import DistilConfig, TrainingAudio
from .data import LabelledWindows, TrainingWindows
from .evaluate import stack_windows
from .pool import Pool, PoolDraws


class WindowData(pl.LightningDataModule):
    """A new stretch of the seeded sequence for every epoch: what a resumed run goes on with.

    With `pool`, windows are labelled once: by one process of each machine, the others read them.
    """

    def __init__(
        self,
        config: DistilConfig,
        audio: TrainingAudio,
        teacher: LoadedModel,
        *,
        pool: Callable[[TrainingWindows], Pool] | None,
    ) -> None:
        super().__init__()
        self._config, self._geometry = config, teacher.spec.geometry
        self._speaker_count = len(teacher.spec.classes)
        self._recordings = [r.samples for r in audio.recordings]
        self._validation = audio.validation
        self._speakers = {k: [u.samples for u in v] for k, v in audio.speakers.items()}
        self._make_pool = pool
        self._turns = [audio.turns.get(r.uri, ()) for r in audio.recordings]
        self._pool: Pool | None = None

    def prepare_data(self) -> None:
        """Label the pool's windows, in one process."""
        self.setup("fit")

    def setup(self, stage: str) -> None:
        """Take up the pool, in every process."""
        if self._make_pool is not None and self._pool is None:
            self._pool = self._make_pool(self._windows(first=0, count=self._config.pool_windows))

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the current epoch (the stretch between two checkpoints)."""
        config, epoch = self._config, self.trainer.current_epoch if self.trainer else 0
        done = epoch * config.checkpoint_steps
        steps = min(config.checkpoint_steps, config.steps - done)
        # Lightning shares them out among the processes of a run.
        batch = config.batch_size * (self.trainer.world_size if self.trainer else 1)
        first, count = done * batch, steps * batch
        fresh = self._windows(first=first, count=count)
        windows: Dataset[Any] = fresh
        if config.label_share > 0:
            windows = LabelledWindows(fresh, speakers=self._speaker_count)
        if self._pool is not None:
            windows = PoolDraws(self._pool, seed=config.seed, first=first, count=count)
        return DataLoader(windows, batch_size=config.batch_size)

    def first_windows(self, count: int) -> Tensor:
        """Windows [count, 1, samples] that the sequence begins with."""
        windows = self._windows(first=0, count=count)
        return torch.stack([windows[index] for index in range(count)])

    def _windows(self, *, first: int, count: int) -> TrainingWindows:
        return TrainingWindows(
            self._recordings,
            self._speakers,
            geometry=self._geometry,
            seed=self._config.seed,
            simulated_share=self._config.simulated_share,
            first=first,
            count=count,
            turns=self._turns,
        )

    def val_dataloader(self) -> DataLoader[Tensor] | list[Any]:
        """Windows of the validation audio, in order; nothing where there is none."""
        if not self._validation:
            return []
        windows = stack_windows(
            self._validation, self._geometry, hop_s=self._config.validation_hop_s
        )
        return DataLoader(cast(Any, windows), batch_size=self._config.batch_size)
