"""The oracle's layer with options: as the article's where nothing is asked for, and its weights those of its own trace."""

import numpy as np
import pytest

from properties.implementations.conventions import OURS, Conventions, causal, posed
from properties.implementations.oracle import oracle
from properties.inputs.parameters import BIASES, Call, dyadic
from reference.trace import Trace

LENGTHS = ((3, 3), (2, 5), (5, 2))


def layer(n: int, m: int, *, masked: bool = True) -> Call:
    """Two sequences and two heads, under a mask that differs from head to head."""
    mask = np.random.default_rng(n * m).random((2, 2, n, m)) < 0.7 if masked else None
    weights = {f"W_{name}": dyadic(5 + i, (4, 4)) for i, name in enumerate("QKVO")}
    biases = {name: dyadic(11 + i, (4,)) for i, name in enumerate(BIASES)}
    return Call((dyadic(3, (2, n, 4), 2.0), dyadic(4, (2, m, 4), 2.0), mask), {"h": 2, **weights, **biases})


@pytest.mark.parametrize(("n", "m"), LENGTHS)
def test_the_output_is_multi_heads_and_the_weights_are_its_traces(n, m):
    """Bit for bit; the trace has the last sequence's matrices."""
    call = layer(n, m)

    with Trace() as trace:
        alone = oracle("multi_head", *call.args, **call.kwargs)
    both = oracle("multi_head_with_weights", *call.args, **call.kwargs)

    assert np.array_equal(both["output"], alone)
    for head in range(2):
        assert np.array_equal(both["weights"][-1, head], trace[f"head.{head}.weights"])


@pytest.mark.parametrize("alignment", ["top_left", "bottom_right"])
@pytest.mark.parametrize("step", ["multi_head", "multi_head_with_weights"])
@pytest.mark.parametrize(("n", "m"), LENGTHS)
def test_causal_is_the_mask_of_both(n, m, step, alignment):
    """With a mask beside it and without, aligned as the convention says."""
    conventions = Conventions(causal_alignment=alignment)
    for masked in (False, True):
        call = layer(n, m, masked=masked)
        X, M, mask = call.args
        written_out = causal(n, m, conventions) & (True if mask is None else mask)

        args, kwargs = posed(step, call.args, {**call.kwargs, "causal": True}, conventions)
        got, exact = oracle(step, *args, **kwargs), oracle(step, X, M, written_out, **call.kwargs)

        for one, other in zip(*(each.values() if isinstance(each, dict) else [each] for each in (got, exact)), strict=True):
            assert np.array_equal(one, other)


def test_a_row_that_sees_nothing_has_no_weights():
    """Its output is the bias."""
    call = layer(3, 3, masked=False)

    got = oracle("multi_head_with_weights", *call.args[:2], np.zeros((3, 3), dtype=bool), **call.kwargs)

    assert not got["weights"].any()
    assert np.array_equal(got["output"], np.broadcast_to(call.kwargs["b_O"], got["output"].shape))
    assert posed("multi_head", call.args, call.kwargs, OURS) == (call.args, call.kwargs)
