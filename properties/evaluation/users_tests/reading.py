"""A call of a user's kernel, read as a question to a step; what is given back is `answering`'s.

Names are read as `verify` gives them: the step's arguments in their order, its options by their names; common other names of the
same things (`query`, `is_causal`, `sm_scale`, `weight`) are known too. What cannot be read is `Unread`: the kernel answers it.

Stands alone (standard library, NumPy and torch): the process in which a user's tests run loads this file by its path.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "Q": ("query", "queries"),
    "K": ("key", "keys"),
    "V": ("value", "values"),
    "mask": ("attn_mask", "attention_mask"),
    "causal": ("is_causal",),
    "scale": ("sm_scale", "softmax_scale", "scaling"),
    "bias": ("attn_bias", "beta"),
    "window": ("window_size", "local_window_size"),
    "softcap": ("logits_soft_cap", "soft_cap", "logit_cap"),
    "sinks": ("sink", "s_aux"),
    "slopes": ("alibi_slopes",),
    "gain": ("weight", "gamma"),
    "eps": ("epsilon",),
    "scores": ("logits",),
    "X": ("hidden_states",),
    "tokens": ("ids", "input_ids"),
}
"""Names that libraries give to an argument of a step, in lower case; the step's own name is known in any case."""

IGNORED = (
    *("enable_gqa", "training", "deterministic", "broadcast_dropout", "normalized_shape"),
    *("implementation", "precision", "softmax_precision", "qk_matmul_output_mode"),
)
"""Arguments that change no number of a right answer, but for its rounding."""
AXIS = ("dim", "axis")  # arguments that may be the last axis alone
IDLE = (None, False, 0, "")  # values of an argument that asks for nothing
LOWEST = -(2.0**13)  # a bias below hides a key: as in `properties.implementations.conventions`
WHOLE = 4  # axes of Q, K and V in the step's signature


class Unread(Exception):
    """A call that does not say what the step's signature says, or that a stand-in cannot be asked; in a few words, why."""


@dataclass(frozen=True)
class Signature:
    """A step's arguments, the kernel's own, and its conventions.

    positional, named   the step's arguments before and after the *; options of attention are among the latter
    parameters          the names of the kernel's arguments in order, None where they cannot be read
    conventions         mask_polarity, causal_alignment and fully_masked_row, as the kernel has them
    tokens_first        its Q, K, V and answer are (b, n, h, d), or (n, h, d)
    all_axes            a call that names no axis is of all of them
    """

    step: str
    positional: Sequence[str]
    named: Sequence[str]
    parameters: Sequence[str] | None
    conventions: Mapping[str, str]
    tokens_first: bool = False
    all_axes: bool = False

    @property
    def known(self) -> list[str]:
        """All arguments of the step."""
        return [*self.positional, *self.named]

    def places(self) -> dict[str, str]:
        """Which argument of the step each argument of the kernel is: by its name, else by its place before the *."""
        own = list(self.positional if self.parameters is None else self.parameters)
        named = {name: step for name in own if (step := self.meant_by(name))}
        taken = set(named.values())
        by_place = {name: step for name, step in zip(own, self.positional, strict=False) if name not in named and step not in taken}
        return {name: (named | by_place)[name] for name in own if name in named or name in by_place}

    def meant_by(self, name: str) -> str | None:
        """The argument of the step that a name of the kernel's means; None for one that means none of them."""
        for step in self.known:
            if name.lower() == step.lower() or name.lower() in OTHER_NAMES.get(step, ()):
                return step
        return None

    def options(self, all_options: Sequence[str]) -> list[str]:
        """Which of the step's options are arguments of the kernel."""
        return [option for option in all_options if option in self.places().values()]


@dataclass(frozen=True)
class Question:
    """A call in the step's arguments, tensors among them; `added` says how many axes Q, K and V were given to have four."""

    signature: Signature
    named: dict[str, Any]
    added: int = 0

    @property
    def first(self) -> Tensor | None:
        """The first tensor of the call."""
        return next((value for value in self.named.values() if isinstance(value, Tensor)), None)

    @property
    def dtypes(self) -> str:
        """The dtypes of the numbers before the *, in their order: a kernel may promote one by another."""
        given = (self.named.get(name) for name in self.signature.positional)
        numbers = (value.dtype for value in given if isinstance(value, Tensor) and value.is_floating_point())
        return " ".join(str(dtype).removeprefix("torch.") for dtype in numbers)


