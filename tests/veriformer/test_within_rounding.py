"""The error budget as an assert: what passes, what fails, and what is said of it."""

import math
import re

import numpy as np
import pytest
import torch
from torch_attention import CAUSAL, LOW, eager, fused, inputs

from properties.error_budget.budgets import budget
from veriformer import assert_within_rounding, oracle, tolerance, within_rounding

# What passes and what fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, CAUSAL], ids=["no mask", "causal"])
@pytest.mark.parametrize("attention", [eager, fused, torch.nn.functional.scaled_dot_product_attention])
@pytest.mark.parametrize("dtype", LOW)
def test_correct_attention_passes(dtype, attention, mask):
    """Eager, fused and PyTorch's own."""
    Q, K, V = inputs(LOW[dtype])

    found = within_rounding("attention", attention(Q, K, V, mask), Q, K, V, mask)

    assert found
    assert (found.dtype, found.elements, found.off, found.kind) == (dtype, 80, 0, "")
    assert 0 < found.budget_used < 1
    assert repr(found).startswith(f"attention within rounding of {dtype}: 80 elements, worst 0.")


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2.0**-6), ("float16", 2.0**-9), ("float32", 2.0**-20)])
def test_a_small_fault_fails(dtype, size):
    """One part in 64 of every element in bfloat16, where a single rounding may err by one in 256."""
    Q, K, V = inputs(LOW[dtype])
    got = (fused(Q, K, V).double() * (1 + size)).to(LOW[dtype])

    found = within_rounding("attention", got, Q, K, V)

    assert not found
    assert found.budget_used > 1


def test_a_fault_in_one_element_is_named():
    """Its index, what was expected and what came, in σ and as a multiple of the budget, and what would be fair there."""
    Q, K, V = inputs()
    got = fused(Q, K, V)
    got[0, 1, 3, 2] += 0.125

    found = within_rounding("attention", got, Q, K, V)

    exact = oracle("attention", Q, K, V)
    assert (found.kind, found.index, found.off) == ("element", (0, 1, 3, 2), 1)
    assert found.expected == exact[0, 1, 3, 2]
    assert found.got == float(got[0, 1, 3, 2])
    assert found.sigmas == pytest.approx(8 * found.budget_used)
    assert 0 < found.tolerance < abs(found.got - found.expected)
    with pytest.raises(AssertionError) as raised:
        assert_within_rounding("attention", got, Q, K, V)
    share = 100 * found.tolerance / abs(found.expected)
    assert str(raised.value).splitlines() == [
        "attention: not within rounding of bfloat16, worst at (0, 1, 3, 2)",
        f"  expected  {found.expected!r}",
        f"  got       {found.got!r}",
        f"  error     {abs(found.got - found.expected):.3g}, {found.sigmas:.3g} σ, {found.budget_used:.3g} times the budget",
        "  elements  1 of 80 off",
        f"  fair here ±{found.tolerance:.3g}, {share:.2g} % of the value",
        "  held to   what eager or fused code may be off by, in float32 inside a step; none declared",
    ]
    in_one_line = r"attention: expected \S+ at \(0, 1, 3, 2\), got \S+: .* times the budget; 1 of 80 elements off"
    assert re.fullmatch(in_one_line, repr(found))


def test_a_fault_spread_thin_is_said_to_add_up():
    """No element is off by itself: the sum along a row or a column is."""
    Q, K, V = (torch.cat([each] * 8, dim=-2) for each in inputs(torch.float32))
    got = oracle("attention", Q, K, V) * (1 + 2.0**-21)

    found = within_rounding("attention", got, Q, K, V, dtype="float32")

    assert found.kind == "sum"
    assert f"errors add up ({found.where}) to {found.sigmas:.3g} σ" in str(found)


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_category(strange):
    """No number of σ is between NaN and a number."""
    Q, K, V = inputs()
    got = fused(Q, K, V)
    got[0, 0, 1, 1] = strange

    found = within_rounding("attention", got, Q, K, V)

    assert (found.kind, found.index, found.off) == ("category", (0, 0, 1, 1), 1)
    assert f"got       {strange!r}" in str(found)
    assert "which rounding in bfloat16 does not turn into one another" in str(found)


def test_a_wrong_shape_and_a_wrong_dtype_are_said_first():
    """Before any value is compared; a wider dtype holds the same numbers."""
    Q, K, V = inputs()
    got = fused(Q, K, V)

    assert str(within_rounding("attention", got[0], Q, K, V)) == "attention: expected shape (1, 2, 5, 8), got (2, 5, 8)"
    narrow = within_rounding("attention", got, *(each.float() for each in (Q, K, V)), dtype=torch.float32)
    assert (narrow.kind, str(narrow)) == ("dtype", "attention: expected dtype float32, got bfloat16")
    assert within_rounding("attention", got.float(), Q, K, V, dtype="bfloat16")


