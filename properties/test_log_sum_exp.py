"""Log-sum-exp: what a kernel of attention returns beside its output, so that parts of the keys can be merged."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.impl import Impl
from properties.inputs.attention import BLOCKS, attention_calls, farthest, full
from properties.inputs.parameters import SEEDS, dyadic


def size(Q: np.ndarray, K: np.ndarray) -> float:
    """What the sizes of a score's products add up to, at most; with the logarithm of as many keys as there are."""
    products = np.abs(Q) @ np.abs(K).swapaxes(-1, -2)
    return 1.0 + float(products.max(initial=0.0)) / np.sqrt(Q.shape[-1]) + float(np.log(max(K.shape[-2], 1)))


def rounding(impl: Impl, Q: np.ndarray, K: np.ndarray) -> float:
    """How far a log-sum-exp may be off: its score and its sum over keys, each stored on the way."""
    return 2 * sum_bound(Q.shape[-1] + K.shape[-2] + 4, impl, size(Q, K))


@claim("Y1", needs="log_sum_exp")
@given(attention_calls(fully_masked=True))
def test_log_sum_exp_agrees_with_the_oracle(impl, call):
    """log Σ exp(q·k/√d_k) over the keys in sight differs from the oracle by rounding alone; it is −∞ where none is."""
    Q, K, _, mask = call.args

    assert_rounding_only(impl, "log_sum_exp", impl.log_sum_exp(Q, K, mask), Q, K, mask)


@claim("Y1", needs="log_sum_exp")
@given(st.integers(0, 7), st.integers(-32, 32), st.integers(1, 3))
def test_equal_scores_tell_the_base(impl, k, score, n):
    """2ᵏ keys of the same score s: k·ln 2 + s, to the base that is declared or was found."""
    Q, K = np.full((1, 1, n, 1), 1.0), np.full((1, 1, 2**k, 1), score / 4)

    got = impl.log_sum_exp(Q, K)

    assert_at_most(np.abs(got - (k * np.log(2.0) + score / 4)).max(), rounding(impl, Q, K), "|L − (k·ln 2 + s)|")


@claim("Y1", needs="log_sum_exp")
@given(st.integers(1, 4) | st.sampled_from(BLOCKS), st.integers(1, 3), st.integers(-64, 64), SEEDS)
def test_scores_that_are_all_larger_raise_the_log_sum_exp_by_as_much(impl, m, n, c, seed):
    """Another number c added to all scores of a row is added to its L, to rounding, and nothing overflows."""
    Q, K = dyadic(2 + seed, (1, 2, n, 4), 4.0), dyadic(3 + seed, (1, 2, m, 4), 4.0)
    Q[..., 0], K[..., 0] = 2.0, 0.0  # the first feature's product, divided by √4, is what it is in the key
    shifted = K.copy()
    shifted[..., 0] = c

    before, after = impl.log_sum_exp(Q, K), impl.log_sum_exp(Q, shifted)

    allowed = rounding(impl, Q, K) + rounding(impl, Q, shifted)
    assert_at_most(np.abs(after - before - c).max(), allowed, f"|L(s + {c}) − L(s) − {c}|")


@claim("Y1", needs="log_sum_exp")
@given(attention_calls(), SEEDS)
def test_hidden_keys_do_not_count(impl, call, seed):
    """Of a key that is hidden for all, however large, no bit arrives; fully masked rows have −∞ and the others their own L."""
    Q, K, _, mask = call.args
    b, h, n, m = (*Q.shape[:3], K.shape[2])
    seen = full(mask, b, h, n, m).copy()
    rng = np.random.default_rng(seed)
    gone = rng.random(m) < 0.5
    seen[..., gone] = False
    other = K.copy()
    other[:, :, gone] = farthest(impl.dtype) * rng.choice((-1.0, 1.0), other[:, :, gone].shape)

    before, after = impl.log_sum_exp(Q, K, seen), impl.log_sum_exp(Q, other, seen)

    assert_identical(after, before, "log-sum-exp after hidden keys changed")
    assert_identical(np.isneginf(before), ~seen.any(axis=-1), "which rows have −∞")


@claim("Y1", needs="log_sum_exp")
@given(attention_calls(masked=False), SEEDS)
def test_exponentials_of_scores_less_the_log_sum_exp_sum_to_one(impl, call, seed):
    """Σ_j exp(s_ij − L_i) = 1, to rounding: L is what softmax divides by; in another order of the keys too."""
    Q, K, *_ = call.args
    order = np.random.default_rng(seed).permutation(K.shape[2])

    got = impl.log_sum_exp(Q, K[:, :, order])

    scores = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1])
    total = np.exp(scores - got[..., None]).sum(axis=-1)
    assert_at_most(np.abs(np.log(total)).max(), rounding(impl, Q, K), "|log Σ exp(s − L)|")
    assert_rounding_only(impl, "log_sum_exp", got, Q, K)


def split(call_keys: int, seed: int) -> np.ndarray:
    """To which of up to four parts each key belongs: runs of neighbours, or any; a part may have none."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, call_keys)
    return np.sort(labels) if seed % 2 else labels


@claim("Y2", needs="log_sum_exp")
@given(attention_calls(fully_masked=True), SEEDS)
def test_parts_of_the_keys_merge_to_the_whole_by_their_log_sum_exps(impl, call, seed):
    """The keys in up to four parts, anywhere: log Σ exp(L_part) is L, to rounding; a part in which nothing is seen adds nothing."""
    Q, K, _, mask = call.args
    b, h, n, m = (*Q.shape[:3], K.shape[2])
    seen, part = full(mask, b, h, n, m), split(m, seed)

    whole = impl.log_sum_exp(Q, K, seen)
    partial = [impl.log_sum_exp(Q, K, seen & (part == k)) for k in range(4)]

    merged = np.logaddexp.reduce(partial)
    assert_identical(np.isneginf(merged), np.isneginf(whole), "which rows have −∞")
    difference = np.subtract(merged, whole, out=np.zeros_like(whole), where=~np.isneginf(whole) | ~np.isneginf(merged))
    assert_at_most(np.abs(difference).max(initial=0.0), 2 * rounding(impl, Q, K), "|L of the parts − L|")


@claim("Y2", needs=("log_sum_exp", "attention"))
@given(attention_calls(masked=False), SEEDS)
def test_outputs_of_parts_merge_to_attention_by_their_log_sum_exps(impl, call, seed):
    """Σ exp(L_part − L)·O_part is attention over all keys, to rounding: what split keys and many machines rely on."""
    Q, K, V, _ = call.args
    part = split(K.shape[2], seed)
    there = [np.flatnonzero(part == k) for k in range(4) if (part == k).any()]

    whole = impl.attention(Q, K, V)
    outputs = [impl.attention(Q, K[:, :, keys], V[:, :, keys]) for keys in there]
    partial = [impl.log_sum_exp(Q, K[:, :, keys]) for keys in there]

    L = np.logaddexp.reduce(partial)
    merged = sum(np.exp(each - L)[..., None] * output for each, output in zip(partial, outputs, strict=True))
    largest = float(np.abs(V).max(initial=0.0))
    off = np.expm1(min(4 * rounding(impl, Q, K), np.log(3.0)))  # of the weights of parts and whole; at most averages are 2 apart
    assert_at_most(
        np.abs(merged - whole).max(initial=0.0), largest * off + 3 * sum_bound(K.shape[2] + 4, impl, largest), "|merged − whole|"
    )