def question(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Question:
    """What a call of the kernel asks of the step. Raises Unread."""
    try:
        return _question(signature, args, kwargs)
    except Unread:
        raise
    except Exception as error:  # of arrays that are unlike any other: the test is the user's, and goes on
        raise Unread(f"a call that cannot be looked at ({type(error).__name__})") from error


def _question(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Question:
    places = signature.places()
    order = list(signature.positional if signature.parameters is None else signature.parameters)
    if len(args) > len(order):
        raise Unread(f"{len(args)} arguments by position")
    named: dict[str, Any] = {}
    for name, value in [*zip(order, args, strict=False), *kwargs.items()]:
        step = places.get(name) or signature.meant_by(name)
        if step is not None:
            named[step] = tensors(value)
        elif not (_is_last(value, args) if name in AXIS else name in IGNORED or name.startswith("return_") or _is_idle(value)):
            raise Unread(f"the argument {name}={_short(value)}")
    of_all = signature.all_axes and {*order[: len(args)], *kwargs}.isdisjoint(AXIS)
    if of_all and any(isinstance(value, Tensor) and value.ndim > 1 for value in named.values()):
        raise Unread("no axis, which is all of them")
    needed = [name for name in signature.positional if name not in named and name not in ("mask", "memory_mask")]
    if needed:
        raise Unread(f"no argument that is {needed[0]}")
    named = {name: named[name] for name in signature.known if named.get(name) is not None}
    if "dropout_mask" not in named and not _is_idle(share := named.pop("dropout_p", None)):  # which numbers, is drawn
        raise Unread(f"the argument dropout_p={_short(share)}")
    return _of_attention(signature, named) if signature.step == "attention" else Question(signature, _polarised(signature, named))


def _is_idle(value: Any) -> bool:
    return any(value is idle or (type(value) is type(idle) and value == idle) for idle in IDLE) or (
        isinstance(value, float) and value == 0
    )


def _is_last(axis: Any, args: Sequence[Any]) -> bool:
    """Whether an axis, or one in a list, is the last; None is all of them in NumPy's way, and another in torch's."""
    only = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    return isinstance(only, int) and only in (-1, len(getattr(args[0], "shape", ())) - 1 if args else -1)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split()) if isinstance(value, bool | int | float | str) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:40]}…"


