"""Fast attention at the edges where fused kernels are known to fail: masks over huge numbers, fully masked queries, empty axes."""

import pytest
import torch

from optimized.attention import attention
from optimized.mask import causal_mask, padding_mask
from optimized.softmax import softmax as plain_softmax
from properties.assertions import assert_rounding_only
from properties.error_budget.budgets import budget
from properties.implementations.contract import Contract
from properties.implementations.impl import Impl
from properties.implementations.optimized import Optimized
from reports.records import Verdict

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HIDDEN = [4, 5]  # the tokens that no query before them may attend to
SEEN = slice(0, 4)

MASKS = {
    "causal": {"causal": True},
    "padding": {"mask": padding_mask(torch.tensor([[True] * 4 + [False] * 2]))},
    "one row of a mask": {"mask": torch.tensor([True] * 4 + [False] * 2)},
    "causal and padding": {"causal": True, "mask": padding_mask(torch.tensor([[True] * 4 + [False] * 2]))},
    "a mask per query": {"mask": causal_mask(6).expand(1, 2, 6, 6)},
}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_mask = pytest.mark.parametrize("rule", MASKS)


def drawn(*shape, dtype=torch.float64, seed=0):
    """Normal numbers, the same for a seed at every dtype."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@each_dtype
@each_mask
@pytest.mark.parametrize("d_v", [4, 3], ids=["d_v = d_k", "d_v ≠ d_k"])
def test_the_largest_finite_numbers_behind_a_mask_change_no_bit(dtype, rule, d_v):
    """Hidden scores that overflow, to infinity or to NaN, are hidden all the same."""
    Q, K, V = drawn(1, 2, 6, 4, dtype=dtype), drawn(1, 2, 6, 4, dtype=dtype, seed=1), drawn(1, 2, 6, d_v, dtype=dtype, seed=2)
    before = attention(Q, K, V, **MASKS[rule])[:, :, SEEN]

    huge = torch.finfo(dtype).max
    K[:, :, HIDDEN], V[:, :, HIDDEN] = huge, -huge
    K[:, :, HIDDEN, 0] = -huge  # inf − inf inside one score
    Q[:, :, HIDDEN] = huge
    after = attention(Q, K, V, **MASKS[rule])[:, :, SEEN]

    assert torch.isfinite(before).all()
    assert torch.equal(after, before)


@each_dtype
@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (1, 1, 6, 5), (1, 2, 6, 5), (1, 1, 6, 1), (6, 5), (6, 1), (5,), (1,), ()], ids=str)
def test_a_query_that_may_look_nowhere_receives_zeros_and_sends_no_nan_back(dtype, shape):
    """Nothing seen, nothing learned: zeros forward, finite gradients backward, whatever stands behind the mask."""
    Q, K, V = (drawn(1, 2, n, 4, dtype=dtype, seed=n).requires_grad_() for n in (6, 5, 5))
    with torch.no_grad():
        V[0, 0, 2], V[0, 1, 3] = torch.finfo(dtype).max, torch.finfo(dtype).max / 2

    out = attention(Q, K, V, torch.zeros(shape, dtype=torch.bool))
    out.sum().backward()

    assert torch.equal(out, torch.zeros_like(out))
    for X in (Q, K, V):
        assert torch.equal(X.grad, torch.zeros_like(X))


@each_dtype
def test_one_fully_masked_query_leaves_the_gradients_of_the_others_alone(dtype):
    """Row 2 is fully masked: its query gets a gradient of zero, every other one that is finite and not zero."""
    Q, K, V = (drawn(1, 2, n, 4, dtype=dtype, seed=n).requires_grad_() for n in (6, 5, 5))
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2] = False

    attention(Q, K, V, mask).square().sum().backward()

    assert torch.equal(Q.grad[:, :, 2], torch.zeros_like(Q.grad[:, :, 2]))
    assert all(torch.isfinite(X.grad).all() for X in (Q, K, V))
    assert (Q.grad[:, :, [0, 1, 3, 4, 5]] != 0).any(dim=-1).all()


@each_dtype
@pytest.mark.parametrize(("b", "h", "n", "m"), [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_axes_of_no_length_are_an_ordinary_case(dtype, b, h, n, m, masked, causal):
    """No sequence, head, query or key: an empty result, or zeros where there is nothing to look at; gradients flow."""
    Q, K, V = drawn(b, h, n, 4, dtype=dtype).requires_grad_(), drawn(b, h, m, 4, dtype=dtype), drawn(b, h, m, 3, dtype=dtype)

    out = attention(Q, K, V, torch.ones(b, 1, 1, m, dtype=torch.bool) if masked else None, causal)
    out.sum().backward()

    assert torch.equal(out, torch.zeros(b, h, n, 3, dtype=dtype))
    assert torch.equal(Q.grad, torch.zeros_like(Q))


def one_seen_key(n, m, place):
    """A mask under which every query sees the key at `place` alone."""
    return (torch.arange(m) == place).expand(n, m)


@each_dtype
@pytest.mark.parametrize("m", [1, 31, 32, 33, 512, 513, 1025])
@pytest.mark.parametrize("per_key", [True, False])
def test_the_only_key_in_sight_is_copied_wherever_the_kernel_s_blocks_end(dtype, m, per_key):
    """All other keys hidden, the answer is that key's value to the last bit: also where whole blocks of keys are hidden."""
    Q, K, V = drawn(1, 2, 3, 4, dtype=dtype), drawn(1, 2, m, 4, dtype=dtype, seed=1), drawn(1, 2, m, 4, dtype=dtype, seed=2)
    for place in {0, m // 2, m - 1}:
        mask = one_seen_key(3, m, place)

        out = attention(Q, K, V, mask[:1] if per_key else mask)

        assert torch.equal(out, V[:, :, place : place + 1].expand(1, 2, 3, 4))


@each_mask
@pytest.mark.parametrize("contiguous", [False, True])
def test_layouts_do_not_matter(rule, contiguous):
    """Transposed, strided and expanded tensors are answered as the oracle answers the numbers they show."""
    Q, K, V = drawn(3, 6, 2, 4), drawn(3, 6, 2, 8, seed=1)[..., ::2], drawn(1, 6, 2, 4, seed=2).expand(3, 6, 2, 4)
    Q, K, V = (X.transpose(1, 2) for X in (Q, K, V))
    if contiguous:
        Q, K, V = Q.contiguous(), K.contiguous(), V.contiguous()
    mask = MASKS[rule].get("mask", torch.tensor(True)) & (causal_mask(6) if "causal" in MASKS[rule] else torch.tensor(True))

    out = attention(Q, K, V, **MASKS[rule])

    assert_rounding_only(Impl(Optimized()), "attention", out.numpy(), Q.numpy(), K.numpy(), V.numpy(), mask.numpy())


@each_dtype
@pytest.mark.parametrize("compiled", [False, True])
def test_softmax_of_a_fully_masked_row_is_zeros_and_its_gradient_too(dtype, compiled):
    """−∞ throughout: weights of 0 and no NaN in the gradient; other rows as ever, no key at all included. It compiles whole."""
    softmax = torch.compile(plain_softmax, backend="aot_eager", fullgraph=True) if compiled else plain_softmax
    scores = drawn(2, 3, dtype=dtype)
    scores[1] = -torch.inf
    scores.requires_grad_()

    weights = softmax(scores)
    (weights * drawn(2, 3, dtype=dtype, seed=1)).sum().backward()

    assert torch.equal(weights[1], torch.zeros(3, dtype=dtype))
    assert torch.equal(scores.grad[1], torch.zeros(3, dtype=dtype))
    assert (scores.grad[0] != 0).all()
    assert softmax(torch.zeros(2, 0, dtype=dtype)).shape == (2, 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_dtype_is_rounded_once(dtype, seed):
    """Scores and weights stay in float32, under a mask per query too: the budget of a fused kernel, not only of an eager one."""
    impl, mask = Impl(Optimized(), dtype), causal_mask(6).expand(1, 2, 6, 6).numpy()
    Q, K, V = (impl.representable((4 * drawn(1, 2, 6, 8, seed=3 * seed + i)).numpy()) for i in range(3))

    score = budget("attention", Q, K, V, mask, contract=Contract(dtype, mode="fused")).score(impl.attention(Q, K, V, mask))

    assert score.verdict is not Verdict.FAIL, str(score)
