"""The rounding simulator on its own: its grids, its sums, and that nothing on the way loses its shadow."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from properties.error_budget.forward_bound import WorstCase
from properties.error_budget.monte_carlo import Trials
from properties.error_budget.shadow import Shadowed, Storing, shadowed
from properties.error_budget.simulate import bound, run_on, simulate
from properties.implementations.contract import DTYPES, Contract, declared, envelope
from properties.implementations.formats import FORMATS
from properties.implementations.oracle import oracle
from properties.inputs.parameters import Call, decoder_calls, dyadic, encoder_calls, multi_head_calls, transformer_calls
from reference.trace import Trace

TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LOW = [Contract("bfloat16"), Contract("bfloat16", mode="fused")]


def heads(seed: int, tokens: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q, K and V of two heads."""
    return tuple(dyadic(2 + seed + i, (1, 2, tokens, 4), 2.0) for i in range(3))


@pytest.mark.parametrize("dtype", TORCH)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20))
def test_a_grid_is_the_dtypes_own(dtype, values):
    """Rounding to a format is what torch's cast from float32 does: ties, subnormals, overflow and infinities included."""
    x = np.array(values, dtype=np.float64)

    expected = torch.from_numpy(x).to(torch.float32).to(TORCH[dtype]).to(torch.float64).numpy()

    assert np.array_equal(FORMATS[dtype].to_nearest(x), expected)


@pytest.mark.parametrize("dtype", TORCH)
def test_a_grid_leaves_nan_a_nan(dtype):
    """Nothing is made up where there is no number."""
    assert np.isnan(FORMATS[dtype].to_nearest(np.array([np.nan, -np.nan]))).all()


def test_the_grid_of_simulated_float64_has_forty_bits():
    """Thirteen fewer than float64: of the numbers 1 + 2⁻³⁹·k the neighbours are the multiples."""
    x = 1 + np.arange(8) * 2.0**-41

    assert np.array_equal(FORMATS["float64"].to_nearest(x), 1 + np.round(np.arange(8) / 4) * 2.0**-39)


CALLS = {
    "multi_head": multi_head_calls(),
    "encoder": encoder_calls(),
    "decoder": decoder_calls(),
    "transformer": transformer_calls(),
}


@pytest.mark.parametrize("machine", [lambda: Trials(LOW, 4, 0), lambda: WorstCase(LOW[0])], ids=("trials", "worst case"))
@given(st.data())
def test_every_matrix_of_every_step_keeps_its_shadow(machine, data):
    """np.where, stack, concatenate and their like drop an ndarray subclass: whatever came after would run unrounded."""
    step = data.draw(st.sampled_from(sorted(CALLS)))
    call: Call = data.draw(CALLS[step])
    made = machine()

    with np.errstate(all="ignore"), Storing(made) as trace:
        result = oracle(step, *shadowed(call.args, made), **shadowed(call.kwargs, made))

    with Trace() as plain:
        expected = oracle(step, *call.args, **call.kwargs)
    assert type(result) is Shadowed
    assert list(trace) == list(plain)
    for name, matrix in trace.items():
        assert type(matrix) is Shadowed, name
        assert matrix.shadow.shape[1:] == matrix.shape, name
    assert np.array_equal(result.exact, expected)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_every_activation_rounds(activation):
    """Also the one behind `np.frompyfunc`: the trials differ from the exact result and from one another."""
    weights = {"W_1": np.eye(4), "b_1": dyadic(3, (4,)), "W_2": np.eye(4), "b_2": np.zeros(4)}
    _, (errors,) = simulate("feed_forward", (dyadic(5, (1, 3, 4)) / 3,), {**weights, "activation": activation}, LOW[:1], 8, 0)

    assert errors.std() > 0
    assert len({row.tobytes() for row in errors}) > 1


def test_a_function_nobody_taught_the_machine_is_refused():
    """Better no answer than one that was not rounded."""
    X = Trials(LOW, 4, 0).given(np.ones((2, 2)))

    for untaught, *rest in ((np.einsum, "ij->i", X), (np.tril, X), (np.cbrt, X), (np.add.reduce, X), (X.sum,)):
        with pytest.raises(TypeError):
            untaught(*rest)


def test_what_is_exact_on_the_true_grid_is_exact_in_half_of_the_trials():
    """Lattice effects survive: three times a number of few bits has no rounding in float32, and on another grid it has."""
    _, (errors,) = simulate("embedding", (np.array([[0, 1]]),), {"table": dyadic(2, (2, 9)) / 64}, [Contract("float32")], 64, 0)

    exact = (errors == 0).all(axis=(1, 2, 3))
    assert 16 < exact.sum() < 48


def test_equal_numbers_err_alike():
    """Rows that are equal stay equal in every trial: a sum over them does not average its errors away."""
    X = np.repeat(dyadic(4, (1, 1, 16)), 7, axis=1)
    result = run_on(Trials([Contract("float32")], 16, 0), "output_projection", (X,), {"W": dyadic(5, (16, 9)) / 3})

    assert np.array_equal(result.shadow, np.broadcast_to(result.shadow[:, :, :1], result.shadow.shape))


