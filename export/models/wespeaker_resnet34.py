"""WeSpeakerResNet34: pyannote/wespeaker-voxceleb-resnet34-LM, with its filter bank in the graph.

Wang et al., "WeSpeaker: a research and production oriented speaker embedding learning toolkit",
ICASSP 2023. 80 bands of Kaldi's filter bank, less their mean over the window, and a ResNet34 with
channels 32, 64, 128 and 256.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..pyannote_import import torchaudio
from .base import register_model
from .fbank import Fbank
from .pyannote_embedding import EmbeddingNet, PyannoteEmbedding

SCALE = 2.0**15  # Kaldi's samples are 16-bit integers
EMPHASIS, LOWEST_HZ = 0.97, 20.0
SMALLEST = float(torch.finfo(torch.float32).eps)
FIXED = {"dither": 0.0, "window_type": "hamming", "use_energy": False, "snip_edges": True}


class KaldiLogMel(nn.Module):
    """Logarithms of Kaldi's mel energies, less their mean: [batch, 1, samples] ->
    [batch, 1, bands, frames]."""

    def __init__(self, fbank: nn.Module) -> None:
        super().__init__()
        self.fbank = fbank

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of a window."""
        energies = self.fbank(waveform * SCALE)
        batch, frames, bands = energies.shape
        x = torch.log(energies.clamp(min=SMALLEST)).transpose(1, 2)
        mean = x.reshape(batch, bands, 1, frames).mean((2, 3), keepdim=True)
        centred = x - mean.reshape(batch, bands, 1)
        return centred.reshape(batch, 1, bands, frames)


class Residual(nn.Module):
    """A basic block, of the parts of WeSpeaker's."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(block.conv1, block.bn1)
        self.conv2 = nn.Sequential(block.conv2, block.bn2)
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inputs, bands, frames] -> [batch, outputs, bands / stride, frames / stride]."""
        inner = self.conv2(F.relu(self.conv1(x)))
        return F.relu(inner + self.shortcut(x))


class ResNetTrunk(nn.Module):
    """[batch, 1, bands, frames] -> [batch, channels * bands / 8, frames / 8]."""

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(resnet.conv1, resnet.bn1)
        layers = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self.blocks = nn.Sequential(*(Residual(block) for layer in layers for block in layer))

    def forward(self, features: Tensor) -> Tensor:
        """Frames of the whole network but its pooling."""
        x: Tensor = self.blocks(F.relu(self.conv1(features)))
        batch, channels, bands, frames = x.shape
        return x.reshape(batch, channels * bands, frames)


@register_model("WeSpeakerResNet34")
class WeSpeakerResNet34Architecture(PyannoteEmbedding):
    """pyannote.audio.models.embedding.WeSpeakerResNet34 in both directions."""

    name = "WeSpeakerResNet34"
    settings = ("num_mel_bins", "frame_length", "frame_shift")

    def network_class(self) -> Any:
        """The pyannote Model."""
        from pyannote.audio.models.embedding import WeSpeakerResNet34

        return WeSpeakerResNet34

    def tiny_config(self) -> dict[str, Any]:
        """Few bands on one-second windows; the widths of the layers are fixed."""
        return {"num_mel_bins": 16, "frames": {"window_s": 1.0}}

    def build(self, config: dict[str, Any]) -> nn.Module:
        """As the parent's; raises CheckpointError on a filter bank of another kind."""
        other = {
            key: config[key] for key, value in FIXED.items() if config.get(key, value) != value
        }
        if other or config.get("fbank_centering_span") is not None:
            raise CheckpointError(
                self.name, found=f"a filter bank with {other}", expected=f"{FIXED}"
            )
        kept = ("sample_rate", "num_channels", *self.settings, "frames")
        return super().build({key: config[key] for key in kept if key in config})

    def smallest_samples(self, net: Any) -> int:
        """Two frames after three halvings."""
        rate = int(net.hparams.sample_rate)
        frames = 9
        length_ms, step_ms = net.hparams.frame_length, net.hparams.frame_shift
        return int(rate * (length_ms + (frames - 1) * step_ms) // 1000)

    @property
    def dimension(self) -> int:
        """Of all published models."""
        return 256

    def flattened(self, net: Any) -> EmbeddingNet:
        """Filter bank, ResNet, the embedding layer."""
        return EmbeddingNet(
            frontend=KaldiLogMel(kaldi_fbank(net.hparams)),
            trunk=ResNetTrunk(net.resnet),
            head=net.resnet.seg_1,
        )


def kaldi_fbank(hparams: Any) -> Fbank:
    """torchaudio.compliance.kaldi.fbank of a power spectrum, before its logarithm."""
    torchaudio()
    from torchaudio.compliance import kaldi

    rate = float(hparams.sample_rate)
    size = int(rate * hparams.frame_length / 1000)
    padded = 1 << (size - 1).bit_length()
    filters, _ = kaldi.get_mel_banks(
        int(hparams.num_mel_bins), padded, rate, LOWEST_HZ, 0.0, 100.0, -500.0, 1.0
    )
    return Fbank(
        window=torch.hamming_window(size, periodic=False, dtype=torch.float64),
        mel=F.pad(filters, (0, 1)),
        fft_samples=padded,
        hop_samples=int(rate * hparams.frame_shift / 1000),
        remove_mean=True,
        pre_emphasis=EMPHASIS,
    )
