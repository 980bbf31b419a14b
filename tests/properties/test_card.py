"""The contract card names what a black box does: toys of every combination of conventions, of every width, in several orders."""

import json
import re
import textwrap
import time
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from properties.card import arithmetic, invariance, questions, summation
from properties.card.card import HOW, contract_card, conventions_of, invariance_of, options_shown
from properties.conventions import declarations
from properties.implementations import domain_probes
from properties.implementations.contract import Contract
from properties.implementations.conventions import CONVENTIONS, Conventions
from properties.implementations.formats import FORMATS
from properties.implementations.impl import DTYPES, Impl
from properties.implementations.registry import built_in
from reports.card_records import ContractCard, schema
from veriformer.cli import main
from veriformer.isolation.in_process import InProcess
from veriformer.show_card import declaration

# Conventions: two choices of each of ten ------------------------------------------------------------------------------

BINARY = {
    "mask_polarity": ("true_attends", "true_masks"),
    "fully_masked_row": ("zeros", "nan"),
    "non_finite_behind_mask": ("leaks", "blocked"),
    "subnormals": ("kept", "flushed"),
    "default_scale": ("1/√d_k", "1"),
    "causal": ("top_left", "bottom_right"),
    "window": ("inclusive", "exclusive"),
    "softcap_and_mask": ("before_mask", "after_mask"),
    "grouped_heads": ("contiguous", "strided"),
    "log_sum_exp_base": ("natural", "two"),
}
COMBINATIONS = [dict(zip(BINARY, choices, strict=True)) for choices in product(*BINARY.values())]


class Toy:
    """Attention with options that makes the choices it is told to make, and declares none of them."""

    name, arrays, dtypes = "toy", "numpy", ("float64",)
    steps = frozenset({"attention", "log_sum_exp"})
    options = ("causal", "scale", "window", "softcap")

    def __init__(self, **chosen):
        self.chosen = {name: choices[0] for name, choices in BINARY.items()} | chosen
        self.conventions = Conventions(mask_polarity=None)

    def attention(self, Q, K, V, mask=None, *, causal=False, scale=None, window=None, softcap=None):
        K, V = (self.grouped(X, Q.shape[1]) for X in (K, V))
        scores = self.flushed(self.scores(Q, K, mask, causal, scale, window, softcap))
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights = self.flushed(weights / weights.sum(axis=-1, keepdims=True))
        if self.chosen["fully_masked_row"] == "zeros":
            weights = np.where((scores == -np.inf).all(axis=-1, keepdims=True), 0.0, weights)
        return self.flushed(weights @ (np.nan_to_num(V) if self.chosen["non_finite_behind_mask"] == "blocked" else V))

    def grouped(self, X, h):
        g = X.shape[1]
        heads = np.arange(h) * g // h if self.chosen["grouped_heads"] == "contiguous" else np.arange(h) % g
        return X[:, heads]

    def scores(self, Q, K, mask, causal, scale, window, softcap):
        default = Q.shape[-1] ** -0.5 if self.chosen["default_scale"] == "1/√d_k" else 1.0
        scores = Q @ K.swapaxes(-1, -2) * (default if scale is None else scale)
        n, m = scores.shape[-2:]
        distance = np.arange(m) - np.arange(n)[:, None] - (m - n if self.chosen["causal"] == "bottom_right" else 0)
        visible = distance <= (0 if causal else m)
        if window is not None:
            edge = self.chosen["window"] == "exclusive"
            visible = visible & (distance >= edge - window[0]) & (distance <= window[1] - edge)
        if mask is not None:
            visible = visible & (mask ^ (self.chosen["mask_polarity"] == "true_masks"))
        hide = lambda s: np.where(visible, s, -np.inf)  # noqa: E731
        cap = lambda s: s if softcap is None else softcap * np.tanh(s / softcap)  # noqa: E731
        return hide(cap(scores)) if self.chosen["softcap_and_mask"] == "before_mask" else cap(hide(scores))

    def flushed(self, X):
        tiny = np.finfo(X.dtype).smallest_normal
        return np.where(np.abs(X) < tiny, 0.0, X) if self.chosen["subnormals"] == "flushed" else X

    def log_sum_exp(self, Q, K, mask=None):
        scores = self.scores(Q, K, mask, causal=False, scale=None, window=None, softcap=None)
        with np.errstate(divide="ignore"):
            return np.log(np.exp(scores).sum(axis=-1)) / (np.log(2.0) if self.chosen["log_sum_exp_base"] == "two" else 1.0)


