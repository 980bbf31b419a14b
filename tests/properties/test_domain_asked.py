"""Kernels with a domain are asked within it: what is right passes, what is wrong is seen."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.functional import gelu
from tutorial_kernel import Kernel, softmax_of

from properties.evaluation.correct.paged_attention import paged_attention
from properties.implementations.conventions import OURS
from properties.implementations.impl import Impl
from properties.verdict.judge import run_property
from properties.verdict.listing import property_named
from reports.records import Verdict


class WrongScale(Kernel):
    """Divides by √(d + 1)."""

    def answer(self, Q, K, V):
        """Wrong by little."""
        return torch.softmax(Q @ K.mT / math.sqrt(Q.shape[-1] + 1), -1) @ V


class LosesKeys(Kernel):
    """Reads 256 keys."""

    def answer(self, Q, K, V):
        """Right up to 256."""
        return super().answer(Q, K[:, :, :256], V[:, :, :256])


class LosesTail(Kernel):
    """Does not read the last key of a block."""

    def answer(self, Q, K, V):
        """Wrong for one key in 128."""
        kept = torch.arange(K.shape[2]) % 128 < 127
        return super().answer(Q, K[:, :, kept], V[:, :, kept])


class SumsInBfloat16(Kernel):
    """Adds blocks of keys up in bfloat16."""

    dtypes = ("bfloat16",)

    def answer(self, Q, K, V):
        """Right in each block."""
        P, out = softmax_of(Q.float(), K.float()), torch.zeros(*Q.shape[:3], V.shape[-1], dtype=torch.bfloat16)
        for j in range(0, K.shape[2], 16):
            out = out + (P[..., j : j + 16] @ V[:, :, j : j + 16].float()).bfloat16()
        return out


class Causal(Kernel):
    """With an option."""

    options = frozenset({"causal"})

    def attention(self, Q, K, V, mask=None, *, causal=False):
        """A tutorial's, causal or not."""
        return super().attention(Q, K, V, mask) if not causal else self.behind(Q, K, V, self.hidden(Q.shape[2]))

    def behind(self, Q, K, V, hidden):
        """Right, within the limits."""
        super().attention(Q, K, V)
        return softmax_of(Q, K, ~hidden) @ V

    def hidden(self, n):
        """What lies ahead."""
        return torch.ones(n, n, dtype=torch.bool).triu(1)


