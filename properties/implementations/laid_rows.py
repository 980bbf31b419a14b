"""A question of a step other than attention, laid into a larger shape: its rows among copies of them, its sums among zeros.

    rows       of layer_norm, feed_forward, multi_head, … nobody asks about another: copies of the rows beside them stand there
    backward   the same, and of what stands in the other places nobody asks: its gradients are 0, so no other learns from it
    softmax    other scores are −∞, whose exponential is exactly 0
    products   other features, hidden features and columns of a vocabulary are 0, in what is multiplied and in the weights

One table says it of every step. What is not in it has no padding that leaves the answer as it is: the features of a norm (its mean
is over all of them), keys without a mask, the tokens of a layer that attends to them.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from properties.implementations.domain import Domain, signature_axes, sizes_of
from properties.implementations.places import ROOM, Laid, Part, Places, places_of
from properties.steps import STEPS, expected_shape, expected_shapes, parameters
from properties.verdicts import NotOffered

COPIES = None  # of a row
GIVEN = frozenset({"dP", "dY"})  # the gradients of what a step returned
_ROWS = {"b": COPIES, "n": COPIES}
_SEQUENCES = {"b": COPIES}

PADDING: dict[str, Mapping[str, float | None]] = {
    "softmax": {"n": COPIES, "m": -np.inf},
    "layer_norm": _ROWS,
    "residual_norm": _ROWS,
    "feed_forward": _ROWS | {"d_model": 0.0, "d_ff": 0.0},
    "output_projection": _ROWS | {"d_model": 0.0, "vocab": 0.0},
    "next_token": _ROWS | {"d_model": 0.0},
    "embedding": _ROWS,
    "split_heads": _ROWS,
    "concat_heads": _ROWS | {"h": COPIES},
    "multi_head": _ROWS,
    "log_sum_exp": _ROWS | {"h": COPIES},
    "softmax_backward": {"n": COPIES, "m": -np.inf},
    "layer_norm_backward": _ROWS,
    "feed_forward_backward": _ROWS | {"d_model": 0.0, "d_ff": 0.0},
    **dict.fromkeys(("encoder_layer", "encoder", "decoder_layer", "decoder", "transformer", "generation"), _SEQUENCES),
}
"""By step: the axes that may be longer, and what stands in the other places."""

ATTENTION = frozenset({"attention", "attention_backward", "attention_gradient"})
"""The steps that are laid in `laid`."""

MASKS = {"mask": "b h n m", "memory_mask": "b h n m", "source_mask": "b m", "target_mask": "b n"}
"""The axes of a mask, the last ones of which it may have alone; an axis of 1 stays 1."""


def beside(step: str) -> str:
    """What stands beside a smaller question in the larger one, in a few words."""
    if step in ATTENTION:
        others = "all other features are 0, all other keys weigh nothing"
        return others if step == "attention" else f"{others}, dO is 0 in all other rows"
    held = {COPIES: "other rows are copies of these", 0.0: "other features are 0", -np.inf: "other scores are −∞"}
    return ", ".join(said for what, said in held.items() if what in PADDING[step].values())


def larger_rows(
    domain: Domain, step: str, args: tuple[Any, ...], kwargs: dict[str, Any], why: str, *, asks_for_a_mean: bool = False
) -> Laid:
    """The call as it can be asked within the domain. Raises NotOffered where it cannot be, for `why` and the reason.

    `asks_for_a_mean`: some row of a softmax is fully masked, and gets 1 over the number of its scores.
    """
    was = sizes_of(step, args, kwargs)
    now = {axis: _size(domain, axis, was) for axis in was}
    longer = {axis for axis, size in now.items() if size != was[axis]}

    def cannot(reason: str) -> NotOffered:
        return NotOffered(f"{why}: outside of its domain ({reason})")

    if missing := [axis for axis, size in now.items() if size == 0]:
        raise cannot(f"no size of {missing[0]} that it could be laid into")
    padding = PADDING.get(step, {})
    if kwargs.get("causal"):  # where a token stands says what it sees
        padding = {axis: what for axis, what in padding.items() if axis != "n"}
    if fixed := [axis for axis in longer if axis not in padding]:
        raise cannot(f"nothing that is added to {fixed[0]} leaves {step} as it is")
    if asks_for_a_mean and "m" in longer:
        raise cannot("the mean of more scores in a fully masked row")
    named = dict(zip(parameters(step), args, strict=False)) | kwargs
    axes = {name: _axes_of(step, name, value) for name, value in named.items()}
    summed = {axis for axis in longer if padding[axis] == 0}
    if summed and not all(np.isfinite(named[name]).all() for name, of in axes.items() if summed & set(of)):
        raise cannot("numbers that are not finite")  # ∞·0 would be NaN
    seed = int.from_bytes(hashlib.blake2b(repr(sorted(was.items())).encode(), digest_size=4).digest(), "big")
    rng = np.random.default_rng(seed)
    places = {axis: places_of(seed % 4, was[axis], now[axis], rng) for axis in sorted(longer)}
    nothing = dict.fromkeys(padding, 0.0)
    laid = {name: _into(value, axes[name], places, now, nothing if name in GIVEN else padding) for name, value in named.items()}
    if sum(np.size(value) for value in laid.values() if isinstance(value, np.ndarray)) > ROOM:
        raise cannot("it would be too large there")
    parts = tuple(
        Part(tuple(places.get(axis, np.arange(size)) for axis, size in zip(of, shape, strict=True)))
        for of, shape in _answers(step, args, kwargs, axes)
    )
    positional = list(named)[: len(args)]
    return Laid(tuple(laid[name] for name in positional), {name: laid[name] for name in kwargs}, parts)


def _answers(
    step: str, args: tuple[Any, ...], kwargs: dict[str, Any], axes: Mapping[str, tuple[str, ...]]
) -> list[tuple[Sequence[str], Sequence[int]]]:
    """The axes and the sizes of each array that the step returns. A gradient has the axes of its argument."""
    if STEPS[step].results:
        shapes = expected_shapes(step, args, kwargs)
        named = {"dgain": axes["X"][-1:], "dbias": axes["X"][-1:]} if "dgain" in shapes else {"db_2": ("d_model",)}
        return [(named[name] if name in named else axes[name[1:]], shape) for name, shape in shapes.items()]
    shape = expected_shape(step, args, kwargs)
    of_answer = _axes_of_answer(step)
    return [(["…"] * (len(shape) - len(of_answer)) + of_answer, shape)]


def _size(domain: Domain, axis: str, was: Mapping[str, int]) -> int:
    """The smallest size that is taken and has room for the axis and for those that equal it; 0 for none."""
    allowed, needed = domain.sizes(axis), max(was[other] for other in was if domain.root(other) == domain.root(axis))
    return needed if allowed is None else next((size for size in allowed if size >= needed), 0)


def _axes_of(step: str, name: str, value: Any) -> tuple[str, ...]:
    """The axes of an argument, one for each that it has; none where it is no array, or the signature does not say."""
    if not isinstance(value, np.ndarray):
        return ()
    axes = tuple(MASKS[name].split()) if name in MASKS else signature_axes(step).get(name, ())
    axes = axes[-value.ndim :] if value.ndim else ()
    return ("…",) * (value.ndim - len(axes)) + axes if axes else ()


def _axes_of_answer(step: str) -> list[str]:
    """The axes of the answer, from the step's signature, without those that `...` stands for."""
    found = re.search(r"\(([^)]*)\)", STEPS[step].returns)
    return [axis.strip() for axis in (found[1] if found else "").split(",") if axis.strip() not in ("", "...")]


def _into(
    value: Any, axes: tuple[str, ...], places: Mapping[str, Places], now: Mapping[str, int], padding: Mapping[str, float | None]
) -> Any:
    """An argument with its longer axes: what it held at its places, and copies or a number elsewhere."""
    for place, axis in enumerate(axes):
        if axis not in places or (value.shape[place] == 1 < len(places[axis])):  # a mask that is the same for all
            continue
        if padding[axis] is COPIES:
            before = np.searchsorted(places[axis], np.arange(now[axis]), side="right") - 1
            value = value.take(np.clip(before, 0, value.shape[place] - 1), axis=place)
        else:
            shape = (*value.shape[:place], now[axis], *value.shape[place + 1 :])
            whole = np.full(shape, padding[axis], dtype=value.dtype)
            whole[(slice(None),) * place + (places[axis],)] = value
            value = whole
    return value
