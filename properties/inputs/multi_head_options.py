"""Inputs for a whole layer with its options: calls under any mask, in which no row is fully masked."""

import numpy as np
from hypothesis import strategies as st

from properties.implementations.conventions import Conventions, seen_by_heads
from properties.implementations.domain import takes_masks
from properties.implementations.impl import Impl
from properties.inputs.attention import mask_shapes
from properties.inputs.parameters import SEEDS, Call, features, multi_head_weights, sizes


@st.composite
def layer_calls(draw: st.DrawFn, *, itself: bool | None = None, masked: bool = True) -> Call:
    """X looks at M, or at `itself` (always, never, or sometimes: None), under no mask or one of any shape that broadcasts."""
    b, n, m, h, d_model, _ = draw(sizes())
    X = draw(features(b, n, d_model))
    M = X if (draw(st.booleans()) if itself is None else itself) else draw(features(b, m, d_model))
    mask = None
    if masked and takes_masks() and draw(st.booleans()):
        shape = draw(st.sampled_from(mask_shapes(b, h, n, M.shape[1])))
        mask = np.random.default_rng(draw(SEEDS)).random(shape) < draw(st.sampled_from((0.7, 0.3)))
    return Call((X, M, mask), {"h": h, **draw(multi_head_weights(d_model))})


def with_causal(call: Call, impl: Impl, step: str) -> Call:
    """The call with the causal flag, where that is offered, and with a key for each row to see."""
    return opened(call.but(causal=True) if impl.offers(f"{step}.causal") else call, impl.conventions)


def opened(call: Call, conventions: Conventions) -> Call:
    """The call in which every row of every head sees a key: where one sees none, its mask shows the first, which no order hides.

    Queries in front of the first key (bottom right, n > m) have none to be shown, and are left out.
    """
    X, M, mask = call.args
    if call.kwargs.get("causal") and conventions.causal_alignment == "bottom_right" and X.shape[1] > M.shape[1]:
        first = X.shape[1] - M.shape[1]
        mask = mask[..., first:, :] if mask is not None and mask.shape[-2] > 1 else mask
        call = call.on(X[:, first:], M, mask)
    if mask is None:
        return call
    none_seen = ~seen_by_heads(call.args, call.kwargs, conventions).any(axis=-1, keepdims=True)
    shared = tuple(axis for axis in range(3) if axis < 4 - mask.ndim or mask.shape[axis - 4] == 1)
    shows = np.logical_or.reduce(none_seen, axis=shared, keepdims=True).reshape(*mask.shape[:-1], 1)
    return call.on(call.args[0], M, mask | (shows & (np.arange(mask.shape[-1]) == 0)))
