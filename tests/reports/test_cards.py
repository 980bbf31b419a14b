"""A card begins with what is wrong, in one sequence: made of the smallest input's answer, of the message, or the message itself."""

import numpy as np
import pytest
import sample_runs

from properties.counterexample.expected import Answer
from properties.counterexample.find import Counterexample, _difference
from properties.counterexample.write import as_text
from properties.error_budget.budgets import Score
from properties.implementations.calls import Asked
from reports.cards import card, sentence

ATTENTION = "attention(mask=None):\n    Q = [[[[1.0]]]]\n    K = [[[[0.0], [1.0]]]]\n"


def told(verdict: str = "FAIL", message: str = "", **found: object) -> dict:
    """A verdict's line about `kernels:flash`."""
    line = sample_runs.check("M2", "test_masked_key_is_left_out", "kernels:flash", "float32")
    return line | {"verdict": verdict, "message": message} | found


@pytest.mark.parametrize(
    ("verdict", "message", "wanted"),
    [
        (
            "FAIL",
            "attention in gain (0, 1, 0), worst: expected -110.7, got -108.4: 9 σ, 1.72e+04 times what rounding in float32 allows",
            "attention: wrong by 1.7e4× what float32 rounding allows, worst at [0, 1, 0]: expected -111, got -108",
        ),
        ("FAIL", "cache: expected shape (1, 3), got (1, 2)", "cache: shape (1, 2) instead of (1, 3)"),
        ("FAIL", "the weights sum to 0.98", "the weights sum to 0.98"),
        ("FAIL", "", "M2 does not hold"),
        ("ERROR", "kernels:flash raised ValueError: no (k.py:3 in flash)", "flash raised ValueError: no (k.py:3 in flash)"),
        (
            "ERROR",
            "kernels:flash.softmax: expected a result of dtype float32, got int64",
            "softmax: dtype int64 instead of float32",
        ),
        ("ERROR", "kernels:flash changed its input Q in place", "flash changed its input Q in place"),
        ("ERROR", "kernels:flash2 raised ValueError", "kernels:flash2 raised ValueError"),
        ("CRASH", "kernels:flash was killed by SIGSEGV during the call", "flash crashed (SIGSEGV) during the call"),
        ("CRASH", "kernels:flash was killed by SIGKILL (out of memory?)", "flash crashed (SIGKILL, out of memory?)"),
        ("TIMEOUT", "kernels:flash.softmax did not answer within 2 s", "softmax did not answer within 2 s"),
        ("UNEXPECTED_PASS", "declared as failing: it rounds twice", "holds, though declared a known failure: it rounds twice"),
        ("VACUOUS", "nothing was compared with kernels:flash in float32", "nothing was compared with kernels:flash in float32"),
    ],
)
def test_sequence_by_the_message_alone(verdict, message, wanted):
    """Whatever the verdict; tokens of its own stay as they are."""
    assert sentence(told(verdict, message)) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (
            "expected -0.7310585786300049 ± 3.52e-06, got -0.6697615385055542 at (0, 0, 0, 0); 1 of 2 are off",
            "attention: wrong by 1.7e4× what float32 rounding allows, worst at [0, 0, 0, 0]: expected -0.731, got -0.670",
        ),
        (
            "expected 1.0 ± 1e-07, got 1.0000123 at ()",
            "attention: wrong by 120× what float32 rounding allows, expected 1.00000, got 1.00001",
        ),
        ("expected 0.5, got nan at (0, 0, 1, 2)", "attention returned NaN where 0.5 is expected, at [0, 0, 1, 2]"),
        ("expected nan, got 0.25 at (3,)", "attention returned 0.25 where NaN is expected, at [3]"),
        ("expected 3, got 7 at (0, 1)", "attention: expected 3, got 7 at [0, 1]"),
        ("expected True, got False at (0, 1)", "attention: expected True, got False at [0, 1]"),
        ("expected a result of shape (1, 3), got (1, 2)", "attention: shape (1, 2) instead of (1, 3)"),
    ],
)
def test_sequence_by_the_answer_to_the_smallest_input(answer, wanted):
    """It is about the input that stands on the card, and not about the one the message is about."""
    of_another = "encoder at (9,): expected 5.0, got 6.0: 99 σ, 12 times what rounding in float32 allows"

    assert sentence(told("FAIL", of_another, counterexample=f"{ATTENTION}{answer}\nveriformer repro flash-1")) == wanted


