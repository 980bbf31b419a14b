"""Scaled dot-product attention: each token becomes a weighted average of all tokens, weighted by how well they match it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.formats import FORMATS
from properties.implementations.oracle import oracle
from properties.inputs.attention import attention_calls, exact_attention_calls, full, full_mantissa, labels
from properties.inputs.parameters import BIASES, SEEDS, dyadic
from properties.verdict.refute import smallest_counterexample
from properties.verdicts import record


def alone(X: np.ndarray) -> np.ndarray:
    """Rows (n, d) as the only head of the only sequence of a batch."""
    return X[None, None]


def weights_of(impl, Q: np.ndarray, K: np.ndarray) -> np.ndarray:
    """How much each query looks at each key: the answer where the values are ones on the diagonal. (n, m)"""
    return impl.attention(alone(Q), alone(K), alone(np.eye(len(K))))[0, 0]


# A1, A2: what is computed ---------------------------------------------------------------------------------------------


@claim("A1", needs="multi_head")
@given(SEEDS, st.integers(1, 5), st.integers(1, 4))
def test_queries_keys_and_values_are_three_products_of_the_same_tokens(impl, seed, n, d):
    """With one head and W_O = 1, a token attending to its own sequence is attention on X·W_Q, X·W_K, X·W_V."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, (1, n, d)).astype(np.float64)
    W_Q, W_K, W_V = rng.integers(-1, 2, (3, d, d)).astype(np.float64)  # small whole numbers: the products are exact

    got = impl.multi_head(X, X, h=1, W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=np.eye(d), **dict.fromkeys(BIASES))

    assert_identical(np.array(got.shape), np.array(X.shape), "shape of the output")
    assert_rounding_only(impl, "attention", got[:, None], *(alone(X[0] @ W) for W in (W_Q, W_K, W_V)))


@claim("A2", needs="attention")
@given(attention_calls())
def test_attention_agrees_with_the_oracle(impl, call):
    """softmax(Q·Kᵀ/√d_k)·V differs from the oracle by rounding alone, for scores of every pattern and masks of every shape."""
    assert_rounding_only(impl, "attention", impl.attention(*call.args), *call.args)


@claim("A2", needs="attention")
@given(attention_calls(), SEEDS)
def test_attention_keeps_all_digits_of_its_inputs(impl, call, seed):
    """Queries, keys and values that use every digit of the dtype are judged like any others: no product may cut them short."""
    *tensors, mask = call.args
    Q, K, V = (full_mantissa(impl, X, seed + k) for k, X in enumerate(tensors))

    assert_rounding_only(impl, "attention", impl.attention(Q, K, V, mask), Q, K, V, mask)


@claim("A2", needs="attention")
@given(exact_attention_calls())
def test_equal_scores_average_exactly(impl, call):
    """1, 2, 4 or 8 keys that tie, all others far below or hidden: the mean of their values, bit for bit, in every dtype."""
    assert_identical(impl.attention(*call.args), oracle("attention", *call.args), "mean of tied values")


@claim("A2", needs="attention")
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 40), SEEDS)
def test_a_query_that_points_at_one_key_reads_its_value(impl, h, n, m, seed):
    """Each query is one key's own direction, so strong that no other has a weight but 0: its row is that key's label, bit for bit.

    2^14/√32 = 2896, and exp(−2896) is below the smallest subnormal number, in float64 too, so no correct answer can differ.
    """
    m = min(m, 32)
    picked = np.random.default_rng(seed).integers(0, m, (1, h, n))
    Q = (picked[..., None] == np.arange(32)) * 2.0**14
    K, V = np.broadcast_to(np.eye(m, 32), (1, h, m, 32)), labels(1, h, m, 3)

    got = impl.attention(Q, K, V)

    assert_identical(got, np.take_along_axis(V, picked[..., None], axis=2), "labels of the keys that are pointed at")


@claim("A2", needs="attention")
@given(attention_calls(), st.integers(0, 200), SEEDS)
def test_queries_do_not_influence_each_other(impl, call, i, seed):
    """Another query in row i leaves every other row bit-identical, and moves its own as the oracle predicts."""
    Q, *others = call.args
    i %= Q.shape[2]
    changed = Q.copy()
    changed[:, :, i] = dyadic(2 + seed, Q[:, :, i].shape, 2.0)
    rest = np.delete(np.arange(Q.shape[2]), i)

    before, after = impl.attention(Q, *others), impl.attention(changed, *others)

    assert_identical(after[:, :, rest], before[:, :, rest], f"rows other than {i}")
    assert_rounding_only(impl, "attention", after, changed, *others)


