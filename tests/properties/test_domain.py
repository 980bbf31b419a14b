"""The domain of an implementation: what can be declared of it, what probes find, and what is refused within it and outside."""

import ast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tutorial_kernel import TUTORIAL, Kernel, softmax_of

from properties.implementations.conventions import OURS
from properties.implementations.domain import Domain, read
from properties.implementations.domain_probes import answered_outside, found
from properties.implementations.impl import Impl
from properties.implementations.laid import laid
from properties.verdicts import ClaimBroken, NotOffered
from veriformer.cli import main

# ---- what can be declared ----


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([16], "expected a mapping of axes to sizes, got [16]"),
        ({"d": 16}, "no axis 'd'; expected some of b, h, n, d_k"),
        ({"d_k": "sixteen"}, "d_k: expected sizes, a range"),
        ({"d_k": "multiple of 0"}, "d_k: leaves no size"),
        ({"n": "m", "m": "n"}, "m and n are each said to equal the other"),
        ({"mask": ("n h",)}, "mask: expected None or some of b h n m"),
        ({"layout": "diagonal"}, "layout: expected some of contiguous"),
        (dict.fromkeys(("b", "h", "n", "m", "d_k", "d_v"), 16), "leaves a single shape; expected at least 2 sizes"),
        ("d_k", "expected axis=sizes, got 'd_k'"),
    ],
)
def test_a_domain_without_sense_is_refused_in_one_line(said, complaint):
    """Which axis, what was expected, what came."""
    with pytest.raises(ValueError, match="domain: ") as refused:
        read(said, ("attention",))

    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("said", [TUTORIAL, {"mask": ("b 1 n m",), "layout": "contiguous"}, {"n": "1 to 512", "h": range(1, 9)}])
def test_a_printed_domain_can_be_pasted(said):
    """What is printed is read as the same domain."""
    domain = read(said, ("attention",))

    assert read(eval(str(domain), {"range": range}) if "range" in str(domain) else ast.literal_eval(str(domain))) == domain  # noqa: S307


def test_a_command_line_says_the_same():
    """Names and sizes, with a bar between sizes."""
    assert read("d_k=16|32|64|128|256,d_v=d_k,n=multiple of 128,m=n,mask=none") == read(TUTORIAL)


# ---- what probes find ----


class Undeclared(Kernel):
    """Says nothing of its limits."""

    domain = None


class TakesAll(Undeclared):
    """Has none."""

    def attention(self, Q, K, V, mask=None):
        """Of every size."""
        return softmax_of(Q, K, mask) @ V


class EqualWidths(TakesAll):
    """As jax.nn.dot_product_attention."""

    def attention(self, Q, K, V, mask=None):
        """Wants d_v = d_k."""
        if V.shape[-1] != K.shape[-1]:
            raise ValueError("value shape")
        return super().attention(Q, K, V, mask)


class WholeMasks(TakesAll):
    """Wants a row of the mask for each query."""

    def attention(self, Q, K, V, mask=None):
        """As onnxruntime's Attention-23 for some ranks."""
        if mask is not None and mask.shape[-2] != Q.shape[2]:
            raise RuntimeError("dimension -2 must be the number of queries")
        return super().attention(Q, K, V, mask)


class Stumbles(TakesAll):
    """Fails on a single feature by an accident that is no refusal."""

    def attention(self, Q, K, V, mask=None):
        """IndexError where d_v = 2."""
        return super().attention(Q, K, V, mask) if V.shape[-1] != 2 else [Q][int(V.shape[-1])]


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (Undeclared, TUTORIAL),
        (TakesAll, None),
        (EqualWidths, {"d_v": "d_k"}),
        (WholeMasks, {"mask": ("b h n m", "b 1 n m", "1 h n m", "1 1 n m", "n m")}),
        (Stumbles, None),
    ],
)
def test_probes_find_what_is_taken(kernel, expected):
    """Sizes, equal axes and masks; what ends by an accident is no limit."""
    domain = found(Impl(kernel(), "float32"))

    assert (None if domain is None else str(domain)) == (None if expected is None else str(read(expected)))


class Guesses(Kernel):
    """Reads 128 tokens whatever comes, without a word."""

    def attention(self, Q, K, V, mask=None):
        """Zeros where there are fewer."""
        return torch.zeros_like(V) if Q.shape[2] % 128 else super().attention(Q, K, V, mask)


def test_wrong_answers_outside_of_a_declared_domain_are_a_warning():
    """With the smallest such argument."""
    assert answered_outside(Impl(Guesses(), "float32")).startswith("attention of n = 1 is outside of its domain")
    assert answered_outside(Impl(Kernel(), "float32")) == ""


def test_what_cannot_be_laid_is_refused_with_a_reason():
    """Three features do not become sixteen without rounding."""
    with pytest.raises(
        NotOffered, match=r"attention of n = 1, which is not 'multiple of 128': outside of its domain \(no size of d_k"
    ):
        laid(
            read(TUTORIAL), "attention", (np.ones((1, 1, 1, 3)), np.ones((1, 1, 1, 3)), np.ones((1, 1, 1, 3))), {}, dtype="float32"
        )


def test_a_refusal_within_the_declared_domain_fails():
    """With the sizes that were refused."""

    class Refuses(Kernel):
        def answer(self, Q, K, V):
            raise NotImplementedError("not today")

    impl = Impl(Refuses(), "float32").under(OURS)

    with pytest.raises(ClaimBroken, match=r"refused arguments within its domain, b = 1, h = 1, n = 128.*: not today"):
        impl.attention(*(np.ones((1, 1, 1, 1)) for _ in range(3)))


REFUSES = """
import torch

class Kernel:
    domain = {"d_k": (16, 32), "d_v": "d_k", "n": "multiple of 128", "m": "n"}

    def attention(self, Q, K, V, mask=None):
        if mask is not None:
            raise NotImplementedError("no mask")
        if Q.shape[1] != K.shape[1] or Q.shape[2] % 128:
            raise ValueError("not taken")
        return torch.softmax(Q @ K.mT / Q.shape[-1] ** 0.5, -1) @ V
"""


def test_a_refusal_within_the_declared_domain_fails_and_ends_no_run(tmp_path, monkeypatch):
    """It says nothing of masks and takes none: probes are refused too, and every check has its verdict; so has the card."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(REFUSES)
    asked = ["mine.py:Kernel", "--dtype", "float32"]

    said = CliRunner().invoke(main, ["verify", *asked, "--claims", "A8,M1", "--examples", "5", "--run", "run"])
    card = CliRunner().invoke(main, ["card", *asked])

    assert said.exit_code == 1, said.output
    assert "planned and not run" not in said.output
    assert "refused arguments within its domain" in said.output
    assert card.exit_code == 0, card.output
    assert 'domain = {"d_k": (16, 32), "d_v": "d_k", "n": "multiple of 128", "m": "n"}' in card.output


def test_domains_without_limits_are_false():
    """As if nothing were declared."""
    assert not Domain()
