"""The student in training: a LightningModule around a student, its average and its teacher."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import DivergedError
from .config import PLATEAU_FACTOR, PLATEAU_PATIENCE
from .evaluate import compare_scores
from .losses import hint_loss, mixed_loss
from .objective import Objective
from .parts import after_front_end, drop_hidden, front_end, hidden_width, keep_hidden

SECOND_MOMENT = 0.99
WARM_UP_SHARE = 0.15


def warmed_up_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose decay grows to `decay`: min(decay, (1 + n) / (10 + n)).

    Without the warm-up a short run's average would still be its random start.
    """

    @torch.no_grad()
    def update(average: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        n = int(steps)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


class Distillation(pl.LightningModule):
    """Trains `student` to give `teacher`'s scores of every window it hears.

    A batch is waveforms [batch, 1, samples], or draws from a pool: features and the teacher's
    scores; with labels beside either. AdamW, one-cycle learning rate (Smith and Topin,
    "Super-convergence", 2018) over `steps`. The weights to keep are those of `average`, an
    exponential moving average; validation measures them. The teacher is kept out of the module's
    own parts, so that it stays in evaluation mode and out of the checkpoints.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        average_decay: float,
        steps: int,
        schedule: str = "one_cycle",
        objective: Objective,
        hint_weight: float = 0.0,
        label_share: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        # The loss takes logits: the activation comes back with `finished`.
        self._activation: list[nn.Module] = [student.get_submodule("activation")]
        student.activation = nn.Identity()
        self.student = student
        self.average = AveragedModel(student, multi_avg_fn=warmed_up_average(average_decay))
        self.average.requires_grad_(False)  # or several processes would wait for its gradients
        if dropout > 0:  # after the average was copied, which is to have all features
            drop_hidden(student, dropout)
        self._teacher = [teacher.eval()]
        self._learning_rate, self._weight_decay, self._steps = learning_rate, weight_decay, steps
        self._schedule, self._hint_weight = schedule, hint_weight
        self._objective, self._label_share = objective, label_share
        if hint_weight > 0:
            self._hidden = keep_hidden(student), keep_hidden(teacher)
            self.regressor = nn.Linear(hidden_width(student), hidden_width(teacher))
        self.records: dict[str, Any] = {}

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device."""
        self._teacher[0].to(self.device)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Loss of one batch; raises DivergedError when it is not finite."""
        logits, expected, labels = self._answers(batch)
        with torch.autocast(self.device.type, enabled=False):  # sums over frames need all digits
            loss = self._objective.loss(logits.float(), expected.float())
            if self._hint_weight > 0:
                own, given = (hidden().float() for hidden in self._hidden)
                loss = loss + self._hint_weight * hint_loss(self.regressor(own), given)
            if self._label_share > 0 and labels is not None:
                labelled = self._objective.label_loss(logits.float(), labels)
                loss = mixed_loss(loss, labelled, label_share=self._label_share)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"step {self.global_step + 1}",
                found=f"the loss is {loss.item()}",
                expected="a finite loss",
                todo="Train with a smaller --learning-rate; the last checkpoint is kept, so "
                "--resume goes on from before this step.",
            )
        self.log("loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(logits))
        return loss

    def _answers(self, batch: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits and the teacher's scores of a batch, and its labels where it has some."""
        if isinstance(batch, list):  # drawn from a pool
            features, expected, *labels = batch
            return after_front_end(self.student, features), expected, labels[0] if labels else None
        waveforms, known = (
            (batch["waveforms"], batch["labels"]) if isinstance(batch, dict) else (batch, None)
        )
        with torch.no_grad():
            expected = self._teacher[0](waveforms)
        return self.student(waveforms), expected, known

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the new weights into the average."""
        self.average.update_parameters(self.student)

    def on_train_epoch_end(self) -> None:
        """Log the learning rate that the epoch ended with."""
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Measure the averaged student on validation windows."""
        with torch.autocast(self.device.type, enabled=False):
            scores = self._activation[0](self.average(batch))
            found = compare_scores(scores, self._teacher[0](batch), self._objective)
        size = len(batch)
        self.log("validation_agreement", found.decisions_percent, batch_size=size, sync_dist=True)
        self.log("validation_frames", found.frames_percent, batch_size=size, sync_dist=True)
        self.log("validation_loss", found.loss, batch_size=size, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW on what is trainable, one-cycle over the whole run or halved on a plateau.

        The second moment forgets faster than by default: a student that starts from its teacher
        has small gradients, and a rare large one would otherwise be a large step.
        """
        trainable = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trainable,
            lr=self._learning_rate,
            betas=(0.9, SECOND_MOMENT),
            weight_decay=self._weight_decay,
        )
        if self._schedule == "plateau":
            falling = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=PLATEAU_FACTOR, patience=PLATEAU_PATIENCE, eps=0
            )
            watched = {"scheduler": falling, "interval": "epoch", "monitor": "validation_loss"}
            return {"optimizer": optimizer, "lr_scheduler": watched}
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self._learning_rate, total_steps=self._steps, pct_start=WARM_UP_SHARE
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def finished(self) -> nn.Module:
        """The averaged student with its activation, on the CPU in evaluation mode."""
        student: nn.Module = self.average.module
        student.activation = self._activation[0]
        return student.cpu().eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what identifies the run, so that another run's checkpoint is not resumed."""
        checkpoint["diarport"] = self.records


def start_from_teacher(
    student: nn.Module, teacher: nn.Module, *, whole_front_end: bool
) -> list[str]:
    """Copy into the student what the teacher has in the same place and shape.

    Copied are the SincNet, the first recurrent layers, the first linear layers and the classifier
    as far as their shapes agree; the names of the copied tensors come back. A student that starts
    at random stays for long where one output says "speech" and the others nothing. A recurrent
    layer is taken whole or not at all: one direction of two, or recurrent weights without those of
    the input, have gradients that grow without bound in training.

    Frozen are the whole front-end, or only SincNet's waveform norm and sinc filters: these hold 82
    numbers that the teacher has learnt on far more audio, and their gradients are four fifths of a
    training step's time.
    """
    given, own = teacher.state_dict(), student.state_dict()
    alike = {k for k, v in own.items() if k in given and given[k].shape == v.shape}
    partly = {_layer(k) for k in own.keys() - alike} | {
        _layer(k) for k in given.keys() - own.keys()
    }
    shared = {k: given[k] for k in alike if not (_layer(k) and _layer(k) in partly)}
    student.load_state_dict(own | shared)
    if whole_front_end:
        front_end(student).requires_grad_(False)
    for name, parameter in student.named_parameters():
        if name in shared and name.startswith(("sincnet.wav_norm1d.", "sincnet.conv1d.0.")):
            parameter.requires_grad_(False)
    return sorted(shared)


def _layer(name: str) -> str:
    """The recurrent layer that a tensor is of: "l0" of lstm.weight_hh_l0_reverse, else nothing."""
    found = re.search(r"^lstm\.\w+_(l\d+)", name)
    return found[1] if found else ""