@claim("A2", needs="attention")
@given(attention_calls(), SEEDS)
def test_heads_and_batch_rows_do_not_influence_each_other(impl, call, seed):
    """Other numbers in one head of one sequence leave all others bit-identical; asked again, the first answer comes again."""
    *tensors, mask = call.args
    b, h = tensors[0].shape[:2]
    place = seed % b, seed // b % h
    changed = [X.copy() for X in tensors]
    for k, X in enumerate(changed):
        X[place] = dyadic(2 + seed + k, X[place].shape)
    rest = np.ones((b, h), dtype=bool)
    rest[place] = False

    before, after = impl.attention(*tensors, mask), impl.attention(*changed, mask)

    assert_identical(after[rest], before[rest], f"heads other than {place}")
    assert_rounding_only(impl, "attention", after, *changed, mask)
    assert_identical(impl.attention(*tensors, mask), before, "the same question asked again")


@claim("T3", needs="attention")
@given(attention_calls())
def test_attention_of_one_row_and_head_equals_its_slice_of_the_batch(impl, call):
    """Each head of each sequence, asked alone, is judged as in the batch."""
    *tensors, mask = call.args
    b, h, n, m = (*tensors[0].shape[:3], tensors[1].shape[2])
    whole = None if mask is None else full(mask, b, h, n, m)

    def one(i: int, j: int) -> np.ndarray:
        return impl.attention(*(X[i : i + 1, j : j + 1] for X in tensors), None if whole is None else whole[i : i + 1, j : j + 1])

    got = np.concatenate([np.concatenate([one(i, j) for j in range(h)], axis=1) for i in range(b)])

    assert_rounding_only(impl, "attention", got, *call.args)


# A3, A4: what scores mean ---------------------------------------------------------------------------------------------


@claim("A3", needs="attention")
def test_a_token_need_not_attend_most_to_itself(impl):
    """Refuted: "a token's relation to itself is the largest". A longer token in the same direction scores higher."""
    tokens = st.tuples(st.integers(1, 3), st.integers(1, 2)).flatmap(
        lambda shape: st.lists(st.integers(-4, 4), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]).map(
            lambda numbers: np.array(numbers, dtype=np.float64).reshape(shape)
        )
    )

    def prefers_another(X: np.ndarray) -> bool:
        P = weights_of(impl, X, X)
        return bool((P.max(axis=1) > P.diagonal() + sum_bound(len(X) + 2, impl, 1.0)).any())

    X = smallest_counterexample(tokens, prefers_another, "a token that looks at another more than at itself")

    record.counterexample(f"Q = K = {X.tolist()} gives the weights {weights_of(impl, X, X).round(4).tolist()}")


