"""Exact forms of SincNet's first block: filterbank, |x|, max-pooling by 3.

Each maps [1, 1, samples] to [1, filters, frames // 3] and equals `Direct1d` in float64 up to
rounding. They differ in what a runtime makes of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.rewrites.polyphase_convolution import PolyphaseConv2d
from export.rewrites.sincnet_4d import conv_4d

POOL = 3
Rectifier = Callable[[Tensor], Tensor]


def leaky(x: Tensor) -> Tensor:
    """|x| as the LeakyReLU of slope -1."""
    return F.leaky_relu(x, negative_slope=-1.0)


class Form(nn.Module):
    """Filters, [filters, taps], and the geometry for a number of samples."""

    def __init__(self, conv: nn.Conv1d, samples: int) -> None:
        super().__init__()
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
        self.filters, self.bias = conv.weight.detach()[:, 0], bias.detach()
        self.stride, self.samples = conv.stride[0], samples
        self.count, self.taps = self.filters.shape
        self.frames = (samples - self.taps) // self.stride + 1
        self.pooled = self.frames // POOL

    def rows(self, x: Tensor, *, width: int, count: int) -> Tensor:
        """The waveform as [count, width], cut off or padded with zeros behind."""
        x = x.reshape(-1)
        missing = count * width - self.samples
        x = F.pad(x, (0, missing)) if missing > 0 else x[: count * width]
        return x.reshape(count, width)

    def phases(self, *, width: int, shifts: int) -> Tensor:
        """Filters by phases, [shifts * filters, width, 1, rows]: delayed by 0, 1, ... strides."""
        reach = self.taps + self.stride * (shifts - 1)
        rows = -(-reach // width)
        wide = self.filters.new_zeros(shifts, self.count, rows * width)
        for shift in range(shifts):
            start = shift * self.stride
            wide[shift, :, start : start + self.taps] = self.filters
        return wide.reshape(-1, rows, width).transpose(1, 2).unsqueeze(2)


def convolution(weight: Tensor, bias: Tensor | None, *, stride: int = 1) -> nn.Conv2d:
    """A convolution of [1, channels, 1, samples] with these weights, [out, in, 1, taps]."""
    made = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        (1, weight.shape[3]),
        stride=(1, stride),
        bias=bias is not None,
        dtype=weight.dtype,
    )
    made.weight.data.copy_(weight)
    if bias is not None and made.bias is not None:
        made.bias.data.copy_(bias)
    return made


def channels_first(rows: Tensor) -> Tensor:
    """[rows, channels] as [1, channels, 1, rows], in the memory order of channels last."""
    return rows.reshape(1, 1, *rows.shape).permute(0, 3, 1, 2)


def largest(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Largest of three frames."""
    return torch.maximum(torch.maximum(x, y), z)


class Direct1d(Form):
    """As pyannote has it."""

    def __init__(self, conv: nn.Conv1d, samples: int, *, rectify: Rectifier = torch.abs) -> None:
        super().__init__(conv, samples)
        self.conv, self.rectify = conv, rectify

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        return F.max_pool1d(self.rectify(self.conv(x)), POOL, POOL)


class Image(Form):
    """A convolution of an image of one row, with any rectifier behind it."""

    def __init__(
        self, conv: nn.Conv1d, samples: int, *, rectify: Rectifier, by_phases: bool = False
    ) -> None:
        super().__init__(conv, samples)
        wide = conv_4d(conv)
        self.conv: nn.Module = PolyphaseConv2d(wide) if by_phases else wide
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        y = self.rectify(self.conv(x.reshape(1, 1, 1, -1)))
        return F.max_pool2d(y, (1, POOL), (1, POOL)).reshape(1, self.count, -1)


class Phases(Form):
    """By phases of a divisor of the stride: `width` channels, a stride of stride / width."""

    def __init__(self, conv: nn.Conv1d, samples: int, *, width: int) -> None:
        super().__init__(conv, samples)
        self.width = width
        weight = self.phases(width=width, shifts=1)
        step = self.stride // width
        self.needed = (self.frames - 1) * step + weight.shape[3]
        self.conv = convolution(weight, self.bias, stride=step)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        y = self.conv(channels_first(self.rows(x, width=self.width, count=self.needed)))
        return F.max_pool2d(y.abs(), (1, POOL), (1, POOL)).reshape(1, self.count, -1)


class ThreeFrames(Form):
    """All frames of a pool as channels of one convolution; the pool is a maximum of channels."""

    def __init__(self, conv: nn.Conv1d, samples: int) -> None:
        super().__init__(conv, samples)
        weight = self.phases(width=POOL * self.stride, shifts=POOL)
        self.needed = self.pooled + weight.shape[3] - 1
        self.conv = convolution(weight, self.bias.repeat(POOL))

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        rows = self.rows(x, width=POOL * self.stride, count=self.needed)
        y = leaky(self.conv(channels_first(rows)))
        return largest(*y.chunk(POOL, dim=1)).reshape(1, self.count, -1)


