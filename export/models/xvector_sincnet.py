"""XVectorSincNet: pyannote/embedding, time-delay layers over SincNet.

Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition", ICASSP 2018, with SincNet
in place of MFCC.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .base import register_model
from .pyannet import SincFrontEnd
from .pyannote_embedding import EmbeddingNet, PyannoteEmbedding


@register_model("XVectorSincNet")
class XVectorSincNetArchitecture(PyannoteEmbedding):
    """pyannote.audio.models.embedding.XVectorSincNet in both directions."""

    name = "XVectorSincNet"
    settings = ("sincnet", "dimension")

    def network_class(self) -> Any:
        """The pyannote Model."""
        from pyannote.audio.models.embedding import XVectorSincNet

        return XVectorSincNet

    def tiny_config(self) -> dict[str, Any]:
        """One-second windows; the widths of the layers are fixed."""
        return {"sincnet": {"stride": 10}, "dimension": 16, "frames": {"window_s": 1.0}}

    def build(self, config: dict[str, Any]) -> nn.Module:
        """As the parent's; SincNet knows the rate by itself."""
        sincnet = dict(config.get("sincnet") or {})
        sincnet.pop("sample_rate", None)
        return super().build({**config, "sincnet": sincnet})

    def config(self, model: nn.Module) -> dict[str, Any]:
        """Plain-JSON configuration of a model."""
        found = super().config(model)
        found["sincnet"].pop("sample_rate", None)
        return found

    def flattened(self, net: Any) -> EmbeddingNet:
        """SincNet, the time-delay layers, the embedding layer."""
        return EmbeddingNet(
            frontend=SincFrontEnd(net.sincnet), trunk=nn.Sequential(*net.tdnns), head=net.embedding
        )
