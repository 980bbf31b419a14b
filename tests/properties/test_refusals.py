"""NotImplementedError says that an implementation does not take some arguments: counted, never a failure and never a pass."""

import textwrap
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner

from properties import (
    test_attention,
    test_cache,
    test_conventions,
    test_feed_forward,
    test_paths,
    test_scalar_functions,
    test_sizes,
)
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.implementations.recomputed import Recomputed
from properties.test_residual_norm import test_a_norm_does_not_keep_values_below_one as refuted
from properties.verdict.judge import Judgement, judge, run_property
from reports.records import Verdict
from veriformer.cli import main
from veriformer.isolation.in_process import InProcess
from veriformer.isolation.proxy import ImplementationProxy
from veriformer.replay import FOLDER

MINE = """
    import numpy as np

    class OfThePaper:
        arrays = "numpy"

        def feed_forward(self, X, *, W_1, b_1, W_2, b_2, activation="relu"):
            if activation != "relu":
                raise NotImplementedError(f"no {activation}")
            return np.maximum(X @ W_1 + b_1, 0) @ W_2 + b_2

    class Nothing:
        arrays = "numpy"

        def feed_forward(self, *_, **__):
            raise NotImplementedError

        attention = layer_norm = feed_forward

    class Wrong(OfThePaper):
        def feed_forward(self, X, **weights):
            return super().feed_forward(X, **weights) * 1.25
"""


@pytest.fixture(params=["a process of its own", "this process"])
def impl(request, tmp_path, monkeypatch):
    """A class of MINE as an implementation, in a process of its own and in this one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    opened = []

    def made(name: str) -> Impl:
        if request.param == "this process":
            module: dict = {}
            exec(textwrap.dedent(MINE), module)  # noqa: S102 (our own text)
            return Impl(InProcess(name, module[name](), None, None), "float64")
        opened.append(ImplementationProxy(f"mine:{name}"))
        return Impl(opened[-1], "float64")

    yield made
    for proxy in opened:
        proxy.close()


def judged(impl: Impl, test, examples: int = 20) -> Judgement:
    """How a property ends."""
    return run_property(test, impl, seed=0, examples=examples)


def test_refused_examples_are_counted_and_the_others_verified(impl):
    """Of three activations one is taken: more than half of the examples are refused, so that nothing is said to have passed."""
    found = judged(impl("OfThePaper"), test_feed_forward.test_feed_forward_agrees_with_the_oracle)

    assert found.verdict is Verdict.UNSUPPORTED
    assert found.refused > found.generated > 0
    assert found.compared > 0
    assert found.message in (f"more than half refused: {said}" for said in ("no gelu; no gelu_tanh", "no gelu_tanh; no gelu"))


@pytest.mark.parametrize(("widest", "refused", "verdict"), [(1000, 2, Verdict.PASS), (3, 3, Verdict.UNSUPPORTED)])
def test_half_of_a_property_that_draws_nothing_is_half_of_its_calls(widest, refused, verdict):
    """It goes through four sizes, two or three of which are refused, and is one example."""

    class UpTo:
        name, arrays, dtypes, steps, conventions = "mine", "numpy", ("float64",), frozenset({"softmax"}), None

        def softmax(self, scores):
            if scores.shape[-1] > widest:
                raise NotImplementedError("too wide")
            return oracle("softmax", scores)

    found = judged(Impl(UpTo(), "float64"), test_sizes.test_softmax_at_every_size)

    assert (found.generated, found.refused, found.verdict) == (1, refused, verdict)


def test_a_run_says_how_much_was_refused(tmp_path, monkeypatch):
    """On the terminal, of a right implementation of one of three activations: neither a pass nor a failure, and why.

    No counterexample is looked for.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    options = ["--dtype", "float64", "--claims", "F1", "--examples", "10", "--run", "run"]

    said = CliRunner().invoke(main, ["verify", "mine.py:OfThePaper", *options])

    assert said.exit_code == 0, said.output
    assert "UNSUPPORTED, more than half refused: no gelu" in " ".join(said.output.split())
    assert not (tmp_path / "run" / FOLDER).exists()