def found(impl) -> dict[str, str]:
    """Each convention of a card, and the choice that it names."""
    rows, asked = conventions_of(impl)
    return {row.name: row.choice for row in (*rows, *options_shown(asked, questions.options_of(asked)))}


@pytest.mark.parametrize("part", range(4))
def test_every_combination_of_ten_conventions_is_named(part):
    """All 1,024, a quarter at a time."""
    assert len(COMBINATIONS) == 2**10

    for chosen in COMBINATIONS[part::4]:
        named = found(Impl(Toy(**chosen), "float64"))
        named["window"] = named["window"].partition(", ")[0] if named["window"].endswith(chosen["causal"]) else named["window"]

        assert {name: named[name] for name in chosen} == chosen


@pytest.mark.parametrize("scale", ["1/√d_k", "1"])
def test_the_scale_of_a_kernel_with_limits_is_named(scale):
    """Its questions are laid into 64 features, which multiplies Q: right for who divides by the root of 64 alone."""

    def attention(Q, K, V, mask=None):
        if mask is not None or Q.shape[-1] != 64 or Q.shape[2] % 128 or K.shape != Q.shape:
            raise ValueError("not taken")
        return torch.softmax(Q @ K.mT * (Q.shape[-1] ** -0.5 if scale == "1/√d_k" else 1.0), -1) @ V

    impl = Impl(InProcess("kernel", attention, "attention", "torch"), "float64")

    named = found(impl.within(domain_probes.found(impl)))

    assert named["default_scale"] == scale
    assert named["subnormals"] == "" or scale == "1/√d_k"


def test_an_implementation_of_another_scale_is_asked_as_if_it_were_ours():
    """Its other conventions and its arithmetic are read with scores that are what they are meant to be."""
    impl = Impl(Toy(default_scale="1"), "float64")

    rows, asked = conventions_of(impl)

    assert {row.name: row.choice for row in rows}["subnormals"] == "kept"
    assert str(arithmetic.of_the_sum(asked)) == str(arithmetic.of_the_sum(Impl(Toy(), "float64").under(Conventions()))) == "float64"


class Strange:
    """Takes options, and makes of them what no choice of the card says."""

    name, arrays, dtypes, conventions = "strange", "numpy", ("float64",), Conventions()
    steps = frozenset({"attention"})

    def attention(self, Q, K, V, mask=None, *, causal=False, softcap=None, sinks=None, slopes=None, bias=None):
        scores = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1] + 1)
        if causal:
            scores = np.where(np.arange(K.shape[-2]) == 0, scores, -np.inf)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - np.where(np.isfinite(scores), scores, 0.0).max(axis=-1, keepdims=True))
            return weights / weights.sum(axis=-1, keepdims=True) @ V


def test_an_answer_that_fits_no_choice_is_printed():
    """A scale of 1/√(d_k + 1), a visible set; and an option that changes nothing is ignored."""
    _, asked = conventions_of(Impl(Strange(), "float64"))

    rows = {row.name: row for row in options_shown(asked, questions.options_of(asked))}

    assert (rows["default_scale"].problem, rows["default_scale"].meaning) == ("other", "scores are 0.2425·Q·Kᵀ")
    assert (rows["causal"].problem, rows["causal"].meaning) == ("other", "visible: 0→0, 1→0, 2→0")
    assert {name for name, row in rows.items() if row.choice == "ignored"} == {"softcap", "bias", "sinks", "slopes"}
    assert "scale" not in rows


