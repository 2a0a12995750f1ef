"""One distillation of a speaker embedding, from utterances to a student; resumable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from ...checkpoint import LoadedModel
from ...errors import DivergedError, TrainingError
from ...models.fbank import Fbank
from ...models.speaker_cnn import FRAME_MS, POOLED_MS, STEP_MS, SpeakerCnn, folded
from ...progress import Progress, silent
from ...types import Role
from ..resume import CHECKPOINTS, LAST, checkpoint_to_resume, disk_errors_told, read_logs
from ..student import SECOND_MOMENT, WARM_UP_SHARE, warmed_up_average
from ..trainer import Hardware, make_trainer
from .config import EmbeddingAudio, EmbeddingConfig
from .losses import cosine_loss, label_loss, mse_loss, principal_axes
from .pool import VoicePool, Voices, build_pool
from .windows import VoiceWindows, batch_targets

CACHE = "cache"
WINDOW_S = 5.0


@dataclass(frozen=True)
class TrainedEmbedding:
    """The averaged student without batch norms, its log, and how much of the teacher's embeddings
    its axes keep (share of their squared length)."""

    module: SpeakerCnn
    step: int
    log_rows: list[dict[str, str]]
    kept: float


class EmbeddingDistillation(pl.LightningModule):
    """A student of embeddings in training."""

    def __init__(self, config: EmbeddingConfig, *, targets: Tensor) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.config, self._targets = config, targets
        student = SpeakerCnn(student=config.student, dimension=targets.shape[1], batch_norm=True)
        self.student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = warmed_up_average(config.average_decay)
        self.average = AveragedModel(student, multi_avg_fn=average).requires_grad_(False)
        self.records: dict[str, Any] = {}

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        """Loss of one batch; raises DivergedError when it is not finite."""
        net = self.student
        with torch.autocast(self.device.type, enabled=False):
            features = net.frontend.compressed(batch["features"].transpose(1, 2))
        frames = net.trunk(features.contiguous(memory_format=torch.channels_last))
        with torch.autocast(self.device.type, enabled=False):
            counted, targets = batch_targets(batch, self._targets.to(self.device))
            given = net.pooled(frames.float(), batch["weights"])[counted]
            loss = self._loss(given, targets)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"step {self.global_step + 1}",
                found=f"the loss is {loss.item()}",
                expected="a finite loss",
                todo="Train with a smaller --learning-rate; --resume goes on from before it.",
            )
        return loss

    def _loss(self, given: Tensor, targets: Tensor) -> Tensor:
        config, size = self.config, len(given)
        parts = {
            "label": (
                config.label_weight,
                label_loss(given, targets, temperature=config.temperature),
            ),
            "mse": (config.mse_weight, mse_loss(given, targets)),
            "cosine": (config.cosine_weight, cosine_loss(given, targets)),
        }
        loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
        logged = {name: part.detach() for name, (_, part) in parts.items()}
        self.log_dict(
            {"loss": loss.detach(), **logged}, on_step=False, on_epoch=True, batch_size=size
        )
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the new weights into the average."""
        self.average.update_parameters(self.student)

    def configure_optimizers(self) -> Any:
        """AdamW, one-cycle over the whole run."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.student.parameters(),
            lr=config.learning_rate,
            betas=(0.9, SECOND_MOMENT),
            weight_decay=config.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=config.learning_rate,
            total_steps=config.steps,
            pct_start=WARM_UP_SHARE,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what identifies the run, so that another run's checkpoint is not resumed."""
        checkpoint["diarport"] = self.records

    def finished(self) -> SpeakerCnn:
        """The averaged student, folded, and rounded to float16 where the settings say so."""
        student = folded(self.average.module)
        return student.half().float() if self.config.half else student


class _VoiceData(pl.LightningDataModule):
    """A new stretch of the seeded sequence of windows for every epoch."""

    def __init__(self, config: EmbeddingConfig, pool: VoicePool, *, fbank: Fbank) -> None:
        super().__init__()
        self._config, self._pool = config, pool
        samples = round(WINDOW_S * fbank.hop_samples * 1000 / STEP_MS)
        self._frames = fbank.num_frames(samples)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the current epoch (the stretch between two checkpoints)."""
        config, epoch = self._config, self.trainer.current_epoch if self.trainer else 0
        done = epoch * config.checkpoint_steps
        steps = min(config.checkpoint_steps, config.steps - done)
        windows = VoiceWindows(
            self._pool,
            frames=self._frames,
            pooled=POOLED_MS // STEP_MS,
            seed=config.seed,
            first=done * config.batch_size,
            count=steps * config.batch_size,
        )
        return DataLoader(windows, batch_size=config.batch_size)


class _Steps(Callback):
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._progress("training", trainer.global_step, self._total)


def train_embedding(
    teacher: LoadedModel,
    audio: EmbeddingAudio,
    config: EmbeddingConfig,
    *,
    folder: Path,
    cache: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> TrainedEmbedding:
    """Train a student of embeddings, with checkpoints and logs in `folder`.

    The teacher's embeddings are brought to the student's dimension by their principal axes, not
    centred, so that cosines stay what they are. With `resume`, goes on from the folder's last
    checkpoint, and gives what a run would have given that was never stopped. Raises TrainingError
    on a teacher that gives no embeddings, a folder that holds another run, a loss that is not
    finite, or a full disk.
    """
    if teacher.spec.role is not Role.EMBEDDING:
        raise TrainingError(
            teacher.source,
            found="a segmentation model",
            expected="an embedding model to learn from",
        )
    student, folder = SpeakerCnn(student=config.student), folder.resolve()
    identity = {
        "config": config.model_dump(mode="json"),
        "teacher_sha256": teacher.sha256,
        "audio_sha256": audio.hashes(),
    }
    last = checkpoint_to_resume(folder, identity, resume=resume, settings=EmbeddingConfig)
    with disk_errors_told(folder):
        pool = _pool(
            teacher, audio, config, student, cache=cache or folder / CACHE, progress=progress
        )
        axes = principal_axes(pool.targets, student.dimension)
        targets = pool.targets @ axes
        module = EmbeddingDistillation(config, targets=targets)
        module.records = identity
        trainer = make_trainer(
            config,
            folder,
            hardware=Hardware(accelerator="cpu"),
            callbacks=[_Steps(progress, config.steps)],
            choose=False,
        )
        data = _VoiceData(config, pool, fbank=_fbank(student))
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    checkpoint = torch.load(folder / CHECKPOINTS / LAST, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    kept = float(targets.square().sum() / pool.targets.square().sum())
    return TrainedEmbedding(
        module.finished(), int(checkpoint["global_step"]), read_logs(folder), kept
    )


def _pool(
    teacher: LoadedModel,
    audio: EmbeddingAudio,
    config: EmbeddingConfig,
    student: SpeakerCnn,
    *,
    cache: Path,
    progress: Progress,
) -> VoicePool:
    voices = Voices(
        {name: [u.samples for u in spoken] for name, spoken in audio.speakers.items()},
        seed=config.seed,
        sample_rate_hz=teacher.spec.geometry.sample_rate_hz,
    )
    identity = {
        "audio": audio.hashes(),
        "teacher": teacher.sha256,
        "seed": config.seed,
        "front_end": {"bands": student.bands, "frame_ms": FRAME_MS, "step_ms": STEP_MS},
    }
    return build_pool(
        teacher.module,
        voices,
        _fbank(student),
        count=config.voices,
        cache=cache,
        identity=identity,
        progress=progress,
    )


def _fbank(student: nn.Module) -> Fbank:
    net: Any = student
    fbank: Fbank = net.frontend.fbank
    return fbank