@claim("A3", needs="attention")
@given(st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_with_equal_norms_each_token_attends_most_to_itself(impl, n, d, seed):
    """Corrected (Cauchy-Schwarz): without projections, and for rows of one norm, the diagonal is its row's maximum, to rounding."""
    rng = np.random.default_rng(seed)
    row = rng.integers(-3, 4, d)
    X = np.array([rng.permutation(row) * rng.choice((-1.0, 1.0), d) for _ in range(n)])

    P = weights_of(impl, X, X)

    assert_at_most((P.max(axis=1) - P.diagonal()).max(), sum_bound(n + 2, impl, 1.0), "largest weight − a token's own")


def score_from(share: np.ndarray) -> np.ndarray:
    """The score that gives a key this share against a key of score 0."""
    return np.log(share / (1 - share))


def shares(impl, Q: np.ndarray, K: np.ndarray) -> np.ndarray:
    """The share of each key (m, d) against a key of zeros, for each query: (m, n). Each key is a head of its own."""
    m, n = len(K), len(Q)
    pairs = np.stack([K, np.zeros_like(K)], axis=1)
    V = np.broadcast_to(np.array([[1.0], [0.0]]), (m, 2, 1))
    return impl.attention(np.broadcast_to(Q, (1, m, *Q.shape)), pairs[None], V[None])[0].reshape(m, n)


@claim("A4", needs="attention")
@given(st.integers(1, 4))
def test_scores_have_variance_one_over_all_vectors_of_signs(impl, d):
    """Corrected: over all pairs of ±1 vectors, a score divided by √d_k has mean 0 and variance exactly 1, for every width."""
    signs = np.array(np.meshgrid(*[[1.0, -1.0]] * d)).reshape(d, -1).T

    share = shares(impl, signs, signs)

    score = score_from(share)
    exact = signs @ signs.T / np.sqrt(d)
    allowed = sum_bound(d + 4, impl, 1 + np.sqrt(d)) / (share * (1 - share)).min()  # of a score read off a share
    assert_at_most(np.abs(score - exact).max(), allowed, "|score − ⟨q, k⟩/√d_k|")
    assert_at_most(abs((score**2).mean() - 1), 2 * np.sqrt(d) * allowed + allowed**2, "|variance − 1|")


@claim("A4", needs="attention")
def test_a_sum_of_products_need_not_exceed_one_nor_does_scaling_keep_it_there(impl):
    """Refuted: "a sum over many features surely exceeds 1", and the root does not bring it below 1 either."""
    tokens = st.integers(1, 6).flatmap(lambda d: st.lists(st.sampled_from((1.0, -1.0)), min_size=2 * d, max_size=2 * d))

    def halves(numbers: list[float]) -> tuple[np.ndarray, np.ndarray]:
        d = len(numbers) // 2
        return np.array([numbers[:d]]), np.array([numbers[d:]])

    def is_balanced(numbers: list[float]) -> bool:
        return bool(shares(impl, *halves(numbers)) == 0.5)

    q, k = halves(smallest_counterexample(tokens, is_balanced, "two vectors of ±1 whose product does not exceed 1"))
    record.counterexample(f"q = {q[0].tolist()} and k = {k[0].tolist()} score 0, whatever it is divided by")

    ones = np.ones((1, 9))  # a product of 9, divided by √9
    of_score_one = 1 / (1 + np.exp(-1.0))
    assert_at_most(of_score_one - float(shares(impl, ones, ones)[0, 0]), 0.0, "share at a score of 1 − share of two equal tokens")


# A6, A7: averages of values -------------------------------------------------------------------------------------------


@claim("A6", needs="attention")
@given(attention_calls())
def test_every_row_lies_between_the_least_and_the_largest_value_it_sees(impl, call):
    """Each feature of the output lies within that feature of the values in sight, to rounding."""
    Q, K, V, mask = call.args
    seen = full(mask, *Q.shape[:3], K.shape[2])[..., None]
    least = np.where(seen, V[:, :, None], np.inf).min(axis=3)
    largest = np.where(seen, V[:, :, None], -np.inf).max(axis=3)

    got = impl.attention(*call.args)

    rounding = sum_bound(K.shape[2] + 2, impl, np.abs(V).max(initial=0.0))
    assert_at_most((got - largest).max(initial=0.0), rounding, "output − largest value in sight")
    assert_at_most((least - got).max(initial=0.0), rounding, "least value in sight − output")


@claim("A6", needs="attention")
@given(attention_calls(), st.integers(-100, 100))
def test_an_average_of_equal_values_is_that_value(impl, call, value):
    """Where all keys say the same, every query hears it, to rounding: this is what weights of sum 1 mean."""
    Q, K, V, mask = call.args

    got = impl.attention(Q, K, np.full_like(V, value), mask)

    rounding = sum_bound(K.shape[2] + 2, impl, abs(value))
    assert_at_most(np.abs(got - value).max(initial=0.0), rounding, f"distance from {value}")


@claim("A7", needs="attention")
@given(attention_calls(), st.integers(0, 6), SEEDS)
def test_a_feature_of_the_output_comes_from_that_feature_of_the_values(impl, call, c, seed):
    """Other numbers in feature c of V leave all other features bit-identical, and move that one as the oracle predicts."""
    Q, K, V, mask = call.args
    c %= V.shape[-1]
    changed = V.copy()
    changed[..., c] = dyadic(2 + seed, V[..., c].shape, 2.0)
    rest = np.delete(np.arange(V.shape[-1]), c)

    before, after = impl.attention(Q, K, V, mask), impl.attention(Q, K, changed, mask)

    assert_identical(after[..., rest], before[..., rest], f"features other than {c}")
    assert_rounding_only(impl, "attention", after, Q, K, changed, mask)


@claim("A7", needs="attention")
@given(attention_calls(), st.sampled_from((-1.0, 2.0, -4.0)))
def test_values_times_a_power_of_two_give_that_multiple(impl, call, factor):
    """Given the weights the output is linear in V: a factor that needs no rounding comes out bit for bit."""
    Q, K, V, mask = call.args
    V = np.where(np.abs(V) < 2.0**-8, 0.0, V)

    plain, got = impl.attention(Q, K, V, mask), impl.attention(Q, K, factor * V, mask)

    subnormal = np.abs(plain) < FORMATS[impl.dtype].smallest_normal  # rounded to a fixed grid, which does not scale
    assert_identical(np.where(subnormal, 0.0, got), np.where(subnormal, 0.0, factor * plain), f"attention of {factor}·V")


@claim("A7", needs="attention")
@given(attention_calls(), SEEDS)
def test_values_that_are_sums_give_sums(impl, call, seed):
    """Attention(Q, K, V + U) = Attention(Q, K, V) + Attention(Q, K, U), side by side in one call, to rounding."""
    Q, K, _, mask = call.args
    V, U = np.random.default_rng(seed).integers(-31, 32, (2, *K.shape[:3], 1)) * 1.0

    got = impl.attention(Q, K, np.concatenate([V, U, V + U], axis=-1), mask)

    rounding = 3 * sum_bound(K.shape[2] + 2, impl, 62.0)
    assert_at_most(np.abs(got[..., 2] - got[..., 0] - got[..., 1]).max(initial=0.0), rounding, "|A(V + U) − A(V) − A(U)|")


# A8, A10: order and features ------------------------------------------------------------------------------------------


@claim("A8", needs="attention")
@given(attention_calls(), SEEDS)
def test_keys_and_values_in_another_order_change_nothing(impl, call, seed):
    """(K, V) reordered together, with the columns of the mask, are judged as before: the memory is a set."""
    Q, K, V, mask = call.args
    order = np.random.default_rng(seed).permutation(K.shape[2])

    got = impl.attention(Q, K[:, :, order], V[:, :, order], None if mask is None else mask[..., order])

    assert_rounding_only(impl, "attention", got, *call.args)


@claim("A8", needs="attention")
@given(attention_calls(), SEEDS)
def test_queries_in_another_order_give_rows_in_that_order(impl, call, seed):
    """Reordered queries, with the rows of the mask, give reordered rows: no place is special."""
    Q, K, V, mask = call.args
    order = np.random.default_rng(seed).permutation(Q.shape[2])
    mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., order, :]

    got = impl.attention(Q[:, :, order], K, V, mask)

    assert_rounding_only(impl, "attention", got[:, :, np.argsort(order)], *call.args)