@pytest.mark.parametrize("question", questions.QUESTIONS, ids=lambda question: question.name)
def test_the_answers_of_a_question_are_told_apart_in_every_dtype(question):
    """Each choice's exact answer, rounded to the dtype, is read as that choice; what is near to none is none."""
    for dtype, (name, choice) in product(DTYPES, question.choices.items()):
        exact = np.asarray(choice.answer, np.float64)
        off = np.where(np.isfinite(exact), exact + 2.0**-5 * np.maximum(1, exact), 5.0)

        assert question.read(FORMATS[dtype].to_nearest(exact), dtype) == name
        assert question.read(off, dtype) is None


def test_a_scale_that_is_nearly_right_is_not_taken_for_right():
    """1/√(d_k + 1) is no 1/√d_k: in float32 by far more than rounding."""
    nearly = np.array([1 / (1 + np.exp(-4 / 17**0.5))])

    assert questions.BY_NAME["default_scale"].read(nearly, "float32") is None


def test_every_probe_is_told_in_words():
    """Of conventions that the oracle translates, too."""
    assert HOW.keys() == CONVENTIONS.keys()


# Arithmetic -----------------------------------------------------------------------------------------------------------


class Rounding:
    """Attention that adds up one term after the other in a format, and may store scores and weights in its dtype."""

    name, arrays, dtypes, conventions = "rounding", "torch", tuple(DTYPES), Conventions()
    steps = frozenset({"attention"})

    def __init__(self, accumulation="float32", *, stores="", order=None):
        self.round = np.copy if accumulation == "float64" else FORMATS[accumulation].to_nearest
        self.stores, self.order = stores, order or accumulated

    def attention(self, Q, K, V, mask=None):
        dtype, stored = Q.dtype, FORMATS[str(Q.dtype).removeprefix("torch.")].to_nearest
        Q, K, V = (X.to(torch.float64).numpy() for X in (Q, K, V))
        with np.errstate(over="ignore", invalid="ignore"):
            scores = self.sum([Q[..., :, None, i] * K[..., None, :, i] for i in range(Q.shape[-1])])
            scores = scores / np.sqrt(Q.shape[-1])
            scores = stored(scores) if "scores" in self.stores else scores
            if mask is not None:
                scores = np.where(mask.numpy(), scores, -np.inf)
            weights = self.round(np.exp(scores - scores.max(axis=-1, keepdims=True)))
            if "unnormalised" in self.stores:
                numerator = stored(weights)
                total = self.sum([weights[..., i] for i in range(weights.shape[-1])])[..., None]
                values = self.sum([numerator[..., i, None] * V[..., i, None, :] for i in range(V.shape[-2])])
                return torch.from_numpy(self.round(values / total)).to(dtype)
            weights = self.round(weights / self.sum([weights[..., i] for i in range(weights.shape[-1])])[..., None])
            weights = stored(weights) if "weights" in self.stores else weights
            values = self.order([weights[..., i, None] * V[..., i, None, :] for i in range(V.shape[-2])], self.added)
            return torch.from_numpy(values).to(dtype)

    def added(self, one, other):
        return self.round(one + other)

    def sum(self, terms):
        return accumulated(terms, self.added)


def accumulated(terms, add):
    """One after the other."""
    total = add(terms[0], 0.0)
    for term in terms[1:]:
        total = add(total, term)
    return total


def lanes(width):
    """Every width-th term after the other, then the lanes."""
    return lambda terms, add: accumulated([accumulated(terms[i::width], add) for i in range(min(width, len(terms)))], add)


def pairwise(terms, add):
    """The halves first."""
    if len(terms) == 1:
        return add(terms[0], 0.0)
    half = 1 << (len(terms) - 1).bit_length() - 1
    return add(pairwise(terms[:half], add), pairwise(terms[half:], add))


def in_groups(width):
    """Each group pairwise, the groups one after the other."""
    return lambda terms, add: accumulated([pairwise(terms[i : i + width], add) for i in range(0, len(terms), width)], add)


