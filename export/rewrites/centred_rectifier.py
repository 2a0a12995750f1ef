"""What the first convolution's rectifier gives for silence, taken away before the norm.

SincNet's first convolution is followed by an absolute value, so that with the waveform norm's
shift folded into its bias (`wav_norm_affine`) the low-pass filters rest at the bias' magnitude:
a constant, far larger than the speech on top of it, that max-pooling keeps and the instance norm
takes away again. Runtimes sum a norm's mean in float32, and ONNX Runtime loses there what speech
was on top (1e-4 of the scores on a window that is half silence, 2e-6 without the constant).
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from ..models.pyannet import SincFrontEnd
from .base import register_rewrite


class RestingNorm(nn.Module):
    """An instance norm of what is left of its input without a resting value of each channel.

    The input is [batch, channels, frames], or [batch, channels, 1, frames] for a 2-D norm.
    """

    def __init__(self, norm: nn.InstanceNorm1d | nn.InstanceNorm2d, rest: Tensor) -> None:
        super().__init__()
        self.norm = norm
        behind = (1, 1) if isinstance(norm, nn.InstanceNorm2d) else (1,)
        self.register_buffer("rest", rest.reshape(1, -1, *behind).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalised per batch entry and channel."""
        normed: Tensor = self.norm(x - self.get_buffer("rest"))
        return normed


@register_rewrite("centred_rectifier")
class CentredRectifier:
    """SincFrontEnd with a bias in its first convolution -> the same with a resting norm."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The centred block, or None where there is no bias to rest at."""
        if not isinstance(module, SincFrontEnd):
            return None
        conv, norm = module.conv1d[0], module.norm1d[0]
        if not isinstance(conv, nn.Conv1d) or not isinstance(norm, nn.InstanceNorm1d):
            return None
        if conv.bias is None:
            return None
        centred = copy.deepcopy(module)
        centred.norm1d[0] = RestingNorm(copy.deepcopy(norm), conv.bias.detach().abs())
        return centred
