"""SincRnnNet: PyanNet with GRU or plain RNN layers (`export.pyannote_models.SincRnnNet`)."""

from __future__ import annotations

from typing import Any

from .base import register_model
from .pyannet import PyanNetArchitecture
from .students import student_design


@register_model("SincRnnNet")
class SincRnnNetArchitecture(PyanNetArchitecture):
    """export.pyannote_models.SincRnnNet in both directions."""

    name = "SincRnnNet"
    settings = ("cell",)

    def tiny_config(self) -> dict[str, Any]:
        """Two layers of 16 on one-second windows."""
        config = student_design("sinc-2bi-gru", window_s=1.0)[1]
        config["lstm"]["hidden_size"] = config["linear"]["hidden_size"] = 16
        return config

    def network_class(self) -> Any:
        """The pyannote Model."""
        from ..pyannote_models import SincRnnNet

        return SincRnnNet