ORDERS = {
    "sequential": accumulated,
    "sequential, from the last": lambda terms, add: accumulated(terms[::-1], add),
    "pairwise": pairwise,
    "8 lanes": lanes(8),
    "16 lanes": lanes(16),
    "blocks of 8": lambda terms, add: pairwise([accumulated(terms[i : i + 8], add) for i in range(0, len(terms), 8)], add),
    "groups of 4, one after the other": in_groups(4),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("accumulation", ["bfloat16", "float16", "float32", "float64"])
def test_the_width_of_every_sum_is_named(dtype, accumulation):
    """Products, the sum of softmax, values: as narrow as it is; where the dtype cannot show it, no narrower than it is."""
    impl = Impl(Rounding(accumulation), dtype).under(Conventions())

    named = {
        "products": str(arithmetic.of_products(impl)),
        "sum": str(arithmetic.of_the_sum(impl)),
        "values": str(arithmetic.of_values(impl)),
    }

    hidden = dtype == "float16" and accumulation == "float64"
    wide = accumulation if dtype == "float64" or FORMATS[accumulation].bits < 14 else "float32 or wider"
    wide = {("float32", "float32"): "float32", ("float32", "float64"): "float64 or wider"}.get((dtype, accumulation), wide)
    terms = "float64 or wider" if hidden else accumulation
    assert named == {"products": terms, "sum": wide, "values": terms}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("stores", "scores", "weights"),
    [
        ("", "kept", "kept"),
        ("weights", "kept", "rounded"),
        ("unnormalised", "kept", "rounded before the division"),
        ("scores weights", "rounded", "rounded"),
    ],
)
def test_what_is_stored_in_the_narrow_dtype_is_named(dtype, stores, scores, weights):
    """Scores, weights, weights before the division; and the contract that follows is one."""
    impl = Impl(Rounding(stores=stores), dtype).under(Conventions())

    assert (arithmetic.scores_rounded(impl), arithmetic.weights_rounded(impl)) == (scores, weights)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_order_of_summation_is_named(order, dtype):
    """Of P·V, by which keys a large one swallows."""
    impl = Impl(Rounding(order=ORDERS[order]), dtype).under(Conventions())

    assert summation.order(summation.sizes(impl, arithmetic.of_values(impl))) == order


def test_an_order_without_a_name_is_other():
    """Not forced into the nearest one; and columns that differ are said to."""
    scrambled = np.random.default_rng(1).permutation(summation.KEYS)
    impl = Impl(Rounding(order=lambda terms, add: accumulated([terms[i % len(terms)] for i in scrambled], add)), "float32")
    size = summation.sizes(impl.under(Conventions()), arithmetic.Width(24))

    assert summation.order(size) == "other"
    place = np.arange(summation.KEYS)
    two = np.stack([np.maximum.outer(place, place) + 1, summation.KEYS - np.minimum.outer(place, place)], axis=-1)
    assert summation.order(two.astype(float)) == f"sequential; {summation.COLUMNS_DIFFER}"


class Approximate(Rounding):
    """Its softmax is 2⁻¹⁸ off for one argument."""

    steps = frozenset({"softmax"})

    def softmax(self, scores):
        weights = torch.softmax(scores.to(torch.float64), dim=-1)
        return torch.where(scores == -5.25, weights * (1 + 2.0**-18), weights).to(scores.dtype)


def test_the_largest_error_of_the_exponential_is_found():
    """In units in the last place, with its argument: 2⁻¹⁸ are 2⁵ to 2⁶ of float32's."""
    worst = arithmetic.exponential(Impl(Approximate(), "float32").under(Conventions()))

    assert worst.argument == 5.25
    assert 2**5 <= worst.ulps < 2**6 + 1
    assert str(arithmetic.exponential(Impl(Approximate(), "bfloat16").under(Conventions()))) == "correctly rounded"


# Bits that do not move ------------------------------------------------------------------------------------------------