def tensors(value: Any) -> Any:
    """Arrays of any library as tensors that share their memory where they can; anything else as it is. Raises Unread."""
    if isinstance(value, Tensor | bool | int | float | str | None):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(own := getattr(value, "value", None), Tensor):  # a variable of Keras
        return own
    if isinstance(value, Mapping):
        return {name: tensors(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return _of_numpy(value)
    if hasattr(value, "__array__"):
        try:
            return _of_numpy(np.asarray(value))
        except Exception as error:  # a tracer of jax, say
            raise Unread(f"an array that has no numbers ({type(error).__name__})") from None
    return value


def _of_numpy(array: np.ndarray) -> Tensor:
    if array.dtype.name == "bfloat16":  # of jax, by ml_dtypes
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    whole = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    try:
        return torch.from_numpy(array if whole else array.copy())
    except TypeError:
        raise Unread(f"an array of {array.dtype}") from None


# ---- what a question to attention means ----


def _of_attention(signature: Signature, named: dict[str, Any]) -> Question:
    Q, K, V = (named[name] for name in "QKV")
    if not all(isinstance(X, Tensor) for X in (Q, K, V)) or not Q.ndim == K.ndim == V.ndim or not 2 <= Q.ndim <= WHOLE:
        shapes = ", ".join(str(tuple(X.shape)) if isinstance(X, Tensor) else type(X).__name__ for X in (Q, K, V))
        raise Unread(f"Q, K, V of {shapes}, where (b, h, n, d_k), (b, h, m, d_k), (b, h, m, d_v) are meant")
    added, turned = WHOLE - Q.ndim, signature.tokens_first and Q.ndim > 2
    for name in "QKV":
        named[name] = _with_axes(named[name].transpose(-3, -2) if turned else named[name], added, turned)
    for name in ("mask", "bias"):
        if isinstance(named.get(name), Tensor) and added and named[name].ndim == Q.ndim:
            named[name] = _with_axes(named[name], added, turned)
    _split_mask(named, signature.conventions.get("mask_polarity", "true_attends"))
    _plain_options(named)
    _must_fit(named)
    return Question(signature, named, added)


def _with_axes(X: Tensor, added: int, turned: bool) -> Tensor:
    """(n, d), (b, n, d) or, turned, (h, n, d) with the axes of batch and heads that it lacks."""
    if added == 1:
        return X[None] if turned else X[:, None]
    return X[None, None] if added == 2 else X


def _split_mask(named: dict[str, Any], polarity: str) -> None:
    """A mask with numbers is a bias, which may hide no more than some keys; a mask is True where a query may attend."""
    mask = named.pop("mask", None)
    if isinstance(mask, Tensor):
        if mask.is_floating_point():
            if "bias" in named:
                raise Unread("a mask of numbers beside a bias")
            named["bias"] = mask
        else:
            named["mask"] = _attends(mask, polarity)
    elif mask is not None:
        raise Unread(f"a mask that is {_short(mask)}")
    bias = named.get("bias")
    if isinstance(bias, Tensor):
        hides = bias <= LOWEST
        if bool(((bias == 0) | hides).all()):  # a mask, added
            named["mask"] = ~hides & named.get("mask", True)
            del named["bias"]


def _attends(mask: Tensor, polarity: str) -> Tensor:
    true = mask if mask.dtype == torch.bool else mask != 0
    return ~true if polarity == "true_masks" else true


def _plain_options(named: dict[str, Any]) -> None:
    """What asks for nothing is left out: −1 for an open side of a window, a cap of 0, causal=False."""
    for name in ("scale", "softcap"):
        if isinstance(named.get(name), Tensor):
            named[name] = float(named[name])
    if not named.get("softcap"):
        named.pop("softcap", None)
    if not named.get("causal"):
        named.pop("causal", None)
    window = named.pop("window", None)
    if window is not None:
        if not isinstance(window, Sequence) or len(window) != 2:
            raise Unread(f"a window that is {_short(window)}")
        sides = tuple(None if side is None or side < 0 else int(side) for side in window)
        if sides != (None, None):
            named["window"] = sides


def _must_fit(named: dict[str, Any]) -> None:
    Q, K, V = (named[name] for name in "QKV")
    same = Q.shape[0] == K.shape[0] == V.shape[0] and K.shape[1:3] == V.shape[1:3] and Q.shape[3] == K.shape[3]
    if not same or (K.shape[1] and Q.shape[1] % K.shape[1]):
        raise Unread(f"Q {tuple(Q.shape)}, K {tuple(K.shape)}, V {tuple(V.shape)}, which do not fit together")
    for name in ("mask", "bias"):
        if name in named:
            try:
                torch.broadcast_shapes(named[name].shape, (*Q.shape[:3], K.shape[2]))
            except RuntimeError:
                raise Unread(f"a {name} of shape {tuple(named[name].shape)}") from None


def _polarised(signature: Signature, named: dict[str, Any]) -> dict[str, Any]:
    """The masks of any other step."""
    polarity = signature.conventions.get("mask_polarity", "true_attends")
    for name in ("mask", "memory_mask"):
        mask = named.get(name)
        if isinstance(mask, Tensor):
            named[name] = mask > LOWEST if mask.is_floating_point() else _attends(mask, polarity)
    return named


# ---- asked of a stand-in, which offers some options ----


def fitted(asked: Question, offers: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments for a stand-in that offers these options; others are said by a mask, or K and V repeated. Raises Unread."""
    named = dict(asked.named)
    if asked.signature.step == "attention":
        named = _with_options(asked, named, offers)
    if asked.signature.step == "layer_norm":  # a norm without a gain or a bias
        X = named["X"]
        named = {"gain": X.new_ones(X.shape[-1:]), "bias": X.new_zeros(X.shape[-1:])} | named
    if asked.signature.step == "positional_encoding":
        named.setdefault("dtype", torch.get_default_dtype())
    args = [named.pop(name, None) for name in asked.signature.positional]
    while args and args[-1] is None:
        args.pop()
    return args, named


def _with_options(asked: Question, named: dict[str, Any], offers: Sequence[str]) -> dict[str, Any]:
    Q, K = named["Q"], named["K"]
    n, m = Q.shape[2], K.shape[2]
    shifted = n != m and asked.signature.conventions.get("causal_alignment") == "bottom_right"
    for name in ("causal", "window"):
        if name in named and (shifted or name not in offers):
            named["mask"] = _order(named.pop(name), name, n, m, m - n if shifted else 0, Q.device) & named.get("mask", True)
    if Q.shape[1] != K.shape[1] and "grouped_heads" not in offers:
        named |= {name: named[name].repeat_interleave(Q.shape[1] // K.shape[1], dim=1) for name in "KV"}
    if "slopes" in named and shifted:
        raise Unread("slopes where n ≠ m, from the bottom right")
    if "scale" in named and "scale" not in offers:
        named["Q"] = _scaled(Q, named.pop("scale"))
    if lacking := [name for name in ("bias", "softcap", "sinks", "slopes", "dropout_mask") if name in named and name not in offers]:
        raise Unread(f"{lacking[0]}, which the stand-in does not offer")
    return named


def _order(said: Any, name: str, n: int, m: int, offset: int, device: torch.device) -> Tensor:
    """Which keys a causal rule or a window lets each query attend to."""
    ahead = torch.arange(m, device=device) - torch.arange(n, device=device)[:, None] - offset
    if name == "causal":
        return ahead <= 0
    left, right = said
    seen = torch.ones(n, m, dtype=torch.bool, device=device)
    seen = seen if left is None else seen & (ahead >= -left)
    return seen if right is None else seen & (ahead <= right)


def _scaled(Q: Tensor, scale: float) -> Tensor:
    """Q for a stand-in that divides by √d_k: by a power of two, which rounds nothing."""
    ratio = float(np.float32(scale * math.sqrt(Q.shape[-1])))
    if ratio == 1:
        return Q
    if abs(math.frexp(ratio)[0]) != 0.5:
        raise Unread(f"scale={scale:.4g}, which the stand-in does not offer")
    return Q * ratio


def fully_masked(asked: Question) -> Tensor | None:
    """Which queries (b, h, n, 1) of a call of attention, or rows of softmax, see no key; None where all see some, or a sink."""
    named = asked.named
    if asked.signature.step == "softmax" and named["scores"].ndim:
        none_seen = (named["scores"] == -math.inf).all(dim=-1, keepdim=True)
        return none_seen if bool(none_seen.any()) else None
    if asked.signature.step != "attention" or "sinks" in named:
        return None
    Q, K = named["Q"], named["K"]
    n, m = Q.shape[2], K.shape[2]
    offset = m - n if asked.signature.conventions.get("causal_alignment") == "bottom_right" else 0
    seen = torch.ones(n, m, dtype=torch.bool, device=Q.device)
    for name in ("causal", "window"):
        if name in named:
            seen = seen & _order(named[name], name, n, m, offset, Q.device)
    if "mask" in named:
        seen = seen & named["mask"]
    if "bias" in named:
        seen = seen & (named["bias"] != -math.inf)
    none_seen = ~seen.any(dim=-1, keepdim=True)
    return none_seen.expand(*Q.shape[:3], 1) if bool(none_seen.any()) else None


# ---- given back ----


def by_convention(asked: Question, answer: Any) -> Any:
    """An answer in which fully masked rows of zeros are what the kernel's convention has there: NaN, or the mean of V or of 1."""
    named, softmax = asked.named, asked.signature.step == "softmax"
    said = asked.signature.conventions.get("fully_masked_softmax" if softmax else "fully_masked_row", "zeros")
    none_seen = fully_masked(asked) if said in ("nan", "mean") else None
    if none_seen is None or not isinstance(answer, Tensor) or answer.shape[:-1] != none_seen.shape[:-1]:
        return answer
    if said == "nan":
        there = torch.full_like(answer, math.nan)
    elif softmax:
        there = torch.full_like(answer, 1 / answer.shape[-1])
    else:
        mean = named["V"].repeat_interleave(named["Q"].shape[1] // named["V"].shape[1], dim=1).mean(dim=2, keepdim=True)
        there = mean.expand(answer.shape).to(answer.dtype)
    return torch.where(none_seen & (answer == 0).all(dim=-1, keepdim=True), there, answer)