def test_where_a_correct_computation_may_overflow_nothing_is_proven():
    """So it is false, and says so."""
    X, W = torch.tensor([[[32768.0, 32752.0]]]).half(), torch.ones(2, 1).half()  # 65520 is as near to 65504 as to what overflows

    found = within_rounding("output_projection", torch.tensor([[[65504.0]]]).half(), X, W=W)

    assert not found
    assert (found.kind, found.off) == ("undecidable", 1)
    assert "1 of 1 elements cannot be judged, since a correct computation in float16 may overflow there" in str(found)


# Contracts and conventions --------------------------------------------------------------------------------------------


def test_a_contract_says_how_it_was_computed():
    """A result of eager code is not what a fused kernel gives; declared fused, it is held to that."""
    Q, K, V = inputs(seed=1)
    got = eager(Q * 4, K, V)

    assert within_rounding("attention", got, Q * 4, K, V)
    assert within_rounding("attention", got, Q * 4, K, V, mode="eager", accumulate="float32")
    found = within_rounding("attention", got, Q * 4, K, V, mode="fused")
    assert not found
    assert "held to   mode=fused" in str(found)


def test_the_number_format_of_sums_is_accumulate():
    """A sum kept in bfloat16 is over the budget of one in float32, and within its own."""
    X, W = torch.ones(1, 1, 512, dtype=torch.bfloat16), torch.full((512, 1), 1.0078125, dtype=torch.bfloat16)
    total = torch.zeros(1, 1, 1, dtype=torch.bfloat16)
    for i in range(512):
        total = total + X[..., i : i + 1] * W[i]

    assert not within_rounding("output_projection", total, X, W=W)
    wide = tolerance("output_projection", X, W=W, dtype="bfloat16", accumulate="bfloat16")
    assert wide > 10 * tolerance("output_projection", X, W=W, dtype="bfloat16")


@pytest.mark.parametrize("options", [{"causal": True}, {"scale": 0.25}, {"grouped": True}, {"window": (1, 0)}], ids=str)
def test_options_of_attention_are_keyword_arguments(options):
    """Heads that share a key head are seen from the shapes; the result of another option is wrong."""
    Q, K, V = inputs()
    if options == {"grouped": True}:
        K, V, options = K[:, :1], V[:, :1], {}
    mask = CAUSAL if "causal" in options else CAUSAL.triu(-1) if "window" in options else None
    got = eager(Q, K, V, mask, options.get("scale"))

    assert within_rounding("attention", got, Q, K, V, **options)
    assert not within_rounding("attention", got, Q, K, V, **{**options, "scale": 0.5})


def test_a_fully_masked_row_is_a_convention():
    """Zeros, unless NaN is declared; the message says where to declare it."""
    Q, K, V = inputs()
    mask = CAUSAL.clone()
    mask[2] = False
    zeros, nan = eager(Q, K, V, mask).nan_to_num(0.0), eager(Q, K, V, mask)

    assert within_rounding("attention", zeros, Q, K, V, mask)
    assert within_rounding("attention", nan, Q, K, V, mask=mask, conventions={"fully_masked_row": "nan"})
    found = within_rounding("attention", nan, Q, K, V, mask)
    assert "hint      this query is fully masked: conventions={'fully_masked_row': …}" in str(found)
    found = within_rounding("attention", zeros, Q, K, V, mask, conventions="fully_masked_row=nan")
    assert math.isnan(found.expected)
    assert found.got == 0


@pytest.mark.parametrize(
    ("polarity", "as_given"),
    [
        ("true_masks", lambda mask: ~mask),
        ("integer", lambda mask: mask.long()),
        ("additive", lambda mask: torch.zeros(mask.shape).masked_fill(~mask, -math.inf)),
    ],
)
def test_masks_of_another_polarity_are_declared(polarity, as_given):
    """The same result, of the same mask written in another way; undeclared, numbers are refused."""
    Q, K, V = inputs()
    got, given = fused(Q, K, V, CAUSAL), as_given(CAUSAL)

    assert within_rounding("attention", got, Q, K, V, given, conventions={"mask_polarity": polarity})
    if polarity == "true_masks":
        assert within_rounding("attention", got, Q, K, V, given, like="torch.nn")
    else:
        with pytest.raises(ValueError, match=f"mask: expected truth values, .*{polarity}"):
            within_rounding("attention", got, Q, K, V, given)