def test_sequence_of_what_raises_names_the_step_of_the_smallest_input():
    """Not the attribute the implementation was found under."""
    line = told("CRASH", "kernels:flash was killed by SIGSEGV during the call", counterexample=f"{ATTENTION}whatever")

    assert sentence(line) == "attention crashed (SIGSEGV) during the call"


def test_smallest_input_of_another_dtype_is_told_by_what_rounding_allows_in_that():
    """A verdict that refers to the counterexample of its failure."""
    line = told("FAIL", "off", refers=True, shown_in="bfloat16", counterexample=f"{ATTENTION}expected 1.0 ± 0.01, got 3.0 at (0,)")

    assert sentence(line) == "attention: wrong by 200× what bfloat16 rounding allows, worst at [0]: expected 1.00, got 3.00"


def test_messages_of_the_budgets_and_of_the_counterexamples_are_understood():
    """As they are written today: a change of their wording must change how they are read."""
    score = Score(80.0, "row, bias", (0, 3), 1.0, 1.5, 10.0, 4, dtype="float32")
    category = Score(np.inf, "category", (0, 3), 1.0, np.nan, np.inf, 4, dtype="float32")
    answer = Answer(np.array([1.0, 2.0]), np.full(2, 0.01), np.full(2, 0.01))
    found = _difference(answer, np.array([1.0, 2.5]))
    assert found is not None
    asked = (Asked("softmax", (np.ones(2),), {}, None),)
    text = as_text(Counterexample("A5", "p", "mine", "float32", "numpy", asked, asked, ([answer],), found))

    assert sentence(told("FAIL", f"softmax {score}")).startswith(
        "softmax: wrong by 10× what float32 rounding allows, worst at [0, 3]: "
    )
    assert sentence(told("FAIL", f"softmax {category}")) == "softmax returned NaN where 1 is expected, at [0, 3]"
    assert sentence(told("FAIL", "off", counterexample=text)) == (
        "softmax: wrong by 50× what float32 rounding allows, worst at [1]: expected 2.00, got 2.50"
    )


def test_card_has_the_commands_apart_and_says_nothing_twice():
    """The script first, then the check with the options of its run."""
    line = told(
        "ERROR",
        "kernels:flash raised ValueError: no",
        counterexample=f"{ATTENTION}kernels:flash raised ValueError: no\nveriformer repro f-1",
    )

    shown = card(line, ["--as=attention", "--quiet"])

    assert shown.wrong == "attention raised ValueError: no"
    assert shown.said == shown.numbers == ""
    assert shown.example == ATTENTION.rstrip("\n")
    assert shown.commands == (
        "veriformer repro f-1",
        "veriformer verify kernels:flash --claims M2 --dtype float32 --seed 0 --as attention",
    )


def test_numbers_stand_where_no_example_says_them():
    """What was expected and what came, and where."""
    shown = card(told("FAIL", "rows do not sum to 1", expected="1.0", got="0.98", index="(0, 3)"))

    assert shown.numbers == "expected 1.0, got 0.98 at (0, 3)"


@pytest.mark.parametrize(
    "text", ["x" * 5000, "expected \x00, got nan at (", "((((" * 500, "kernels:flash", "\n\n", "expected a, got nan at (b)"]
)
def test_any_text_makes_a_sequence(text):
    """Of bounded length, without an exception."""
    for verdict in ("FAIL", "ERROR", "CRASH", "UNEXPECTED_PASS", "VACUOUS"):
        for line in (told(verdict, text), told(verdict, "off", counterexample=ATTENTION + text)):
            assert 0 < len(sentence(line)) <= 302