class ThreeConvolutions(Form):
    """A convolution for each frame of a pool, three times the stride."""

    def __init__(self, conv: nn.Conv1d, samples: int) -> None:
        super().__init__(conv, samples)
        weight = self.filters[:, None, None]
        self.conv = convolution(weight, self.bias, stride=POOL * self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        length = (self.pooled - 1) * POOL * self.stride + self.taps
        x = x.reshape(1, 1, 1, -1)
        starts = [shift * self.stride for shift in range(POOL)]
        y = [leaky(self.conv(x[..., start : start + length])) for start in starts]
        return largest(*y).reshape(1, self.count, -1)


class Product(Form):
    """Frames gathered as rows of a matrix, `together` frames a row: one product with the filters.

    The pool is a maximum over rows (1 frame a row) or over groups of columns (3).
    """

    def __init__(self, conv: nn.Conv1d, samples: int, *, together: int) -> None:
        super().__init__(conv, samples)
        self.together = together
        weight = self.phases(width=together * self.stride, shifts=together)
        self.shifts = weight.shape[3]
        flat = weight[:, :, 0].transpose(1, 2).flatten(1)
        self.product = nn.Linear(flat.shape[1], flat.shape[0], dtype=flat.dtype)
        self.product.weight.data.copy_(flat)
        self.product.bias.data.copy_(self.bias.repeat(together))

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        count = self.pooled * POOL // self.together
        rows = self.rows(x, width=self.together * self.stride, count=count + self.shifts - 1)
        frames = torch.cat([rows[shift : shift + count] for shift in range(self.shifts)], dim=1)
        y = leaky(self.product(frames)).reshape(self.pooled, POOL * self.count)
        return largest(*y.chunk(POOL, dim=1)).t().reshape(1, self.count, -1)


class Folded(Form):
    """Half the products: cosine filters see x[n] + x[-n], sine filters x[n] - x[-n]."""

    def __init__(self, conv: nn.Conv1d, samples: int) -> None:
        super().__init__(conv, samples)
        half, middle = self.count // 2, self.taps // 2
        self.shifts = -(-(middle + 1) // self.stride)
        weight = self.filters.new_zeros(self.count, self.shifts * self.stride)
        weight[:, : middle + 1] = self.filters[:, : middle + 1]
        weight[:half, middle] /= 2  # its own mirror
        weight[half:, middle] = 0
        self.conv = nn.Conv2d(2 * weight.shape[1], self.count, 1, groups=2, dtype=weight.dtype)
        self.conv.weight.data.copy_(weight[:, :, None, None])
        self.conv.bias = nn.Parameter(self.bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        count, last = self.frames + self.shifts - 1, self.taps - 1
        ahead = self.rows(x, width=self.stride, count=count).t()
        first = last - self.shifts * self.stride + 1  # of the first frame's mirrored samples
        behind = x.reshape(-1)[first : first + count * self.stride].reshape(count, -1).t()
        behind = behind[torch.arange(self.stride - 1, -1, -1)]
        shifts = range(self.shifts)
        left = torch.cat([ahead[:, j : j + self.frames] for j in shifts])
        right = torch.cat([behind[:, j : j + self.frames] for j in reversed(shifts)])
        y = leaky(self.conv(torch.cat([left + right, left - right])[None, :, None]))
        return F.max_pool2d(y, (1, POOL), (1, POOL)).reshape(1, self.count, -1)


class FastFir(Form):
    """Two thirds of the products: three outputs from six short convolutions instead of nine.

    With filters h0, h1, h2 (every third row of taps) and inputs a, b, c, d, e (rows of samples):
    y0 = h0 a + h1 b + h2 c = h0 (a - b - c) + (h0 + h1) b + (h0 + h2) c, and so on.
    Winograd, "Arithmetic complexity of computations", 1980.
    """

    def __init__(self, conv: nn.Conv1d, samples: int) -> None:
        super().__init__(conv, samples)
        weight = self.phases(width=self.stride, shifts=1)
        weight = F.pad(weight, (0, -weight.shape[3] % POOL))
        self.short = weight.shape[3] // POOL
        h = [weight[..., index::POOL] for index in range(POOL)]
        shared = [h[0] + h[1], h[0] + h[2], h[1] + h[2]]
        self.shared = nn.ModuleList(convolution(weight, None) for weight in shared)
        self.own = nn.ModuleList(convolution(weight, self.bias) for weight in h)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled magnitudes."""
        count = self.pooled + self.short
        rows = self.rows(x, width=POOL * self.stride, count=count)
        phases = channels_first(rows).reshape(1, POOL, self.stride, 1, count)
        a, b, c = (phases[:, index, ..., :-1] for index in range(POOL))
        d, e = (phases[:, index, ..., 1:] for index in range(2))
        p, q, r = (conv(part) for conv, part in zip(self.shared, (b, c, d), strict=True))
        parts = ((a - b - c, p + q), (c - b - d, p + r), (e - c - d, q + r))
        y = [leaky(conv(x) + rest) for conv, (x, rest) in zip(self.own, parts, strict=True)]
        return largest(*y).reshape(1, self.count, -1)
