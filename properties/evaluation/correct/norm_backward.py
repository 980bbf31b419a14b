"""LayerNorm backward: each row by itself, and gain and bias in blocks of rows."""

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide

BLOCK = 32


def layer_norm_backward(dY: Tensor, X: Tensor, *, gain: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    """dX, dgain and dbias, summed in at least float32."""
    rows, d_rows = wide(X).flatten(0, -2), wide(dY).flatten(0, -2)
    centred = rows - rows.mean(dim=-1, keepdim=True)
    spread = torch.sqrt((centred * centred).mean(dim=-1, keepdim=True) + eps)
    normalised = centred / spread
    d_normalised = d_rows * wide(gain)
    mean = d_normalised.mean(dim=-1, keepdim=True)
    along = (d_normalised * normalised).mean(dim=-1, keepdim=True)
    d_X = (d_normalised - mean - normalised * along) / spread
    d_gain, d_bias = torch.zeros_like(rows[0]), torch.zeros_like(rows[0])
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        d_gain = d_gain + (d_rows[block] * normalised[block]).sum(dim=0)
        d_bias = d_bias + d_rows[block].sum(dim=0)
    return d_X.reshape(X.shape).to(X.dtype), d_gain.to(X.dtype), d_bias.to(X.dtype)
