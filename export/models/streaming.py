"""A network that goes on where it stopped: the recurrence's states are inputs and outputs.

For models that only look back. The front-end still sees one window at a time, and its norms are
over that window; what is carried from one to the next are the states of the recurrent layers.
Explicit tensors, because Core ML's own states hold float16 only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RecipeError
from ..types import ModelSpec, TensorSpec
from .pyannet import SegmentationNet

STREAMING = "streaming"
"""The option of a recipe that asks for this form."""


class StreamingNet(nn.Module):
    """A SegmentationNet of one-directional LSTM layers, with their states.

    Raises `RecipeError` on any other network.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if reason := _why_not(net):
            raise RecipeError(
                "the streaming form",
                found=reason,
                expected="LSTM layers that look back only",
                todo="Choose a student with unidirectional layers, such as sinc-2uni-2lin.",
            )
        self.net = net

    def forward(self, waveform: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of a window [batch, 1, samples] and the states after it.

        States are [layers, batch, hidden], zero before the first window.
        """
        net: SegmentationNet = self.net  # type: ignore[assignment]
        x = net.frontend(waveform).transpose(1, 2)
        hidden, cells = [], []
        for index, layer in enumerate(net.recurrent):
            x, (h, c) = layer(x, (h0[index : index + 1], c0[index : index + 1]))
            hidden.append(h)
            cells.append(c)
        for linear in net.linear:
            x = F.leaky_relu(linear(x))
        return net.activation(net.classifier(x)), torch.cat(hidden), torch.cat(cells)


def streaming_spec(spec: ModelSpec, net: nn.Module) -> ModelSpec:
    """The contract of a network's streaming form, from that of the network; see `StreamingNet`."""
    layers = list(StreamingNet(net).net.recurrent)  # type: ignore[arg-type]
    shape = (len(layers), 1, layers[0].hidden_size)

    def states(*names: str) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name in names)

    return spec.model_copy(
        update={
            "inputs": (*spec.inputs, *states("h0", "c0")),
            "outputs": (*spec.outputs, *states("h", "c")),
        }
    )


def _why_not(net: nn.Module) -> str | None:
    layers = list(net.recurrent) if isinstance(net, SegmentationNet) else []
    if not layers or not all(isinstance(layer, nn.LSTM) for layer in layers):
        return "a network without LSTM layers"
    if any(layer.bidirectional for layer in layers):
        return "a network that also looks ahead"
    if len({layer.hidden_size for layer in layers}) > 1:
        return "layers of different widths"
    return None