class Variant(Rounding):
    """Adds up from the last key on where `unlike` says so."""

    def __init__(self, unlike):
        super().__init__()
        self.unlike, self.calls = unlike, 0

    def attention(self, Q, K, V, mask=None):
        self.calls += 1
        backwards = self.unlike(Q, self.calls)
        args = (Q, K.flip(-2), V.flip(-2)) if backwards else (Q, K, V)
        return super().attention(*args, mask if mask is None or not backwards else mask.flip(-1))


@pytest.mark.parametrize(
    ("name", "unlike", "size"),
    [
        ("batch_size", lambda Q, _: len(Q) > 4, 8),
        ("heads", lambda Q, _: Q.shape[1] > 8, 16),
        ("query_chunks", lambda Q, _: Q.shape[-2] == 2, 2),
        ("repetition", lambda Q, calls: calls >= 3, 3),
    ],
)
def test_a_bit_that_moves_is_found_with_its_first_size(name, unlike, size):
    """And nothing else is said to move."""
    rows = {row.name: row for row in invariance_of(Impl(Variant(unlike), "float32").under(Conventions()))}

    assert (rows[name].holds, rows[name].size) == (False, size)
    if name != "repetition":
        assert all(row.holds for other, row in rows.items() if other not in (name, "key_split"))


def test_who_adds_up_alike_moves_no_bit():
    """But where keys are split, which nobody expects."""
    rows = invariance_of(Impl(Rounding(), "bfloat16").under(Conventions()))

    assert [row.name for row in rows if not row.holds] == ["key_split"]
    assert [row.name for row in rows if not row.expected] == ["key_split"]
    assert len(rows) == len(invariance.INVARIANCES)


class OfItsPlace(Rounding):
    """The third of a batch is added up from the last key on."""

    def attention(self, Q, K, V, mask=None):
        forwards, backwards = super().attention(Q, K, V, mask), super().attention(Q, K.flip(-2), V.flip(-2))
        if len(Q) > 2:
            forwards[2] = backwards[2]
        return forwards


def test_a_place_in_the_batch_that_differs_is_found():
    """It is the second that is asked for after the first."""
    rows = {row.name: row for row in invariance_of(Impl(OfItsPlace(), "float32").under(Conventions()))}

    assert (rows["batch_place"].holds, rows["batch_place"].size) == (False, 2)
    assert rows["batch_size"].holds


# The card itself ------------------------------------------------------------------------------------------------------


def test_what_a_card_declares_can_be_pasted():
    """It is read as a class's attributes are, and the card of who declares it has no mismatch."""
    toy = Rounding(stores="weights")
    first = contract_card(toy, ("float32", "bfloat16"))
    said: dict = {}
    exec(declaration(first), said)  # noqa: S102 (as a user would paste it)

    declarations.take(toy, said["conventions"], said["contract"])
    again = contract_card(toy, ("float32", "bfloat16"))

    assert said["contract"] == {"bfloat16": {"mode": "fused", "cast_weights": True}}
    assert said["conventions"]["fully_masked_row"] == "nan"
    assert again.mismatches == []
    assert toy.contract
    toy.contract, toy.conventions = None, Conventions()
    Contract(dtype="bfloat16", **said["contract"]["bfloat16"])


def test_a_contract_that_promises_more_than_is_found_is_a_mismatch():
    """A narrower sum; weights that are rounded though declared kept."""
    toy = Rounding("bfloat16", stores="weights scores")
    declarations.take(toy, None, {"float32": {"accumulation": "float32"}, "bfloat16": {"mode": "fused"}})

    mismatches = contract_card(toy, ("float32", "bfloat16")).mismatches

    assert "contract: float32: accumulation=float32, but Q·Kᵀ adds up in bfloat16" in mismatches
    assert "contract: bfloat16: mode=fused, but scores are rounded to bfloat16" in mismatches


