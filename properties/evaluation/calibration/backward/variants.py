"""The catalogue of correct backwards: ours with other arithmetic, autograd through PyTorch's own paths, and explicit ones.

A variant is a name and a function (step, args, kwargs, dtype) → gradients by name, float64; it raises NotOffered for what it lacks.
FlexAttention is not among them: it refuses to be differentiated on a CPU.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from properties.evaluation.calibration import orders
from properties.evaluation.calibration.backward.by_autograd import by_hand, called, derived
from properties.evaluation.calibration.backward.low_precision import Gradients, LowPrecisionBackward
from properties.evaluation.calibration.low_precision import blas, multiply_add, split_k, summing
from properties.evaluation.correct import (
    attention_backward,
    attention_by_autograd,
    attention_with_backward,
    blocked_backward,
    feed_forward_backward,
    norm_backward,
    softmax_backward,
)
from properties.implementations import torch_functional
from properties.implementations.autograd import FORWARD
from properties.implementations.optimized import Optimized
from properties.verdicts import NotOffered

Variant = Callable[[str, tuple[Any, ...], dict[str, Any], str], Gradients]

_FLASH = {"kept": "log_sums", "row_sums": "output", "scale_last": True, "mode": "fused"}

CHOICES: dict[str, dict[str, Any]] = {
    "pairwise sums": {},
    "fused": {"mode": "fused"},
    "fused, P cast": {"mode": "fused", "cast_weights": True},
    "forward sums": {"order": orders.forward, "product": summing(orders.forward)},
    "backward sums": {"order": orders.backward, "product": summing(orders.backward)},
    "tree sums, fused": {"order": orders.tree, "product": summing(orders.tree), "mode": "fused"},
    "blocks of 4": {"order": orders.blocked(4), "product": summing(orders.blocked(4))},
    "blocks of 32, fused": {"order": orders.blocked(32), "product": summing(orders.blocked(32)), "mode": "fused"},
    "8 lanes": {"order": orders.lanes(8), "product": summing(orders.lanes(8))},
    "smallest first": {"order": orders.smallest_first, "product": summing(orders.smallest_first)},
    "shuffled": {"order": orders.shuffled, "product": summing(orders.shuffled)},
    "shuffled, fused": {"order": orders.shuffled, "product": summing(orders.shuffled), "mode": "fused"},
    "float64 sums": {"order": orders.wide, "product": summing(orders.wide)},
    "compensated": {"order": orders.compensated, "product": summing(orders.compensated)},
    "multiply-add": {"product": multiply_add},
    "split-k 2": {"product": split_k(2)},
    "split-k 4, fused": {"product": split_k(4), "mode": "fused"},
    "queries scaled": {"scale_queries": True},
    "scaled last": {"scale_last": True},
    "scaled last, fused, P cast": {"scale_last": True, "mode": "fused", "cast_weights": True},
    "base 2, fused, P cast": {"softmax_style": "base 2", "mode": "fused", "cast_weights": True},
    "reciprocals": {"softmax_style": "reciprocal", "norm_style": "folded"},
    "reciprocals, fused": {"softmax_style": "reciprocal", "norm_style": "folded", "mode": "fused"},
    "Welford": {"norm_style": "Welford"},
    "Welford, fused": {"norm_style": "Welford", "mode": "fused", "product": blas},
    "weights recomputed": {"kept": "log_sums"},
    "row sums from the output": {"row_sums": "output"},
    "flash": _FLASH,
    "flash, P cast": {**_FLASH, "cast_weights": True},
    "flash, P cast, blocks of 16": {
        **_FLASH, "cast_weights": True, "order": orders.blocked(16), "product": summing(orders.blocked(16))
    },
    "flash, atomics": {**_FLASH, "order": orders.shuffled, "product": summing(orders.shuffled)},
}  # fmt: skip
"""Ours. What a step does not have (a softmax has no products) changes nothing there, and equal results are counted once."""


def _ours(choices: dict[str, Any], step: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: str) -> Gradients:
    return LowPrecisionBackward(dtype, **choices).run(step, args, kwargs)


def _explicit(functions: dict[str, Callable[..., Any]], step: str, *call: Any) -> Gradients:
    """A backward written out, for the steps it is one of."""
    if step not in functions:
        raise NotOffered
    return called(functions[step], step, *call)


def _through(forwards: dict[str, Callable[..., Tensor]], around: Callable[[], Any], step: str, *call: Any) -> Gradients:
    """Autograd through a forward, under a setting of torch's."""
    *_, dtype = call
    forward = forwards.get(FORWARD[step])
    if forward is None or (dtype in LOW and forward in TOO_NARROW):
        raise NotOffered
    with around():
        try:
            return derived(forward, step, *call)
        except RuntimeError as error:  # a kernel that does not exist for this dtype or shape
            if "No available kernel" in str(error):
                raise NotOffered from error
            raise


