"""Errors with heavy tails: what one correct run in thousands does is no fault; light tails forgive nothing."""

from itertools import product

import numpy as np
import pytest

from properties.error_budget import budgets, monte_carlo
from properties.error_budget.budgets import AGAIN, Budget, budget, derived
from properties.error_budget.monte_carlo import Trials
from properties.error_budget.simulate import bound, run_on, simulate
from properties.evaluation.calibration import runner, table
from properties.implementations.contract import Contract
from properties.implementations.formats import FORMATS
from properties.inputs.parameters import dyadic
from properties.test_sizes import _decoder
from reports.records import Verdict

FUSED = (Contract("bfloat16", mode="fused"),)  # stored in bfloat16, accumulated in float32
LOW = ("float32", "bfloat16", "float16")
FRESH = 20261  # a seed that the committed calibration did not draw from
SAMPLE = ("test_encoder_layer_agrees_with_the_oracle", "test_every_row_is_a_distribution_of_its_own", "test_decoder_at_every_size")
TRIED = [
    pytest.param(name, dtype, marks=pytest.mark.long if name == SAMPLE[0] and dtype != "bfloat16" else ())
    for name, dtype in product(SAMPLE, LOW)
]
"""Of a layer, whose cases take longest, one dtype that stores every matrix narrowly."""


def heads(seed: int, tokens: int = 6) -> tuple[np.ndarray, ...]:
    """Q, K and V of two heads."""
    return tuple(dyadic(2 + seed + i, (1, 2, tokens, 4), 2.0) for i in range(3))


def two_features() -> tuple[np.ndarray, np.ndarray]:
    """Two sequences of two tokens, the second of which only fills up the length."""
    X = np.array([[[-1.96875, -0.25]] * 2, [[-0.1875, 1.65625]] * 2])
    return X, np.broadcast_to([True, False], (2, 1, 1, 2))


def numbers(*of: float) -> np.ndarray:
    """So many 64ths; four of them are a matrix."""
    return np.reshape(of, (2, 2) if len(of) == 4 else -1) / 64


def tokens_of_two(*of: float) -> np.ndarray:
    """A sequence of tokens of two features."""
    return np.reshape(of, (1, -1, 2)) / 64


HEADS = {
    "W_Q": numbers(-2, 19, 22, -30),
    "W_K": numbers(-19, 0, -22, -4),
    "W_V": numbers(-23, -61, -32, -27),
    "W_O": numbers(-63, 24, 12, -58),
    "b_Q": numbers(12, 14),
    "b_K": numbers(27, 38),
    "b_V": numbers(-58, 10),
    "b_O": None,
}
THINK = {"W_1": numbers(-29, 18)[:, None], "b_1": numbers(-31), "W_2": numbers(59, 50)[None], "b_2": numbers(-63, -8)}
LAYER = {
    "self_attention": HEADS,
    "norm_1": {"gain": numbers(74, 88.5), "bias": numbers(64, 64)},
    "feed_forward": THINK,
    "norm_2": {"gain": numbers(35, 69), "bias": numbers(-6, 8)},
}
TWO_FEATURES = {"layers": [LAYER], "final_norm": {"gain": numbers(81.5, 83), "bias": numbers(0, 0)}, "h": 2}


def without_doubled_trials(step: str, args: tuple, kwargs: dict, contracts: tuple[Contract, ...]) -> Budget:
    """A budget from 256 trials that know nothing of tails."""
    exact, blocks = simulate(step, args, kwargs, contracts, AGAIN, 3)
    return derived(step, contracts, exact, blocks, lambda _: pytest.fail("not to be judged again"))


def test_an_ill_conditioned_row_of_four_features_is_no_fault():
    """The fixed example of 17 decoder layers, post-norm over four features, in bfloat16 with float32 sums: 2,000 trials pass.

    One row of it has heavy tails: without doubled trials some of the same trials fail.
    """
    (call,) = _decoder()
    exact, (errors,) = simulate("decoder", call.args, call.kwargs, FUSED, 2000, 0)
    allowed = budget("decoder", *call.args, contract=FUSED, **call.kwargs)
    plain = without_doubled_trials("decoder", call.args, call.kwargs, FUSED)

    assert max(score.budget_used for score in allowed.scores(exact + errors)) <= 1
    assert max(score.budget_used for score in plain.scores(exact + errors, escalate=False)) > 1


def test_a_difference_that_changes_its_sign_in_one_run_of_a_thousand_is_no_fault():
    """LayerNorm of two features is a sign: a rounding that turns it round errs by hundreds of σ, and is correct."""
    contracts, X, mask = (Contract("bfloat16"),), *two_features()
    exact, (errors,) = simulate("encoder", (X, mask), TWO_FEATURES, contracts, 4000, 4242)
    allowed = budget("encoder", X, mask, contract=contracts, **TWO_FEATURES)

    first = [score.worst for score in allowed.scores(exact + errors, escalate=False)]

    assert 1 <= sum(worst > 100 for worst in first) <= 20
    assert max(score.budget_used for score in allowed.scores(exact + errors)) <= 1