def test_a_card_takes_seconds():
    """A warm one of PyTorch's own functions, on a busy machine too; and it is a record that the schema describes."""
    began = time.process_time()
    card = contract_card(built_in("torch.sdpa"), ("float32", "bfloat16"))
    spent = time.process_time() - began

    assert spent < 5
    assert msgspec.json.decode(msgspec.json.encode(card), type=ContractCard) == card
    assert card.mismatches == []
    assert {row.name: row.choice for row in card.conventions}["causal_alignment"] == "top_left"
    assert schema()["$defs"].keys() >= {"ContractCard", "CardConvention", "CardNumber", "CardInvariance", "CardTaken"}


FRAGILE = """
    import os, time
    import numpy as np

    def attention(Q, K, V, mask=None, *, causal=False, softcap=None):
        if causal and K.shape[-2] > 1:
            os._exit(3)
        if softcap and K.shape[-2] > 1:
            time.sleep(60)
        scores = Q @ K.swapaxes(-1, -2) / Q.shape[-1] ** 0.5
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            return weights / weights.sum(axis=-1, keepdims=True) @ V
"""


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """A user's folder with a kernel that crashes for one option and hangs for another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "mine.py").write_text(textwrap.dedent(FRAGILE))
    return ["card", "mine:attention", "--arrays=numpy", "--dtype=float32", "--max-time=2"]


def test_a_probe_that_crashes_or_hangs_is_a_line_and_the_rest_goes_on(fragile):
    """The exit code is 0: nothing was declared."""
    said = CliRunner().invoke(main, [*fragile, "--json"])

    card = json.loads(said.stdout)
    problems = {row["name"]: row["problem"] for row in card["conventions"] if row["problem"]}
    assert said.exit_code == 0, said.output
    assert problems == {"causal_alignment": "crash", "causal": "crash", "softcap": "timeout", "softcap_and_mask": "timeout"}
    assert card["options"] == ["causal", "softcap"]
    assert [row["holds"] for row in card["invariance"] if row["name"] == "repetition"] == [True]


def test_a_declaration_that_is_contradicted_is_exit_code_1(fragile):
    """In the words of the verdict; what is found is printed all the same, and may be pasted."""
    said = CliRunner().invoke(main, [*fragile, "--like=torch"])

    assert said.exit_code == 1
    assert "CONVENTION_MISMATCH fully_masked_row: declared zeros, but the probe shows nan (float32)" in said.stdout
    assert "nan, declared zeros" in said.stdout
    assert '"fully_masked_row": "nan"' in said.stdout

    declared = CliRunner().invoke(main, [*fragile, "--declare"])

    assert declared.exit_code == 0
    assert declared.stdout.startswith("conventions = {")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere:attention"], "no module named 'nowhere'"),
        (["mine:attentio"], "mine has no attribute 'attentio'"),
        (["mine:attention", "--as=atention"], "did you mean attention?"),
        (["mine:attention", "--dtype=bfloat16"], "supports float64, float32, float16, got bfloat16"),
        (["optimised"], "did you mean optimized?"),
    ],
)
def test_a_target_that_is_none_is_one_line_and_exit_code_2(fragile, arguments, complaint):
    """As for `verify`."""
    said = CliRunner().invoke(main, ["card", "--arrays=numpy", *arguments])

    assert said.exit_code == 2
    assert complaint in said.stderr.strip().splitlines()[-1]
    assert said.stdout == ""


def test_the_page_shows_what_is_found():
    """The conventions of its kernel; how this processor adds up is its own affair."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "card.md").read_text(encoding="utf-8")
    kernel: dict = {}
    exec(page.split("```python\n")[1].split("```")[0], kernel)  # noqa: S102 (our own page)
    told = page.split("```text\n")[1].split("```")[0]

    rows, asked = conventions_of(Impl(InProcess("kernel", kernel["attention"], "attention", "torch"), "float32"))

    for row in (*rows, *options_shown(asked, questions.options_of(asked))):
        assert re.search(rf"^ {row.name} +{re.escape(row.choice)} .*{re.escape(row.how)}", told, re.MULTILINE), row.name
