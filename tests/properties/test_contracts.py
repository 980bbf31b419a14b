"""Contracts that a user may need: subnormal numbers that are flushed, and matrix products that are summed in parts."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from properties.error_budget.budgets import budget
from properties.error_budget.simulate import bound, simulate
from properties.implementations.contract import DTYPES, Contract, declared, envelope
from properties.implementations.formats import FORMATS
from properties.implementations.impl import DTYPES as TORCH
from properties.inputs.parameters import dyadic
from reports.records import Verdict

CASES = 40


def flushed(X: Tensor) -> Tensor:
    """Without its subnormal numbers."""
    return torch.where(X.abs() < torch.finfo(X.dtype).smallest_normal, torch.zeros_like(X), X)


def same(X: Tensor) -> Tensor:
    """As it is."""
    return X


def attention(dtype: str, given: Callable[[Tensor], Tensor], made: Callable[[Tensor], Tensor], *QKV: np.ndarray) -> np.ndarray:
    """Attention in `dtype`; `given` is done to each argument, and `made` to each matrix on the way and to the result."""
    Q, K, V = (given(torch.from_numpy(X).to(TORCH[dtype])) for X in QKV)
    weights = made(torch.softmax(made(Q @ K.mT / math.sqrt(Q.shape[-1])), dim=-1))
    return made(weights @ V).double().numpy()


def subnormal_attention(dtype: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights that are subnormal under large values, a value that is subnormal under a weight of nearly 1, and values under all."""
    depth = {"float64": 709.0, "float32": 88.0, "bfloat16": 88.0, "float16": 10.0}[dtype]
    K = dyadic(2 + seed, (1, 1, 7, 1), 0.5)
    K[0, 0, 1:4] -= depth
    V = dyadic(3 + seed, (1, 1, 7, 4), 64.0)
    V[..., :2] = dyadic(4 + seed, (1, 1, 7, 2)) * FORMATS[dtype].smallest_normal
    V[:, :, 4:, 2] = 0.0
    V[:, :, 0, 2] = 0.0
    return np.ones((1, 1, 2, 1)), K, V


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("given", "made"), [(same, same), (same, flushed), (flushed, flushed), (flushed, same)], ids=["kept", "FTZ", "DAZ FTZ", "DAZ"]
)
def test_who_may_flush_is_within_budget_whether_or_not_it_does(dtype, given, made):
    """Arguments, what is on the way, results, or none of them: a contract that flushes allows each."""
    contracts = [Contract(dtype, flush_to_zero=True), Contract(dtype, mode="fused", flush_to_zero=True)]
    for seed in range(CASES):
        QKV = subnormal_attention(dtype, seed)

        score = budget("attention", *QKV, contract=contracts, dtype=dtype).score(attention(dtype, given, made, *QKV))

        assert score.verdict is Verdict.PASS, score


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("left", [0.0, 1.0], ids=["DAZ", "kept"])
def test_a_subnormal_argument_may_be_flushed_though_the_result_is_a_normal_number(dtype, left):
    """An embedding of 4096 features multiplies by 64: what is half the smallest normal number in the table is 32 of them, or 0."""
    table = np.full((1, 4096), FORMATS[dtype].smallest_normal / 2)
    tokens = np.zeros((1, 1), dtype=np.int64)

    allowed = budget("embedding", tokens, table=table, contract=Contract(dtype, flush_to_zero=True), dtype=dtype)

    assert allowed.score(left * 64 * table[None]).verdict is Verdict.PASS
    assert allowed.score(100.0 * 64 * table[None]).verdict is Verdict.FAIL


@pytest.mark.parametrize("dtype", DTYPES)
def test_who_must_keep_subnormal_numbers_and_flushes_them_is_found(dtype):
    """In every dtype, float64 too."""
    QKV = subnormal_attention(dtype, 1)

    for given, made in ((same, flushed), (flushed, same)):
        assert budget("attention", *QKV, dtype=dtype).score(attention(dtype, given, made, *QKV)).verdict is Verdict.FAIL


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_contract_that_flushes_still_sees_a_fault(dtype):
    """A scale that is one off, among the same subnormal numbers."""
    Q, K, V = subnormal_attention(dtype, 1)
    wrong = attention(dtype, flushed, flushed, Q, K * 0.75, V)

    assert (
        budget("attention", Q, K, V, contract=Contract(dtype, flush_to_zero=True), dtype=dtype).score(wrong).verdict is Verdict.FAIL
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_trial_that_flushes_exceeds_the_proven_bound(dtype):
    """Nor does one of a product in parts."""
    for contract in (
        Contract(dtype, flush_to_zero=True),
        Contract(dtype, split_k=3),
        Contract(dtype, split_k=2, flush_to_zero=True),
    ):
        for seed in range(8):
            QKV = subnormal_attention(dtype, seed)

            _, blocks = simulate("attention", QKV, {}, [contract], 16, seed)

            assert all((np.abs(errors) <= bound("attention", QKV, {}, [contract])).all() for errors in blocks)


# Products in parts ----------------------------------------------------------------------------------------------------


def product_in_parts(X: np.ndarray, W: np.ndarray, parts: int, dtype: str) -> np.ndarray:
    """Each part of the sum rounded to `dtype`, and so is their sum: split-K."""
    left, right = (torch.from_numpy(array).to(TORCH[dtype]) for array in (X, W))
    sums = [a @ b for a, b in zip(left.chunk(parts, -1), right.chunk(parts, -2), strict=True)]
    return sum(sums[1:], start=sums[0]).double().numpy()


def verdicts(parts: int, dtype: str, *contracts: Contract) -> set[Verdict]:
    """Of output projections in parts, held to these contracts or, without any, to what nobody has to declare."""
    found = set()
    for seed in range(CASES):
        X, W = dyadic(2 + seed, (2, 5, 64), 2.0), dyadic(3 + seed, (64, 9), 0.5)
        allowed = budget("output_projection", X, W=W, contract=contracts or None, dtype=dtype)
        found.add(allowed.score(product_in_parts(X, W, parts, dtype)).verdict)
    return found


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_that_are_summed_in_the_storage_dtype_pass_once_declared(dtype):
    """The two halves of a product, rounded and then added: more than an undeclared product may be off, not more than declared."""
    assert Verdict.FAIL in verdicts(2, dtype)
    for parts in (2, 4):
        assert verdicts(parts, dtype, *declared(Declaring({"split_k": parts}), dtype)) == {Verdict.PASS}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_more_parts_than_declared_are_found(dtype):
    """Every term a part of its own is a sum kept in the storage dtype."""
    assert Verdict.FAIL in verdicts(64, dtype, *declared(Declaring({"split_k": 2}), dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_of_a_sum_in_the_storage_dtype_are_an_order_of_summation(dtype):
    """Where sums are no wider than what is stored, there is nothing to declare."""
    assert verdicts(2, dtype) == {Verdict.PASS}


class Declaring:
    """Something that declares a contract."""

    def __init__(self, contract) -> None:
        self.contract = contract


def test_what_a_contract_does_not_say_stays_open():
    """One that says nothing of its mode is held to the larger of eager and fused, as one that says nothing at all."""
    assert declared(Declaring({"split_k": 2}), "bfloat16") == tuple(
        Contract("bfloat16", split_k=2, mode=mode) for mode in ("eager", "fused")
    )
    assert declared(Declaring({"mode": "fused"}), "bfloat16") == (Contract("bfloat16", mode="fused"),)
    assert declared(Declaring({}), "bfloat16") == envelope("bfloat16")