# Arrays ---------------------------------------------------------------------------------------------------------------


def norm(X, gain, bias):
    """LayerNorm of NumPy arrays."""
    centred = X - X.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gain + bias


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_arrays_of_numpy(dtype):
    """In each of its dtypes; keyword arguments are those of the step."""
    rng = np.random.default_rng(0)
    X, gain, bias = (rng.integers(-64, 65, shape).astype(dtype) / dtype(16) for shape in ((2, 3, 16), 16, 16))
    inside = np.float32 if dtype == np.float16 else dtype
    got = norm(*(each.astype(inside) for each in (X, gain, bias))).astype(dtype)

    assert within_rounding("layer_norm", got, X, gain=gain, bias=bias)
    assert not within_rounding("layer_norm", got, X, gain=gain, bias=bias, eps=1.0)


def test_bfloat16_of_ml_dtypes():
    """As NumPy arrays have it where jax or ml_dtypes is installed."""
    bfloat16 = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16
    Q, K, V = inputs()

    assert within_rounding("attention", _to(bfloat16, fused(Q, K, V)), *(_to(bfloat16, each) for each in (Q, K, V)))


def test_arrays_of_jax():
    """bfloat16 too."""
    jnp = pytest.importorskip("jax.numpy", reason="jax is not installed: it is an optional peer")
    Q, K, V = inputs()

    assert within_rounding("attention", _to(jnp.bfloat16, fused(Q, K, V)), *(jnp.asarray(_to(jnp.bfloat16, x)) for x in (Q, K, V)))


def _to(dtype, tensor):
    return tensor.float().numpy().astype(dtype)


def test_any_array_with_dlpack_or_the_array_protocol():
    """Neither torch's nor NumPy's."""

    class Dlpack:
        def __init__(self, tensor):
            self.tensor = tensor

        def __dlpack__(self, **asked):
            return self.tensor.__dlpack__(**asked)

        def __dlpack_device__(self):
            return self.tensor.__dlpack_device__()

    class Protocol:
        def __init__(self, tensor):
            self.tensor = tensor

        def __array__(self, dtype=None, copy=None):
            return self.tensor.numpy()

    Q, K, V = inputs(torch.float32)

    assert within_rounding("attention", Protocol(fused(Q, K, V)), Dlpack(Q), Protocol(K), V)
    with pytest.raises(TypeError, match=r"^input 0: expected an array, got Dlpack: "):
        within_rounding("attention", fused(Q, K, V), Dlpack(Q.bfloat16()), K, V)


def test_gradients_and_nested_parameters_are_no_obstacle():
    """A tensor that requires a gradient, and a layer's weights in dicts."""
    heads = {f"W_{name}": torch.eye(4) for name in "QKVO"} | {f"b_{name}": torch.zeros(4) for name in "QKVO"}
    norms = {f"norm_{i}": {"gain": torch.ones(4), "bias": torch.zeros(4)} for i in (1, 2)}
    layer = {"self_attention": heads, "feed_forward": _identity(), **norms}
    X = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    exact = oracle("encoder_layer", X, layer=layer, h=2)

    assert within_rounding("encoder_layer", exact.astype(np.float32), X, layer=layer, h=2)
    assert not within_rounding("encoder_layer", exact.astype(np.float32), X, layer=layer, h=1)


def _identity():
    return {"W_1": torch.eye(4), "b_1": torch.zeros(4), "W_2": torch.eye(4), "b_2": torch.zeros(4)}


# Numbers --------------------------------------------------------------------------------------------------------------


def test_a_tolerance_is_where_an_element_begins_to_fail():
    """Just below it a single element passes, just above it fails."""
    Q, K, V = inputs(torch.float32)
    exact = oracle("attention", Q, K, V)
    allowed = tolerance("attention", Q, K, V, dtype=np.float32)

    for share, passes in ((0.7, True), (1.05, False)):
        got = exact.copy()
        got[0, 1, 3, 2] += share * allowed[0, 1, 3, 2]
        assert bool(within_rounding("attention", got, Q, K, V, dtype="float32")) == passes

    assert allowed.shape == exact.shape
    assert (allowed <= budget("attention", *(each.double().numpy() for each in (Q, K, V))).bound).all()


def test_the_oracle_is_exact():
    """In float64, of inputs of any dtype."""
    Q, K, V = inputs()

    assert oracle("mask", 2, 3).tolist() == [[True, False, False], [True, True, False]]
    assert np.abs(oracle("attention", Q, K, V) - eager(Q.double(), K.double(), V.double()).numpy()).max() < 2.0**-48