@claim("A10", needs="attention")
def test_attention_as_a_whole_crosses_features(impl):
    """Refuted: "attention does not cross features". Another feature 0 of a token changes P, and so feature 1 of the output."""
    tokens = st.lists(st.integers(-2, 2), min_size=4, max_size=4).map(lambda x: np.array(x, dtype=np.float64).reshape(2, 2))

    def moved(X: np.ndarray) -> np.ndarray:
        other = X.copy()
        other[0, 0] += 1.0
        before, after = (impl.attention(alone(tokens), alone(tokens), alone(tokens))[0, 0] for tokens in (X, other))
        return np.abs(after - before)[:, 1]

    def crosses(X: np.ndarray) -> bool:
        return bool(moved(X).max() > sum_bound(8, impl, 4.0))

    X = smallest_counterexample(tokens, crosses, "a change of feature 0 that reaches feature 1")

    record.counterexample(f"X = {X.tolist()} with 1 added to X[0, 0] moves feature 1 of the output by {moved(X).round(4).tolist()}")


@claim("A10", needs="attention")
@given(attention_calls(), st.integers(0, 6), SEEDS)
def test_given_the_weights_features_do_not_cross(impl, call, c, seed):
    """Corrected: with Q and K left as they are, so that P is, nothing but feature c of V reaches feature c of the output."""
    Q, K, V, mask = call.args
    c %= V.shape[-1]
    others = dyadic(2 + seed, V.shape, 2.0)
    others[..., c] = V[..., c]

    before, after = impl.attention(Q, K, V, mask), impl.attention(Q, K, others, mask)

    assert_identical(after[..., c], before[..., c], f"feature {c} after all others changed")
    assert_rounding_only(impl, "attention", after, Q, K, others, mask)
