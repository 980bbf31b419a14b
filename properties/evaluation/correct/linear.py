"""A linear map of every row."""

from torch import Tensor


def linear(X: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """X W + b."""
    return X @ W if b is None else X @ W + b
