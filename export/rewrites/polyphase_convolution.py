"""A strided convolution of one channel as an unstrided one of as many channels as its stride.

SincNet's first convolution has 251 taps and a stride of 10. Reading the signal as rows of 10
samples, each output frame sees 26 consecutive rows: 26 taps of 10 channels, with 9 zeros behind
the filter. The products are the same; XNNPACK, which keeps a pointer for each tap of each frame
and multiplies the channels behind it, needs a tenth of the pointers and takes 0.64 of the time.

Polyphase decomposition: Vaidyanathan, "Multirate systems and filter banks", 1993, section 4.3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .base import register_rewrite


class PolyphaseConv2d(nn.Module):
    """[batch, 1, 1, samples] -> [batch, channels, 1, frames], as the convolution it was made of.

    The bias is added last. XNNPACK starts from it and rounds every sum to its size, which with the
    waveform norm's shift in it (`wav_norm_affine`) is far larger than a quiet recording's.
    """

    shift: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.taps, self.stride = conv.kernel_size[1], conv.stride[1]
        weight = by_phases(conv.weight.detach(), self.stride)
        taps = (1, weight.shape[3])
        self.conv = nn.Conv2d(self.stride, conv.out_channels, taps, bias=False, dtype=weight.dtype)
        self.conv.weight.data.copy_(weight)
        shift = None if conv.bias is None else conv.bias.detach().reshape(1, -1, 1, 1).clone()
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """What lies behind the last frame's taps is cut off, what its zero taps lack is padded."""
        out: Tensor = self.conv(in_phases(x, taps=self.taps, stride=self.stride))
        return out if self.shift is None else out + self.shift

    def plain(self) -> nn.Conv2d:
        """The convolution that this one was made of."""
        size, taps = self.conv.out_channels, (1, self.taps)
        biased, dtype = self.shift is not None, self.conv.weight.dtype
        conv = nn.Conv2d(1, size, taps, stride=(1, self.stride), bias=biased, dtype=dtype)
        rows = self.conv.weight.detach().squeeze(2).transpose(1, 2).reshape(size, 1, 1, -1)
        conv.weight.data = rows[..., : self.taps].clone()
        if conv.bias is not None and self.shift is not None:
            conv.bias.data = self.shift.flatten().clone()
        return conv.eval()


def by_phases(weight: Tensor, stride: int) -> Tensor:
    """A weight [out, 1, 1, taps] for a convolution of as many channels as its stride."""
    missing = -weight.shape[3] % stride
    rows = F.pad(weight, (0, missing)).reshape(len(weight), -1, stride)
    return rows.transpose(1, 2).unsqueeze(2).contiguous()


def in_phases(x: Tensor, *, taps: int, stride: int) -> Tensor:
    """Samples [batch, 1, 1, samples] as rows of as many channels as the stride, those that the
    frames of a convolution see: [batch, stride, 1, rows]."""
    batch, _, _, samples = x.shape
    frames = (samples - taps) // stride + 1
    rows = frames - 1 - (-taps // stride)
    missing = rows * stride - samples
    if missing > 0:
        x = F.pad(x, (0, missing))
    elif missing < 0:
        x = x[..., :missing]
    # Written with the channels last and permuted: the order in memory that XNNPACK wants.
    return x.reshape(batch, 1, rows, stride).permute(0, 3, 1, 2)


@register_rewrite("polyphase_convolution")
class PolyphaseConvolution:
    """A strided nn.Conv2d over rows of one channel -> PolyphaseConv2d."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The convolution by phases, or None where the stride is 1 or the taps fit into it."""
        if not isinstance(module, nn.Conv2d) or module.in_channels != 1:
            return None
        if module.kernel_size[0] != 1 or module.padding != (0, 0) or module.dilation != (1, 1):
            return None
        if module.stride[0] != 1 or not 1 < module.stride[1] < module.kernel_size[1]:
            return None
        return PolyphaseConv2d(module)
