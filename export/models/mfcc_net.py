"""MfccNet: PyanNet with MFCC in place of SincNet (`export.pyannote_models.MfccNet`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .base import register_model
from .pyannet import PyanNetArchitecture
from .students import student_design


class MfccFrontEnd(nn.Module):
    """MFCC of the middle of every frame's field, normalised over the window.

    [batch, 1, samples] -> [batch, n_mfcc, frames]. `mfcc` takes and gives what
    `torchaudio.transforms.MFCC` does: [batch, 1, samples] -> [batch, 1, n_mfcc, frames].
    """

    def __init__(self, *, mfcc: nn.Module, norm: nn.Module, before: int, after: int) -> None:
        super().__init__()
        self.mfcc, self.norm = mfcc, norm
        self.before, self.after = before, after

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of a window."""
        inner = waveform[:, :, self.before : waveform.shape[2] - self.after]
        features: Tensor = self.norm(self.mfcc(inner).squeeze(1))
        return features


@register_model("MfccNet")
class MfccNetArchitecture(PyanNetArchitecture):
    """export.pyannote_models.MfccNet in both directions."""

    name = "MfccNet"
    blocks = ("mfcc", "lstm", "linear")
    settings = ("cell",)

    def tiny_config(self) -> dict[str, Any]:
        """Two layers of 16 on one-second windows."""
        config = student_design("mfcc80-2bi", window_s=1.0)[1]
        config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 16
        return config

    def network_class(self) -> Any:
        """The pyannote Model."""
        from ..pyannote_models import MfccNet

        return MfccNet

    def frontend(self, net: Any) -> nn.Module:
        """The canonical front-end, of the model's own parts."""
        block = net.frontend
        beside = block.field_length - block.n_fft
        return MfccFrontEnd(
            mfcc=block.mfcc, norm=block.norm, before=beside // 2, after=beside - beside // 2
        )
