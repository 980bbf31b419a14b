"""The catalogue of correct variants: ours with other arithmetic, and torch's own in its several paths.

A variant is a name and a function (step, args, kwargs, dtype) → float64 result; it raises NotOffered for what it lacks.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from properties.evaluation.calibration import orders
from properties.evaluation.calibration.low_precision import LowPrecision, blas, multiply_add, split_k, summing
from properties.implementations.contract import DTYPES
from properties.implementations.impl import DTYPES as TORCH
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from properties.verdicts import ImplementationError, NotOffered

Variant = Callable[[str, tuple[Any, ...], dict[str, Any], str], np.ndarray]

CHOICES: dict[str, dict[str, Any]] = {
    "pairwise sums": {},
    "forward sums": {"order": orders.forward, "product": summing(orders.forward)},
    "backward sums": {"order": orders.backward, "product": summing(orders.backward)},
    "tree sums": {"order": orders.tree, "product": summing(orders.tree)},
    "blocks of 4": {"order": orders.blocked(4), "product": summing(orders.blocked(4))},
    "blocks of 16": {"order": orders.blocked(16), "product": summing(orders.blocked(16))},
    "blocks of 32, fused": {"order": orders.blocked(32), "product": summing(orders.blocked(32)), "mode": "fused"},
    "8 lanes": {"order": orders.lanes(8), "product": summing(orders.lanes(8))},
    "16 lanes, fused": {"order": orders.lanes(16), "product": summing(orders.lanes(16)), "mode": "fused"},
    "smallest first": {"order": orders.smallest_first, "product": summing(orders.smallest_first)},
    "shuffled": {"order": orders.shuffled, "product": summing(orders.shuffled)},
    "float64 sums": {"order": orders.wide, "product": summing(orders.wide)},
    "halves": {"order": orders.halves, "product": summing(orders.halves)},
    "compensated": {"order": orders.compensated, "product": summing(orders.compensated)},
    "2 lanes": {"order": orders.lanes(2), "product": summing(orders.lanes(2))},
    "multiply-add": {"product": multiply_add},
    "queries scaled": {"scale_queries": True},
    "queries scaled, fused": {"scale_queries": True, "mode": "fused"},
    "split-k 2": {"product": split_k(2)},
    "split-k 4, fused": {"product": split_k(4), "mode": "fused"},
    "base 2": {"softmax_style": "base 2"},
    "base 2, fused, P cast": {"softmax_style": "base 2", "mode": "fused", "cast_weights": True},
    "reciprocals": {"softmax_style": "reciprocal", "norm_style": "folded"},
    "reciprocals, fused": {"softmax_style": "reciprocal", "norm_style": "folded", "mode": "fused"},
    "Welford": {"norm_style": "Welford"},
    "Welford, fused": {"norm_style": "Welford", "mode": "fused", "product": blas},
    "cast before affine": {"norm_style": "cast before affine"},
    "online 1": {"softmax_style": "online", "block": 1},
    "online 4": {"softmax_style": "online", "block": 4},
    "online 16, fused": {"softmax_style": "online", "block": 16, "mode": "fused"},
    "online 32, fused, P cast": {"softmax_style": "online", "block": 32, "mode": "fused", "cast_weights": True},
    "online 2, backward": {"softmax_style": "online", "block": 2, "order": orders.backward},
    "online 64, forward": {"softmax_style": "online", "block": 64, "order": orders.forward},
}


def _ours(choices: dict[str, Any], step: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return getattr(LowPrecision(dtype, **choices), step)(*args, **kwargs)


def _adapter(
    name: str, around: Callable[[], Any], step: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: str
) -> np.ndarray:
    impl = _impl(name, around, dtype)
    if step not in impl.adapter.steps or dtype not in impl.adapter.dtypes:
        raise NotOffered
    with around():
        try:
            return impl.attempt(step, *args, **kwargs)
        except ImplementationError as error:
            if getattr(error, "raised", False):  # a kernel that does not exist for this dtype or mask
                raise NotOffered from error
            raise


@cache
def _impl(name: str, around: Callable[[], Any], dtype: str) -> Impl:  # noqa: ARG001 (kernels may differ in their conventions)
    """One for all cases: to find out its conventions takes longer than a call."""
    return Impl(built_in(name), dtype)


@cache
def _only(backend: SDPBackend) -> Callable[[], Any]:
    return partial(sdpa_kernel, [backend])


def _without_mkldnn() -> Any:
    return torch.backends.mkldnn.flags(enabled=False)


def _eager_attention(Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    scores = Q @ K.transpose(-1, -2) / Q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, dim=-1) @ V


def _eager_layer_norm(X: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    wide = X if X.dtype == torch.float64 else X.float()
    centred = wide - wide.mean(-1, keepdim=True)
    normalised = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return (normalised * gain + bias).to(X.dtype)


def _by_hand(compiled: bool, step: str, args: tuple[Any, ...], kwargs: dict[str, Any], dtype: str) -> np.ndarray:
    """Attention, softmax and LayerNorm from torch's operators, as they stand or compiled."""
    run: Callable[..., torch.Tensor]
    match step:
        case "attention":
            run, given = _eager_attention, (*args[:3], args[3] if args[3:] else None)
        case "softmax":
            run, given = _softmax, args
        case "layer_norm":
            run, given = _eager_layer_norm, (args[0], kwargs["gain"], kwargs["bias"], kwargs.get("eps", 1e-5))
        case _:
            raise NotOffered
    tensors = [as_tensor(value, dtype) for value in given]
    with torch.no_grad():
        return (_compiled(step, run) if compiled else run)(*tensors).to(torch.float64).numpy()


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    return torch.softmax(scores, dim=-1)


def as_tensor(value: Any, dtype: str) -> Any:
    """An array as a tensor, of the dtype where it holds numbers; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.from_numpy(np.ascontiguousarray(value))
    return tensor.to(TORCH[dtype]) if value.dtype == np.float64 else tensor


@cache
def _compiled(step: str, run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:  # noqa: ARG001 (one for each step)
    return torch.compile(run, dynamic=True)


def correct_variants(*, compiled: bool = True) -> dict[str, Variant]:
    """Every variant by name; `compiled` leaves out the one that needs a compiler, and a minute."""
    variants: dict[str, Variant] = {f"numpy, {name}": partial(_ours, choices) for name, choices in CHOICES.items()}
    variants["torch, by hand"] = partial(_by_hand, False)
    if compiled:
        variants["torch.compile"] = partial(_by_hand, True)
    for name in ("optimized", "torch.sdpa", "torch.multi_head.train", "torch.multi_head.eval", "torch.transformer.train"):
        variants[name] = partial(_adapter, name, nullcontext)
    variants["torch.transformer.eval"] = partial(_adapter, "torch.transformer.eval", nullcontext)
    variants["torch.sdpa, math kernel"] = partial(_adapter, "torch.sdpa", _only(SDPBackend.MATH))
    variants["torch.sdpa, flash kernel"] = partial(_adapter, "torch.sdpa", _only(SDPBackend.FLASH_ATTENTION))
    variants["torch.sdpa, without mkldnn"] = partial(_adapter, "torch.sdpa", _without_mkldnn)
    variants["optimized, without mkldnn"] = partial(_adapter, "optimized", _without_mkldnn)
    variants["torch.transformer.eval, without mkldnn"] = partial(_adapter, "torch.transformer.eval", _without_mkldnn)
    return variants


LOW_DTYPES = tuple(dtype for dtype in DTYPES if dtype != "float64")
