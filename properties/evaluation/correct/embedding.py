"""Embedding and positional encoding."""

import math

import torch
from torch import Tensor

from properties.evaluation.correct.wide import wide


def embedding(tokens: Tensor, *, table: Tensor, scale: bool = True) -> Tensor:
    """The table's rows, times √d_model unless `scale` is False."""
    if torch.any((tokens < 0) | (tokens >= len(table))):
        raise ValueError(f"tokens: expected ids from 0 to {len(table) - 1}")
    rows = torch.nn.functional.embedding(tokens, table)
    factor = math.sqrt(table.shape[-1])
    return rows * factor if scale else rows


def positional_encoding(n: int, d_model: int, *, dtype: torch.dtype) -> Tensor:
    """A sine and a cosine of every position for each of d_model/2 frequencies."""
    if d_model < 2 or d_model % 2:
        raise ValueError(f"d_model: expected an even number of features, got {d_model}")
    return encoding_of(torch.arange(n), d_model).to(dtype)


def encoding_of(positions: Tensor, d_model: int) -> Tensor:
    """(…, d_model) in float64, for positions of any shape (…)."""
    pair = torch.arange(0, d_model, 2, dtype=torch.float64)
    frequencies = 10000.0 ** (-pair / d_model)
    places = positions.to(torch.float64)
    angles = places[..., None] * frequencies
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1)
    return waves.flatten(-2)


def places_of(tokens: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG001 (a place is a place, whatever token stands there)
    """Counted from 0 in every row, padding tokens among them."""
    return torch.arange(tokens.shape[-1]).expand(tokens.shape)


def add_positions(X: Tensor, tokens: Tensor, real: Tensor | None) -> Tensor:
    """What a token means plus where it stands."""
    encoding = encoding_of(places_of(tokens, real), X.shape[-1])
    return (wide(X) + encoding.to(wide(X).dtype)).to(X.dtype)