def test_numbers_of_few_bits_that_all_err_alike_in_one_run_of_a_thousand_are_no_fault(monkeypatch):
    """Values are integers and weights nearly 0 or 1: on a grid nearly the true one all of float16's results are shifted together.

    Without doubled trials, of which an eighth lie there, a sum over the whole result calls some of the same trials a fault; and
    were none to lie there, the second look would, too. The third is left out: of results this small it knows more trials.
    """
    monkeypatch.setattr(budgets, "AT_LAST", AGAIN)
    rng, contracts = np.random.default_rng(10), (Contract("float16", mode="fused"),)
    Q, K = rng.integers(0, 2, (3, 3, 3, 3)) * 1.0, rng.choice([1.0, -16.0], (3, 3, 3, 3))
    args = (Q, K, rng.integers(113, 142, (3, 3, 3, 3)) * 1.0, None)
    exact, (errors,) = simulate("attention", args, {}, contracts, 4000, 0)
    allowed = budget("attention", *args, contract=contracts)
    plain = without_doubled_trials("attention", args, {}, contracts)

    assert max(score.budget_used for score in allowed.scores(exact + errors)) <= 1
    assert max(score.budget_used for score in plain.scores(exact + errors, escalate=False)) > 1
    monkeypatch.setattr(monte_carlo, "NEAR", 0.0)
    budgets.memory.budgets.clear()
    afar = budget("attention", *args, contract=contracts)
    assert max(score.budget_used for score in afar.scores(exact + errors)) > 1


def test_what_few_numbers_do_in_one_run_of_ten_thousand_is_no_fault(monkeypatch):
    """The two features of a norm err in opposite ways, and seldom in the same: 256 trials may not show it, up to 2048 do."""
    X = tokens_of_two(-118, -104, -44, -18, 32, -6, -60, -88)
    sublayer = tokens_of_two(-8, 50, 54, -102, 106, 6, -82, 74)
    norm = {"gain": numbers(88, 88), "bias": numbers(40, -53)}
    contracts = (Contract("float16"),)
    exact, (errors,) = simulate("residual_norm", (X, sublayer), norm, contracts, 20_000, 1)

    def flagged() -> int:
        budgets.memory.budgets.clear()
        scores = budget("residual_norm", X, sublayer, contract=contracts, **norm).scores(exact + errors)
        return sum(score.budget_used > 1 for score in scores)

    assert flagged() == 0
    monkeypatch.setattr(budgets, "AT_LAST", AGAIN)
    assert flagged() > 0


def test_equal_numbers_whose_erf_other_code_computes_are_no_fault(monkeypatch):
    """Two hidden units are equal and subtracted; in a vector and in what is left over, their erf differs in the last bits.

    Were equal numbers to err alike always, 8 roundings of erf at −2 would be a fault.
    """
    weights = {"W_1": np.ones((1, 2)), "b_1": np.zeros(2), "W_2": np.array([[1.0], [-1.0]]), "b_2": np.zeros(1)}
    call = {**weights, "activation": "gelu", "contract": (Contract("float32"),)}

    def used() -> float:
        budgets.memory.budgets.clear()
        return budget("feed_forward", np.full((1, 1, 1), -2.0), **call).score(np.full((1, 1, 1), 2.0**-21)).budget_used

    assert used() <= 1
    monkeypatch.setattr(monte_carlo, "OWN_CODE", 0.0)
    assert used() > 1


@pytest.mark.parametrize(("largest", "finite"), [(65504.0, True), (65472.0, True), (65536.0, False)])
def test_no_trial_overflows_where_the_number_itself_does_not(largest, finite):
    """A number at the end of float16's range is stored three times, and on no grid becomes infinite; one behind it is."""
    X, one = np.full((1, 1, 1), largest / 2), np.array([[1.0]])
    call = {"W_1": 2 * one, "b_1": np.zeros(1), "W_2": one, "b_2": np.zeros(1)}
    _, (errors,) = simulate("feed_forward", (X,), call, (Contract("float16"),), 4000, 0)

    assert bool(np.isfinite(errors).all()) is finite


def test_light_tails_change_nothing():
    """On an attention, a product and a LayerNorm the scales are what they are without doubled trials, within their own scatter."""
    norm = {"gain": 1 + dyadic(3, (16,), 0.5), "bias": dyadic(4, (16,))}
    for dtype in LOW:
        for step, given, kwargs in (
            ("attention", heads(5, tokens=24), {}),
            ("layer_norm", (dyadic(7, (1, 24, 16), 2.0),), norm),
            ("output_projection", (dyadic(8, (1, 24, 16), 2.0),), {"W": dyadic(9, (16, 12)) / 3}),
        ):
            contracts = (Contract(dtype),)
            args = tuple(FORMATS[dtype].to_nearest(x) for x in given)
            plain = without_doubled_trials(step, args, kwargs, contracts)

            wide = budget(step, *args, contract=contracts, **kwargs).again(AGAIN)

            ratios = wide.scale / plain.scale
            assert 0.95 < np.median(ratios) < 1.05
            assert (ratios > 1.5).mean() < 0.01


