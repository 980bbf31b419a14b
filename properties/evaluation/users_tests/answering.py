"""The answer of a stand-in, given back as the user's kernel would have: its axes, its library's arrays, its dtype.

Stands alone, as `reading` does, whose questions it is handed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from properties.evaluation.users_tests.reading import Question

KNOWN = ("torch", "numpy", "jax")  # libraries whose arrays an answer may be


def in_its_axes(asked: "Question", answer: Any) -> Any:
    """An answer without the axes that Q, K and V were given, in the kernel's order; one of another shape as it is."""
    tokens_first = asked.signature.tokens_first
    for _ in range(asked.added):
        if isinstance(answer, Tensor) and answer.ndim > 2:
            axis = 0 if tokens_first or answer.ndim < 4 else 1
            answer = answer.squeeze(axis) if answer.shape[axis] == 1 else answer
    if tokens_first and isinstance(answer, Tensor) and answer.ndim > 2:
        return answer.transpose(-3, -2)
    return answer


def as_the_kernel(answer: Any, returned: Mapping[str, Any], asked: "Question | None") -> Any:
    """A tensor as an array of the kernel's library, in its dtype. `returned` is what `description` says of the kernel's own."""
    if not isinstance(answer, Tensor):
        return answer
    asked_in = None if asked is None or asked.first is None else asked.first.dtype
    dtype = getattr(torch, returned["dtypes"].get(asked.dtypes if asked else "", ""), asked_in)
    if dtype not in (None, asked_in) and answer.dtype == asked_in:  # an answer of a wrong dtype stays wrong
        answer = answer.to(dtype)
    match returned["library"]:
        case "torch":
            return answer
        case "numpy":
            return _numpy(answer.detach())
        case "jax":
            jax_numpy = __import__("jax.numpy", fromlist=["numpy"])
            plain = answer.detach().float() if answer.dtype == torch.bfloat16 else answer.detach()
            return jax_numpy.asarray(plain.numpy()).astype(str(answer.dtype).removeprefix("torch."))
    raise TypeError(f"expected a kernel of {', '.join(KNOWN)}, got one of {returned['library']}")


def _numpy(answer: Tensor) -> np.ndarray:
    """As NumPy's array, which has bfloat16 by ml_dtypes alone."""
    if answer.dtype != torch.bfloat16:
        return answer.numpy()
    return answer.contiguous().view(torch.int16).numpy().view(__import__("ml_dtypes").bfloat16)


def main_array(result: Any) -> tuple[Any, int | None]:
    """The array that answers, and its place where the kernel returns several things."""
    if isinstance(result, tuple | list) and result:
        return result[0], 0
    return result, None


def description(result: Any) -> tuple[str, str]:
    """The library of an array and its dtype; for anything else its type and nothing."""
    if isinstance(result, Tensor):
        return "torch", str(result.dtype).removeprefix("torch.")
    if isinstance(result, np.ndarray):
        return "numpy", result.dtype.name
    module = type(result).__module__.partition(".")[0]
    return ("jax" if module in ("jax", "jaxlib") else type(result).__name__), str(getattr(result, "dtype", ""))
