"""Positional encoding: where a token stands, as sines and cosines of its position.

    PE[p, 2i]   = sin(p · ω_i)
    PE[p, 2i+1] = cos(p · ω_i)        ω_i = 10000^(−2i / d_model)

Vaswani et al. (2017), section 3.5.
"""

from functools import lru_cache

import torch
from jaxtyping import Float, Num
from torch import Tensor


def positional_encoding(
    positions: Num[Tensor, " n"], d_model: int, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "n d_model"]:
    """Computed in float64 and rounded once to `dtype`: in bfloat16 the positions 256 and 257 would already be the same number.

    Raises ValueError when d_model is odd: features come in pairs of a sine and a cosine.
    """
    if d_model < 2 or d_model % 2:
        raise ValueError(f"d_model: expected an even number of features (a sine and a cosine each), got {d_model}")
    frequencies = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64, device=positions.device) / d_model)
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2).to(dtype)


def add_positions(X: Float[Tensor, "... n d_model"], first: int = 0) -> Float[Tensor, "... n d_model"]:
    """One encoding serves the whole batch, and X may be the tokens from place `first` on, as generation reads them."""
    n, d_model = X.shape[-2:]
    places = max(64, 1 << (first + n - 1).bit_length())  # a power of two: as few encodings as there are
    kept = _of_first if type(X) is Tensor else _of_first.__wrapped__  # what is traced is not kept
    return X + kept(places, d_model, X.dtype, X.device)[first : first + n]


@lru_cache(maxsize=4)
def _of_first(places: int, d_model: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "places d_model"]:
    """Kept, since it depends on nothing else, and computing it takes longer than a product of a few rows."""
    return positional_encoding(torch.arange(places, device=device), d_model, dtype)
