"""Backward as it is verified: budgets of several results, gradients by autograd, and the example."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from properties.assertions import assert_rounding_only
from properties.error_budget.budgets import budgets
from properties.error_budget.simulate import WAYS, simulate_all
from properties.implementations.autograd import BACKWARD, FORWARD, backward_of, derivable
from properties.implementations.contract import Contract
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.implementations.registry import built_in
from properties.inputs.parameters import dyadic
from properties.steps import STEPS, expected_shapes
from properties.verdict.judge import run_property
from properties.verdict.listing import property_named
from properties.verdicts import ClaimBroken, ImplementationError
from reports.records import Verdict
from veriformer.isolation.in_process import InProcess
from veriformer.isolation.proxy import ImplementationProxy

EXAMPLE = Path(__file__).parents[2] / "examples" / "flash_backward.py"
AGREES = "test_attention_backward_agrees_with_the_oracle"


def heads(n: int = 3, m: int = 4, d: int = 4) -> tuple[np.ndarray, ...]:
    """dO, Q, K and V."""
    return tuple(dyadic(2 + k, (1, 2, length, d)) for k, length in enumerate((n, n, m, m)))


def module(text: str) -> ModuleType:
    """A module with this text."""
    made = ModuleType("made")
    exec(compile(text, "made", "exec"), made.__dict__)  # noqa: S102 (our own text)
    return made


# ---- budgets ----


def test_each_gradient_has_a_budget_of_its_own():
    """By name and of its shape, from every contract and both ways of getting the row sums."""
    call = heads()

    found = budgets("attention_backward", *call, dtype="bfloat16")
    errors = simulate_all("attention_backward", call, {}, [Contract("bfloat16")], 4, 0, doubled=True)

    exact = oracle("attention_backward", *call)
    assert {name: budget.exact.shape for name, budget in found.items()} == expected_shapes("attention_backward", call, {})
    assert all(np.array_equal(found[name].exact, exact[name]) for name in exact)
    ways = 1 + len(WAYS["attention_backward"])
    assert {(len(each.plain), len(each.doubled)) for each in errors.values()} == {(ways, ways)}
    with pytest.raises(ValueError, match="expected one with several results, got 'attention'"):
        budgets("attention", *call)


@pytest.mark.parametrize("name", STEPS["attention_backward"].results)
def test_a_gradient_off_by_a_thousandth_is_over_its_budget(name):
    """Each of the three is judged, in float32."""
    call, impl = heads(), Impl(built_in("optimized"), "float32")
    exact = oracle("attention_backward", *call)
    got = {each: array * (1 + 1e-3 * (each == name)) for each, array in exact.items()}

    assert_rounding_only(impl, "attention_backward", exact, *call)
    with pytest.raises(ClaimBroken, match=f"attention_backward: {name}"):
        assert_rounding_only(impl, "attention_backward", got, *call)


def test_the_simulator_adds_up_columns():
    """A bias that learns from 2048 rows errs more than one that learns from 8."""
    few, many = (
        simulate_all(
            "layer_norm_backward",
            (dyadic(2, (1, rows, 3)) / 3, dyadic(3, (1, rows, 3))),
            {"gain": np.ones(3)},
            [Contract("float32")],
            32,
            0,
        )["dbias"].plain[0]
        for rows in (8, 2048)
    )

    assert np.abs(many).max() > 4 * np.abs(few).max() > 0


# ---- what an implementation returns ----


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda *each: each[:2], "expected dQ, dK, dV, got 2 results"),
        (lambda *each: dict(zip(("dQ", "dK"), each, strict=False)), "expected dQ, dK, dV, got a dict of dQ, dK"),
        (lambda dQ, dK, dV: (dQ, dV, None), "expected dV of shape"),
        (lambda dQ, dK, dV: (dQ.mT, dK, dV), "expected dQ of shape"),
    ],
)
def test_gradients_of_another_form_are_an_error(returned, message):
    """Too few, unnamed, missing, or of another shape: one line says what was expected."""
    right = module(EXAMPLE.read_text(encoding="utf-8")).attention_backward
    impl = Impl(InProcess("mine", lambda *call: returned(*right(*call)), "attention_backward", None), "float32")

    with pytest.raises(ImplementationError, match=message):
        impl.attention_backward(*heads(2, 3, 4))


def test_names_say_which_gradient_is_which():
    """A dict in any order is as good as a tuple."""
    right = module(EXAMPLE.read_text(encoding="utf-8")).attention_backward

    def by_name(*call):
        dQ, dK, dV = right(*call)
        return {"dV": dV, "dQ": dQ, "dK": dK}

    got = [
        Impl(InProcess("mine", each, "attention_backward", None), "float64").attention_backward(*heads())
        for each in (right, by_name)
    ]

    assert all(np.array_equal(got[0][name], got[1][name]) for name in got[0])


# ---- by autograd ----


def test_every_backward_step_can_be_had_from_its_forward():
    """And no step that is offered already is replaced."""
    assert BACKWARD.keys() == FORWARD.keys() == {step for step in STEPS if step.endswith(("_backward", "_gradient"))}
    assert derivable({"attention", "attention_backward"}) == ["attention_gradient"]


def test_only_what_is_asked_for_requires_a_gradient():
    """Of three inputs one; and what carries none is not taken."""
    seen = []

    def attention(Q, K, V, mask=None):
        seen.append([each.requires_grad for each in (Q, K, V)])
        return torch.softmax(Q @ K.mT / 2, -1) @ V

    dO, *inputs = map(torch.tensor, heads())
    backward_of("attention_gradient", attention)(dO, *inputs, of="K", passes=2)

    assert seen == [[False, True, False]]
    with pytest.raises(NotImplementedError, match="its result carries no gradient"):
        backward_of("attention_backward", lambda *call: attention(*call).detach())(dO, *inputs)


def test_backward_of_a_process_of_its_own(tmp_path):
    """`--backward`: a forward alone is differentiated there; without, it is not; one without a gradient is refused."""
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def attention(Q, K, V, mask=None):\n"
        "    return torch.nn.functional.scaled_dot_product_attention(Q, K, V, mask)\n"
        "class NoGradient:\n"
        "    @torch.no_grad()\n"
        "    def attention(self, Q, K, V, mask=None):\n"
        "        return attention(Q, K, V, mask)\n"
    )
    with ImplementationProxy(f"{tmp_path / 'mine.py'}:attention", backward=True) as mine:
        judgement = run_property(property_named(AGREES), Impl(mine, "float32"), seed=0, examples=5)
        assert (judgement.verdict, mine.derived) == (Verdict.PASS, {"attention_backward", "attention_gradient"})
    with ImplementationProxy(f"{tmp_path / 'mine.py'}:attention") as forward_alone:
        assert forward_alone.steps == {"attention"}
    with ImplementationProxy(f"{tmp_path / 'mine.py'}:NoGradient", backward=True) as without:
        judgement = run_property(property_named(AGREES), Impl(without, "float32"), seed=0, examples=5)
        assert judgement.verdict is Verdict.UNSUPPORTED
        assert "its result carries no gradient" in judgement.message


# ---- the example ----


def verdicts(text: str) -> dict[str, Verdict]:
    """What the laws of attention's gradients say of the example with this text."""
    impl = Impl(InProcess("flash", module(text), None, None), "float32")
    laws = (AGREES, "test_the_gradients_of_all_keys_sum_to_zero", "test_attention_backward_at_every_length")
    return {law: run_property(property_named(law), impl, seed=0, examples=20, small=False).verdict for law in laws}


def test_the_example_passes_and_fails_without_the_sum_of_its_rows():
    """examples/flash_backward.py is right; with dS = P ∘ dP each of these laws is broken."""
    text = EXAMPLE.read_text(encoding="utf-8")
    wrong = text.replace("dS = P * (dP - D)", "dS = P * dP")

    assert wrong != text
    assert set(verdicts(text).values()) == {Verdict.PASS}
    assert set(verdicts(wrong).values()) == {Verdict.FAIL}