def _sdpa(Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(Q, K, V, mask)


def _layer_norm(X: Tensor, *, gain: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(X, X.shape[-1:], gain, bias, eps)


def _by_linear(X: Tensor, *, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor, activation: str) -> Tensor:
    """As nn.Linear computes it, with the matrices the other way round in memory."""
    return F.linear(torch_functional.ACTIVATIONS[activation](F.linear(X, W_1.T, b_1)), W_2.T, b_2)


LOW = ("bfloat16", "float16")
TOO_NARROW = frozenset({_layer_norm, attention_with_backward.attention})
"""Forwards whose backward is not correct in `LOW`. On the CPU PyTorch's LayerNorm keeps means and 1/σ, and sums the gradients of
gain and bias, in the rows' dtype (`TorchFunctional.known_failures`); the attention in tiles keeps its log-sums in it, which real
kernels keep in float32: exp(S − L) is off by as much as L was rounded."""


@cache
def _of_optimized() -> dict[str, Callable[..., Tensor]]:
    whole = Optimized()
    return {forward: getattr(whole, forward) for forward in sorted(set(FORWARD.values()))}


def _without_mkldnn() -> Any:
    return torch.backends.mkldnn.flags(enabled=False)


def correct_variants() -> dict[str, Variant]:
    """Every variant by name."""
    variants: dict[str, Variant] = {f"numpy, {name}": partial(_ours, choices) for name, choices in CHOICES.items()}
    variants["torch, by hand"] = by_hand
    modules = {
        "attention": _sdpa,
        "softmax": partial(F.softmax, dim=-1),
        "layer_norm": _layer_norm,
        "feed_forward": _by_linear,
    }
    variants["torch.nn.functional"] = partial(_through, modules, nullcontext)
    variants["torch.nn.functional, without mkldnn"] = partial(_through, modules, _without_mkldnn)
    for name, backend in (("math", SDPBackend.MATH), ("flash", SDPBackend.FLASH_ATTENTION)):
        variants[f"torch SDPA, {name} kernel"] = partial(_through, {"attention": _sdpa}, partial(sdpa_kernel, [backend]))
    variants["optimized"] = partial(_through, _of_optimized(), nullcontext)
    for name, step, module in (
        ("a chain, weights recomputed", "attention_backward", attention_backward),
        ("flash-style, blocks of 32", "attention_backward", blocked_backward),
        ("softmax", "softmax_backward", softmax_backward),
        ("LayerNorm, blocks of rows", "layer_norm_backward", norm_backward),
        ("feed-forward", "feed_forward_backward", feed_forward_backward),
    ):
        variants[f"explicit, {name}"] = partial(_explicit, {step: getattr(module, step)})
    for name, module in (("weights kept", attention_by_autograd), ("tiles, weights recomputed", attention_with_backward)):
        variants[f"autograd.Function, {name}"] = partial(_through, {"attention": module.attention}, nullcontext)
    return variants