class Capped(Kernel):
    """With a cap, causal or not, and grouped heads."""

    options = frozenset({"softcap", "causal", "grouped_heads"})

    def attention(self, Q, K, V, mask=None, *, softcap=None, causal=False):
        """A tutorial's, capped."""
        K, V = (X.repeat_interleave(Q.shape[1] // X.shape[1], 1) for X in (K, V))
        super().attention(Q, K, V, mask)  # within the limits
        scores = Q @ K.mT / math.sqrt(Q.shape[-1])
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return torch.softmax(scores.masked_fill(ahead, -math.inf) if causal else scores, -1) @ V


class CappedTwice(Capped):
    """Wrong by little."""

    def attention(self, Q, K, V, mask=None, *, softcap=None, causal=False):
        """With twice the cap."""
        return super().attention(Q, K, V, mask, softcap=None if softcap is None else 2 * softcap, causal=causal)


class CausalEdge(Causal):
    """Sees one key too many from the last row of a block of 64."""

    def hidden(self, n):
        """Off by one at an edge."""
        rows, keys = torch.arange(n)[:, None], torch.arange(n)
        return keys > rows + (rows % 64 == 63)


def judged(kernel: type[Kernel], name: str, examples: int = 25) -> Verdict:
    """How a property ends on a kernel."""
    impl = Impl(kernel(), kernel.dtypes[0])
    return run_property(property_named(name), impl, seed=0, examples=examples, small=False).verdict


def test_a_right_kernel_with_a_tutorials_limits_passes():
    """Every question is asked within them."""
    for name in ("test_attention_agrees_with_the_oracle", "test_a_query_that_points_at_one_key_reads_its_value"):
        assert judged(Kernel, name) is Verdict.PASS


@pytest.mark.parametrize("kernel", [WrongScale, LosesKeys, LosesTail, SumsInBfloat16])
def test_faults_within_a_tutorials_limits_are_seen(kernel):
    """What shows at 1 × 1 shows there too, and what is beyond a block's edge."""
    assert judged(kernel, "test_attention_keeps_all_digits_of_its_inputs", 40) is Verdict.FAIL


@pytest.mark.parametrize(("kernel", "expected"), [(Causal, Verdict.PASS), (CausalEdge, Verdict.FAIL)])
def test_options_are_asked_for_within_a_tutorials_limits(kernel, expected):
    """A causal rule that is off by one at a block's edge, which no small question has."""
    assert judged(kernel, "test_causal_equals_the_explicit_mask", 60) is expected


@pytest.mark.parametrize(("kernel", "expected"), [(Capped, Verdict.PASS), (CappedTwice, Verdict.FAIL)])
def test_caps_and_grouped_heads_are_asked_for_within_a_tutorials_limits(kernel, expected):
    """Without masks, and with fewer keys than queries under the causal rule: hardly anything is refused."""
    impl = Impl(kernel(), "float32")

    found = run_property(
        property_named("test_attention_with_softcap_agrees_with_the_oracle"), impl, seed=0, examples=10, small=False
    )

    assert (found.verdict, found.refused) == (expected, 0)


class Backward(Kernel):
    """A right backward with a tutorial's limits."""

    steps = frozenset({"attention_backward"})

    def attention_backward(self, dO, Q, K, V, mask=None):
        """From the weights, computed again."""
        self.attention(Q, K, V, mask)
        P, scale = softmax_of(Q, K), 1 / math.sqrt(Q.shape[-1])
        dS = P * (dO @ V.mT - self.row_sums(dO, P @ V))
        return scale * dS @ K, scale * dS.mT @ Q, P.mT @ dO

    def row_sums(self, dO, output):
        """Of dP over the weights."""
        return (dO * output).sum(-1, keepdim=True)


class LosesRowSums(Backward):
    """Of the rows behind the first block."""

    def row_sums(self, dO, output):
        """Wrong where a row is not in the first 64."""
        right = super().row_sums(dO, output)
        return torch.where(torch.arange(output.shape[2])[:, None] < 64, right, 0.0)


@pytest.mark.parametrize(("kernel", "expected"), [(Backward, Verdict.PASS), (LosesRowSums, Verdict.FAIL)])
def test_gradients_are_asked_for_within_a_tutorials_limits(kernel, expected):
    """Small questions, at places all over the larger ones."""
    assert judged(kernel, "test_attention_backward_agrees_with_the_oracle", 30) is expected


FEW_ROWS = {"n": (32, 64), "d_model": (64, 128), "m": "multiple of 16", "d_ff": "multiple of 16"}


class Rows:
    """Softmax, LayerNorm and a feed-forward of 32 rows, of four sequences, of 64 features."""

    name, arrays, dtypes, conventions = "rows", "torch", ("float32",), None
    steps = frozenset({"softmax", "layer_norm", "feed_forward"})
    domain: Any = FEW_ROWS

    def softmax(self, scores):
        """Of 32 rows."""
        return torch.softmax(self.taken(scores, m=16), -1)

    def layer_norm(self, X, *, gain, bias, eps=1e-5):
        """Of 64 or 128 features."""
        return torch.nn.functional.layer_norm(self.taken(X, m=64), X.shape[-1:], gain, bias, eps)

    def feed_forward(self, X, *, W_1, b_1, W_2, b_2, activation="relu"):
        """With ReLU or one of two GELUs."""
        forward = {"relu": torch.relu}.get(activation, partial(gelu, approximate="tanh" if "tanh" in activation else "none"))
        return forward(self.taken(X, m=64) @ self.taken(W_1, m=16, n=64) + b_1) @ W_2 + b_2

    def taken(self, X, m, n=32):
        """As they are, or not at all."""
        if X.shape[-1] % m or X.shape[-2] % n:
            raise ValueError(f"shape {tuple(X.shape)}")
        return X


class OneRowIsForgotten(Rows):
    """The last of 32."""

    def taken(self, X, m, n=32):
        """Zero there."""
        X = super().taken(X, m, n)
        return torch.where(torch.arange(X.shape[-2])[:, None] % 32 < 31, X, 0) if n == 32 else X


@pytest.mark.parametrize(("kernel", "verdict"), [(Rows, Verdict.PASS), (OneRowIsForgotten, Verdict.FAIL)])
def test_steps_that_take_rows_of_some_number_are_asked(kernel, verdict):
    """What is right passes; a fault at the end of a block of rows, which no small question has, is seen."""
    for step in ("softmax", "norm", "feed_forward"):
        name = f"test_{step}_agrees_with_the_oracle"
        found = run_property(property_named(name), Impl(kernel(), "float32"), seed=0, examples=12, small=False)

        assert (name, found.verdict, found.message) == (name, verdict, "" if verdict is Verdict.PASS else found.message)


OF_PAGES = {"n": 1, "page": 16, "d_k": "multiple of 64", "d_v": "d_k"}


class DecodesPages:
    """Attention of one query over pages of 16, which refuses more."""

    name, arrays, dtypes, conventions = "pages", "torch", ("float32",), OURS
    steps = frozenset({"paged_attention"})
    domain: Any = OF_PAGES

    def paged_attention(self, Q, K_pages, V_pages, *, block_table, lengths):
        """Right."""
        if Q.shape[2] != 1 or K_pages.shape[1] != 16 or Q.shape[3] % 64 or V_pages.shape[3] != Q.shape[3]:
            raise NotImplementedError("one query, pages of 16, heads of 64")
        return paged_attention(Q, K_pages, V_pages, block_table=block_table, lengths=lengths)


def test_what_cannot_be_laid_is_drawn_inside_the_domain():
    """One query, pages and heads of the sizes that are taken: nothing is refused."""
    for name in ("test_paged_attention_agrees_with_the_oracle", "test_pages_of_another_size_change_nothing"):
        found = run_property(property_named(name), Impl(DecodesPages(), "float32"), seed=0, examples=10, small=False)

        assert (name, found.verdict, found.refused) == (name, Verdict.PASS, 0)
