"""What the distillation of a speaker embedding is told: its settings and its audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from ...audio import Recording
from ...types import Value
from ..data import audio_sha256


class EmbeddingConfig(Value):
    """All that decides the outcome of a run, beside teacher and audio.

    `voices` utterances, each in a voice of its own, are embedded by the teacher once. The loss is
    the sum of its three parts by weight (`export.distil.embedding.losses`). `average_decay` is that
    of the moving average of the weights, which is what ships; `half` rounds it to float16, so that
    files of half the size compute the same.
    """

    student: str = "cnn4"
    voices: int = Field(default=4096, ge=8)
    steps: int = Field(default=3000, ge=1)
    batch_size: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    average_decay: float = Field(default=0.995, ge=0, lt=1)
    label_weight: float = Field(default=1.0, ge=0)
    mse_weight: float = Field(default=1.0, ge=0)
    cosine_weight: float = Field(default=1.0, ge=0)
    temperature: float = Field(default=0.1, gt=0)
    half: bool = True
    precision: str = "32-true"
    checkpoint_steps: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0)

    @property
    def early_stopping(self) -> int:
        """Never: nothing is held out but the speakers of the trials."""
        return 0


@dataclass(frozen=True)
class EmbeddingAudio:
    """Utterances of one speaker each, by speaker; one name is one person."""

    speakers: Mapping[str, Sequence[Recording]]

    def hashes(self) -> dict[str, str]:
        """Hashes of all utterances."""
        return {
            f"{name}/{uri}": sha
            for name, utterances in sorted(self.speakers.items())
            for uri, sha in audio_sha256(utterances).items()
        }

    @property
    def duration_s(self) -> float:
        """Of all utterances together."""
        return sum(u.duration_s for utterances in self.speakers.values() for u in utterances)