@pytest.mark.parametrize("dtype", LOW)
def test_doubled_trials_err_twice_as_much(dtype):
    """In a product, where errors add up; what the true grid has exactly they have but for float32's roundings."""
    X, W = dyadic(8, (1, 40, 16), 2.0), dyadic(9, (16, 12)) / 3
    _, (plain, doubled) = simulate("output_projection", (X,), {"W": W}, [Contract(dtype)], 128, 0, doubled=True)
    tripled = {"table": np.arange(2.0, 20.0).reshape(2, 9) / 4}  # times √9
    _, exact = simulate("embedding", (np.array([[0, 1]]),), tripled, [Contract(dtype)], 64, 0, doubled=True)

    assert 1.7 < np.sqrt(np.square(doubled).mean() / np.square(plain).mean()) < 2.3
    inside = 0.0 if dtype == "float32" else 2.0**-18  # of numbers up to 15
    assert all(8 < (np.abs(errors) <= inside).all(axis=(1, 2, 3)).sum() < 56 for errors in exact)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_equal_columns_are_stored_as_neighbours_in_doubled_trials(dtype):
    """In a few of them, and by one unit in the last place or little more; what comes out of no product stays equal."""
    X = FORMATS[dtype].to_nearest(np.random.default_rng(0).standard_normal((1, 16, 16)))
    W = np.repeat(FORMATS[dtype].to_nearest(np.random.default_rng(1).standard_normal((16, 1))), 9, axis=1)
    machine = Trials([Contract(dtype)], 64, 0, doubled=True)

    product = run_on(machine, "output_projection", (X,), {"W": W})
    looked_up = run_on(Trials([Contract(dtype)], 64, 0, doubled=True), "embedding", (np.array([[0, 0, 0]]),), {"table": W / 3})

    apart = (product.shadow[64:] != product.shadow[64:, ..., :1]).any(axis=-1)
    assert 0.02 < apart.mean() < 0.5
    assert np.ptp(product.shadow[64:], axis=-1).max() <= 8 * FORMATS[dtype].u * np.abs(product.shadow).max()
    assert (looked_up.shadow == looked_up.shadow[..., :1]).all()


@pytest.mark.parametrize("dtype", LOW)
def test_no_trial_exceeds_the_proven_bound_among_subnormal_numbers(dtype):
    """The smallest numbers have a grid of their own, whatever a trial's."""
    far = {"float32": 90.0, "bfloat16": 90.0, "float16": 12.0}[dtype]
    scores = np.array([[0.0, -far, 1 - far, 2 - far]])

    _, (errors,) = simulate("softmax", (scores,), {}, [Contract(dtype)], 500, 0)

    assert (np.abs(errors) <= bound("softmax", (scores,), {}, [Contract(dtype)])).all()


@pytest.mark.parametrize("dtype", LOW)
def test_many_results_are_judged_as_each_alone_is(dtype):
    """Passing ones, a suspect's place, one beyond the bound, NaN and infinity, and ones that are wrong by far."""
    QKV = heads(1)
    allowed = budget("attention", *QKV, dtype=dtype)
    rng = np.random.default_rng(2)
    results = [allowed.exact + size * allowed.scale * rng.standard_normal(allowed.exact.shape) for size in (0, 0.5, 1, 2, 4, 30)]
    for wrong in (np.nan, np.inf, 1e6):
        results.append(allowed.exact.copy())
        results[-1][0, 1, 2, 3] = wrong

    together = allowed.scores(np.array(results))

    assert list(map(repr, together)) == [repr(allowed.score(got)) for got in results]  # NaN is not equal to itself
    assert {score.verdict for score in together} >= {Verdict.PASS, Verdict.FAIL}
    assert {score.kind for score in together} >= {"category", "component"}


@pytest.mark.parametrize(("name", "dtype"), TRIED)
def test_no_trial_of_our_own_simulator_is_accused(name, dtype):
    """A sample of what `veriformer calibrate` judges: a property's cases, fixed and drawn."""
    found = runner.work(("simulated", name, dtype, 16), FRESH)

    assert found["counts"]["cases"] > 0
    assert found["counts"]["trials"] >= 16 * found["counts"]["cases"]
    assert found["alarms"] == []


def test_a_budget_that_is_too_narrow_is_found(monkeypatch):
    """With scales of an eighth of the size trials of our own simulator are above the mark, and the calibration counts them."""
    derived_scale = budgets.component_scale
    monkeypatch.setattr(budgets, "component_scale", lambda *args: tuple(part / 8 for part in derived_scale(*args)))
    monkeypatch.setattr(budgets, "memory", budgets.Memory())

    found = runner.work(("simulated", SAMPLE[0], "bfloat16", 4), FRESH)

    assert found["counts"]["alarms"] > 0
    assert table.summary([found])["bfloat16"]["simulated"]["false positives"] == found["counts"]["alarms"]
