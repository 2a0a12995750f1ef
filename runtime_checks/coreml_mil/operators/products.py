"""Matrix products and attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .base import Call, operator


@operator("linear")
def linear(call: Call) -> Tensor:
    """x [..., d_in], weight [d_out, d_in], bias [d_out]."""
    x, weight, bias = call.tensor(), call.tensor("weight"), call.maybe("bias")
    rows = x.reshape(1, -1) if x.ndim == 1 else x
    out = call.product(rows, weight.T).reshape(*x.shape[:-1], weight.shape[0])
    return out if bias is None else out + bias


@operator("matmul")
def matmul(call: Call) -> Tensor:
    """x times y, of which either may be transposed in its last two axes; vectors as in numpy."""
    x, y = call.tensor("x"), call.tensor("y")
    x = x.transpose(-1, -2) if call.flag("transpose_x") and x.ndim > 1 else x
    y = y.transpose(-1, -2) if call.flag("transpose_y") and y.ndim > 1 else y
    left = x[None] if x.ndim == 1 else x
    right = y[:, None] if y.ndim == 1 else y
    out = call.product(left, right)
    out = out.squeeze(-1) if y.ndim == 1 else out
    return out.squeeze(-1 if y.ndim == 1 else -2) if x.ndim == 1 else out


@operator("einsum")
def einsum(call: Call) -> Tensor:
    """By an equation, of any number of tensors."""
    if call.stepwise:
        raise call.unsupported("sequential accumulation")
    return torch.einsum(call.text("equation"), *call.tensors())


@operator("scaled_dot_product_attention")
def attention(call: Call) -> Tensor:
    """softmax(q k^T / sqrt(e) + mask) v; a mask of truth values leaves out where it is false."""
    query, key, value = (call.tensor(name) for name in ("query", "key", "value"))
    scores = call.product(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    mask = call.maybe("attn_mask")
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return call.product(torch.softmax(scores, -1), value)