def test_equal_columns_may_come_out_different():
    """In a few trials: a row of equal sums is no constant row to every machine, and a LayerNorm makes much of that."""
    X, W = dyadic(4, (1, 1, 16)), np.repeat(dyadic(5, (16, 1)) / 3, 9, axis=1)
    (row,) = run_on(Trials([Contract("float32")], 16, 0), "output_projection", (X,), {"W": W}).shadow.reshape(1, 16, 9)

    apart = (row != row[:, :1]).any(axis=1)
    assert 1 <= apart.sum() <= 8
    assert (np.abs(row[apart] / row[apart].mean(axis=1, keepdims=True) - 1) < 2.0**-20).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_errors_grow_with_the_unit_roundoff(dtype):
    """Within a factor of four, the deviation of a softmax is the dtype's unit roundoff times its weights."""
    exact, (errors, *_) = simulate("softmax", (dyadic(7, (6, 8), 3.0),), {}, [Contract(dtype)], 64, 0)
    relative = np.sqrt(np.square(errors / exact).mean()) / FORMATS[dtype].u

    assert 0.25 < relative < 4


def test_what_is_not_cast_has_smaller_errors():
    """A fused attention that keeps P in float32 strays less than one that casts it: the contract tells the two apart."""
    Q, K, V = heads(1, tokens=16)
    fused, cast = (
        simulate("attention", (Q, K, V), {}, [Contract("bfloat16", mode="fused", cast_weights=cast)], 64, 0)[1][0]
        for cast in (False, True)
    )

    assert np.square(cast).mean() > 1.2 * np.square(fused).mean()


def test_tf32_products_stray_as_eleven_bits_do():
    """float32_matmul_precision="high" costs about thirteen bits of a product."""
    X, W = dyadic(3, (1, 4, 32)) / 3, dyadic(4, (32, 4)) / 3
    plain, tf32 = (
        simulate("output_projection", (X,), {"W": W}, [Contract(float32_matmul_precision=setting)], 32, 0)[1][0]
        for setting in ("highest", "high")
    )

    assert 2**9 < np.sqrt(np.square(tf32).mean() / np.square(plain).mean()) < 2**14


def test_flushing_takes_subnormals_away():
    """A weight below the smallest normal float32 becomes 0 under a contract that flushes, and does not without."""
    scores = np.array([[0.0, -88.0]])
    kept, flushed = (run_on(Trials([Contract(flush_to_zero=flush)], 8, 0), "softmax", (scores,), {}) for flush in (False, True))

    assert (kept.shadow[..., 1] > 0).all()
    assert (flushed.shadow[..., 1] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(0, 2**16))
def test_no_trial_exceeds_the_proven_bound(dtype, seed):
    """The worst case is worse than every trial, in every component."""
    for contract in envelope(dtype):
        _, (errors,) = simulate("attention", heads(seed), {}, [contract], 16, seed)

        assert (np.abs(errors) <= bound("attention", heads(seed), {}, [contract])).all()


def test_the_bound_holds_to_fifty_digits():
    """A float32 softmax lies within the bound of what fifty digits give."""
    scores = dyadic(11, (8, 12), 9.0)
    allowed = bound("softmax", (scores,), {}, [Contract("float32")])
    with mpmath.workdps(50):
        exponentials = [[mpmath.exp(mpmath.mpf(s)) for s in row] for row in scores]
        exact = np.array([[float(e / mpmath.fsum(row)) for e in row] for row in exponentials])

    got = torch.softmax(torch.from_numpy(scores).to(torch.float32), dim=-1).double().numpy()

    assert (np.abs(got - exact) <= allowed).all()
    assert (allowed < 2.0**-16).all()


@pytest.mark.parametrize(
    ("nonsense", "message"),
    [
        ({"dtype": "float8"}, "dtype: expected one of float64, float32, bfloat16, float16, got 'float8'"),
        ({"dtype": "float32", "accumulation": "bfloat16"}, "declare narrow=True"),
        ({"mode": "lazy"}, "mode: expected one of eager, fused"),
        ({"cast_weights": True}, "declare mode='fused'"),
        ({"dtype": "float64", "float32_matmul_precision": "high"}, "float32_matmul_precision: expected 'highest'"),
        ({"accuracies": {"cosh": 1.0}}, "accuracies: expected one of"),
        ({"accuracies": {"exp": -1.0}}, "accuracies: expected exp between 0 and 1024 units"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(nonsense, message):
    """With the sentence that says what to declare."""
    with pytest.raises(ValueError, match=message):
        Contract(**nonsense)


class Adapter:
    """Something that declares a contract."""

    def __init__(self, contract):
        self.contract = contract


def test_an_adapter_declares_one_contract_or_one_for_each_dtype():
    """Keyword arguments of `Contract`, or a dict of them by dtype; what is not declared is held to the envelope."""
    fused = {"mode": "fused", "cast_weights": True}

    assert declared(object(), "bfloat16") == envelope("bfloat16")
    assert declared(Adapter(fused), "bfloat16") == (Contract("bfloat16", **fused),)
    assert declared(Adapter({"float16": fused}), "float16") == (Contract("float16", **fused),)
    assert declared(Adapter({"float16": fused}), "float32") == envelope("float32")
    with pytest.raises(ValueError, match="expected keyword arguments of Contract"):
        declared(Adapter({"speed": 9}), "float32")