def test_a_few_refusals_are_counted_and_no_more_is_said(impl):
    """A property whose examples are taken passes as ever."""
    found = judged(impl("OfThePaper"), test_feed_forward.test_small_integers_come_out_exactly)

    assert (found.verdict, found.refused, found.message) == (Verdict.PASS, 0, "")


@pytest.mark.parametrize(
    "test",
    [
        test_feed_forward.test_small_integers_come_out_exactly,  # draws its examples
        test_scalar_functions.test_relu_is_exact_at_every_number,  # is one example
        test_sizes.test_feed_forward_at_every_size,  # goes through several
        test_attention.test_a_token_need_not_attend_most_to_itself,  # searches for a counterexample
        refuted,
        test_conventions.test_fully_masked_row_is_as_declared,  # probes
        test_conventions.test_whether_feed_forward_keeps_subnormal_numbers,
    ],
    ids=lambda test: test.__name__,
)
def test_where_every_example_is_refused_nothing_is_verified(impl, test):
    """UNSUPPORTED, whatever form the property has: no pass, and no fault either."""
    found = judged(impl("Nothing"), test)

    assert found.verdict is Verdict.UNSUPPORTED, found
    assert found.message.startswith("refused")
    assert found.refused > 0
    assert found.compared == 0


def test_what_is_said_of_a_refusal_is_told(impl):
    """In the implementation's own tokens."""
    test, of_the_paper = test_scalar_functions.test_gelu_handles_nan_and_infinity, impl("OfThePaper")
    found = judge(partial(test, of_the_paper, "gelu"), test.property_of_claim, test.__name__, of_the_paper)

    assert (found.verdict, found.message) == (Verdict.UNSUPPORTED, "refused: no gelu")


def test_a_fault_beside_refusals_is_found(impl):
    """With an example that is taken."""
    found = judged(impl("Wrong"), test_feed_forward.test_feed_forward_agrees_with_the_oracle)

    assert found.verdict is Verdict.FAIL
    assert "activation': 'relu'" in found.counterexample


def test_conventions_that_refusals_do_not_show_are_ours(impl):
    """A probe that is refused shows nothing; nothing is raised."""
    assert impl("Nothing").conventions == impl("OfThePaper").conventions


# ---- caches ----


class NeverRollsBack(Recomputed):
    """It has the operation, and does not take it; of the others those that need rows of one length."""

    prefill_some = None

    def rollback(self, length):
        raise NotImplementedError("what is read stays read")


class Caching:
    """An implementation with such a cache."""

    name, arrays, dtypes, steps, conventions = "recomputed", "numpy", ("float64",), frozenset({"kv_cache"}), None

    def kv_cache(self, source, source_mask=None, **model):
        return NeverRollsBack(partial(oracle, "transformer"), source, source_mask, **model)


@pytest.mark.parametrize(
    "test",
    [
        test_cache.test_every_two_operations_on_a_cache,
        test_cache.test_a_cache_answers_as_the_whole_model,
        test_paths.test_chunked_prefill_equals_prefill_at_once,
    ],
    ids=lambda test: test.__name__,
)
def test_an_operation_that_a_cache_does_not_take_leaves_the_others_verified(test):
    """Programs with it are refused; the cache passes by the others, which are the larger part."""
    found = judged(Impl(Caching(), "float64"), test, examples=8)

    assert found.verdict is Verdict.PASS
    assert (found.refused > 0) == ("prefill" not in test.__name__)
    assert found.compared > 0


def test_layouts_do_not_hide_a_refusal():
    """Asked first about zeros, and then about numbers: refused both times, and counted once."""

    class Adapter:
        name, arrays, dtypes, steps, conventions = "mine", "numpy", ("float64",), frozenset({"softmax"}), None

        def softmax(self, scores):
            raise NotImplementedError

    impl = Impl(Adapter(), "float64").reading("refilled")

    assert impl.refuses("softmax", np.zeros((1, 2)))
