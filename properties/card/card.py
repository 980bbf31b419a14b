"""The contract card of an implementation: its conventions, its sizes, its arithmetic, each found by a probe.

A probe that the implementation refuses, crashes in or does not answer is a line that says so; the others are asked all the same.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from hypothesis.errors import HypothesisException

from properties.card import arithmetic, declared, invariance, questions, summation, taken
from properties.card.rescaled import FACTORS, rescaled, unscaled
from properties.conventions.followed import PEER, in_words, of_torch
from properties.implementations import domain_probes
from properties.implementations.convention_probes import PROBES, shown
from properties.implementations.conventions import CHOICES, CONVENTIONS, OURS, Conventions
from properties.implementations.formats import FORMATS
from properties.implementations.impl import Adapter, Impl
from properties.implementations.registry import built_in
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError, ImplementationTimeout, NotOffered, record
from reports.card_records import CardConvention, CardInvariance, CardNumber, CardTaken, ContractCard, Problem

Answer = TypeVar("Answer")

HOW = {
    "mask_polarity": "values 1, 2, 4",
    "causal_alignment": "one query, two keys",
    "fully_masked_row": "values 1, 2, 6",
    "fully_masked_softmax": "two scores of −∞",
    "eps": "rows 1, −1 with eps = 1",
    "layout": "row 1 of a 2 × 4 encoding",
    "non_finite_behind_mask": "NaN in it",
    "subnormals": "half the least normal",
    "out_of_range_token": "tokens −1 and 3 of 3",
    "odd_d_model": "2 × 3",
    "non_finite_masked_key": "NaN, ∞, −∞ in it",
    "log_sum_exp_base": "two scores of 0",
    "fully_masked_log_sum_exp": "a mask of False",
    "sequence_without_keys": "lengths 0",
    "corrupt_indices": "lengths and pages that cannot be",
}
"""The probes of `convention_probes`, in a few words each."""

NARROW = ("bfloat16", "float16")  # dtypes below float32, where it is a choice what is stored in them
STORED = (
    ("scores", "scores", arithmetic.scores_rounded, "2ᵖ beside 2ᵖ + 1/2"),
    ("weights", "weights before P·V", arithmetic.weights_rounded, "values that nearly cancel"),
)


class Failed(NamedTuple):
    """Why a probe has no answer."""

    problem: Problem
    said: str


def attempted(ask: Callable[[], Answer]) -> Answer | Failed:
    """The answer, or why there is none."""
    try:
        return ask()
    except (NotOffered, ClaimBroken) as refusal:  # the latter where it declares to take them
        return Failed("refused", f"refused: {refusal}" if str(refusal) else "refused")
    except ImplementationCrash as crash:
        return Failed("crash", str(crash))
    except ImplementationTimeout as hang:
        return Failed("timeout", str(hang))
    except ImplementationError as error:
        return Failed("error", str(error))
    except HypothesisException:  # what is raised once an implementation has hung too often, and for what it does not take
        return Failed("refused", "not answered")


# Conventions ----------------------------------------------------------------------------------------------------------


def conventions_of(impl: Impl) -> tuple[list[CardConvention], Impl]:
    """Every convention that the steps show, declared or not; and the implementation as further questions ask it.

    These are asked in masks of its polarity and of scores that are scaled, and nothing else is translated.
    """
    own = impl.adapter.conventions or Conventions()
    known, rows = Conventions(**dict.fromkeys(CHOICES)), []
    impl = rescaled(impl, _scale(impl))
    for name, convention in CONVENTIONS.items():
        said = getattr(own, name)
        steps = [step for step in PROBES[name].steps if impl.offers(step)]
        if not steps:
            continue
        found = _found(impl.under(known), name, steps)
        choice = found if isinstance(found, str) else ""
        known = replace(known, **{name: choice or said or getattr(OURS, name)})
        peer = "" if impl.name == PEER else of_torch(impl.dtype, impl.device, name) or ""
        rows.append(
            CardConvention(
                name,
                convention.what,
                choice,
                convention.choices[choice] if isinstance(found, str) else found.said,
                HOW.get(name, f"of {steps[0]}"),
                said or "",
                convention.choices[peer] if peer else "",
                bool(choice and peer) and peer not in (choice, convention.allows),
                _problem(choice, said, convention.allows) if choice else found.problem,  # type: ignore[union-attr]
                [impl.dtype],  # type: ignore[list-item]
            )
        )
    return rows, impl.under(Conventions(known.mask_polarity))


def _scale(impl: Impl) -> str:
    """By what scores are multiplied where no scale is asked for; "" where no question shows it.

    What is laid into more features is so for who divides by their root: then another scale is the one that, undone, reads as that.
    """
    if found := _scale_read(impl):
        return found
    undone = (name for name in FACTORS if impl.domain and _scale_read(rescaled(impl, name)) == "1/√d_k")
    return next(undone, "")


def _scale_read(impl: Impl) -> str:
    question = questions.BY_NAME["default_scale"]
    answer = attempted(lambda: question.ask(impl.under(Conventions()))) if impl.offers("attention") else None
    return "" if answer is None or isinstance(answer, Failed) else question.read(answer, impl.dtype) or ""


def _problem(choice: str, said: str | None, allows: str | None) -> Problem:
    return "mismatch" if said is not None and choice != said != allows else ""


def _found(impl: Impl, name: str, steps: Iterable[str]) -> str | Failed:
    """The choice that the first step shows, or a later one, if that permits the others too; else why none is shown."""
    seen: list[str] = []
    failed = Failed("other", "no answer")
    with record.apart():
        for step in steps:
            answer = attempted(lambda step=step: shown(impl, name, step))  # type: ignore[misc]
            if isinstance(answer, Failed):
                failed = answer
            elif answer[0] is None:
                failed = Failed("other", f"none of {', '.join(CHOICES[name])}: answers {answer[1]:.6g}")
            else:
                seen.append(answer[0])
    allows = CONVENTIONS[name].allows
    return allows if allows in seen else seen[0] if seen else failed


def options_shown(impl: Impl, options: frozenset[str]) -> list[CardConvention]:
    """What attention makes of its options, and of what it may do without any."""
    asked = [question for question in questions.questions_for(impl, options) if question.name not in CONVENTIONS]
    rows = [_row(impl, question) for question in asked]
    return [row for row in rows if row.name != "grouped_heads" or row.choice or row.problem in ("crash", "timeout", "other")]


def _row(impl: Impl, question: questions.Question) -> CardConvention:
    if question.name == "default_scale":
        impl = unscaled(impl)
    answer = attempted(lambda: question.ask(impl))
    choice = "" if isinstance(answer, Failed) else question.read(answer, impl.dtype) or ""
    if question.name == "default_scale" and not choice:
        choice = _scale(impl)
    problem: Problem = "" if choice else answer.problem if isinstance(answer, Failed) else "other"
    if choice:
        meaning = question.choices[choice].meaning
    else:
        meaning = answer.said if isinstance(answer, Failed) else question.strange(answer)
    peer = "" if impl.name == PEER else _of_torch(question.name, impl.dtype, impl.device)
    said = question.choices[peer].meaning if peer else ""
    differs = bool(choice and peer) and choice != peer
    dtypes: list[Any] = [impl.dtype]
    return CardConvention(question.name, question.what, choice, meaning, question.how, "", said, differs, problem, dtypes)


@cache
def _of_torch(name: str, dtype: str, device: str) -> str:
    """The choice that PyTorch's attention is seen to make; "" where it has no such option."""
    question, (peer, options) = questions.BY_NAME[name], _torch(dtype, device)
    if not peer.offers(question.step) or not question.options <= options:
        return ""
    answer = attempted(lambda: question.ask(peer))
    return "" if isinstance(answer, Failed) else question.read(answer, dtype) or ""


@cache
def _torch(dtype: str, device: str) -> tuple[Impl, frozenset[str]]:
    """PyTorch's own functions as an implementation, and the options they take."""
    peer = Impl(built_in(PEER), dtype, device).under(Conventions())
    return peer, questions.options_of(peer)


# Arithmetic -----------------------------------------------------------------------------------------------------------


def numerics_of(impl: Impl) -> list[CardNumber]:
    """Widths of sums, what is stored in between, the order of summation and the exponential."""
    numbers = list(_budget_matters(impl)) if impl.offers("attention") else []
    if impl.offers("attention"):
        width = attempted(lambda: arithmetic.of_values(impl))
        order = width if isinstance(width, Failed) else attempted(lambda: summation.order(summation.sizes(impl, width)))
        numbers.append(_number(impl, "order", "order of P·V", order, f"which of {summation.KEYS} keys a large one swallows"))
    if impl.offers("softmax") or impl.offers("attention"):
        worst = attempted(lambda: arithmetic.exponential(impl))
        numbers.append(_number(impl, "exponential", "softmax", worst, f"{len(arithmetic.ARGUMENTS)} arguments, in 200 bits"))
    return numbers


def arithmetic_of(impl: Impl) -> str:
    """In a few words what matters for the error budget: the narrowest sum, and what is rounded on the way; "" where unclear."""
    if not impl.offers("attention"):
        return ""
    found: dict[str, CardNumber] = {}
    with record.apart():
        for number in _budget_matters(impl.under(Conventions(impl.conventions.mask_polarity))):
            if number.problem:  # a crash or a hang has cost enough
                return ""
            found[number.name] = number
    widths = dict.fromkeys(found[name].value for name, *_ in declared.WIDTHS)
    named = [name for name in widths if name in FORMATS]
    if not named:
        return ""
    narrowest = min(named, key=lambda name: FORMATS[name].bits)
    rounded = [name for name, *_ in STORED if name in found and found[name].value.startswith(arithmetic.ROUNDED)]
    stored = f", {' and '.join(rounded) or 'nothing'} rounded" if impl.dtype in NARROW else ""
    return f"sums in {narrowest}{stored}"


def _budget_matters(impl: Impl) -> Iterator[CardNumber]:
    """What a contract speaks of."""
    for name, what, ask, how in declared.WIDTHS + (STORED if impl.dtype in NARROW else ()):
        yield _number(impl, name, what, attempted(lambda ask=ask: ask(impl)), how)  # type: ignore[misc]


def _number(impl: Impl, name: str, what: str, answer: Any, how: str) -> CardNumber:
    failed = isinstance(answer, Failed)
    value, problem = (answer.said, answer.problem) if failed else (str(answer), "")
    return CardNumber(name, what, value, how, impl.dtype, problem)  # type: ignore[arg-type]


def invariance_of(impl: Impl) -> list[CardInvariance]:
    """Which changes of a call move no bit."""
    rows = []
    for each in invariance.INVARIANCES:
        size = attempted(lambda each=each: invariance.first_counterexample(impl, each))  # type: ignore[misc]
        if isinstance(size, Failed):
            row = CardInvariance(each.name, each.what, None, None, each.expected, size.said, impl.dtype)  # type: ignore[arg-type]
        else:
            row = CardInvariance(each.name, each.what, size is None, size, each.expected, "", impl.dtype)  # type: ignore[arg-type]
        rows.append(row)
    return rows


# The whole card -------------------------------------------------------------------------------------------------------


def contract_card(adapter: Adapter, dtypes: Iterable[str], device: str = "cpu") -> ContractCard:
    """All of it, for these dtypes."""
    began, impls = time.monotonic(), [_within_limits(Impl(adapter, dtype, device)) for dtype in dtypes]
    rows: list[CardConvention] = []
    numbers: list[CardNumber] = []
    invariances: list[CardInvariance] = []
    sizes: list[CardTaken] = []
    options: frozenset[str] = frozenset()
    for impl in impls:
        found, asked = conventions_of(impl)
        options = options or questions.options_of(asked)
        rows += [*found, *options_shown(asked, options)]
        numbers += numerics_of(asked)
        if impl.offers("attention"):
            sizes = sizes or sizes_of(asked.within(None).under(asked.conventions))
            invariances += invariance_of(asked)
    shown_rows = _together(rows)
    grouped = [row.name for row in shown_rows if row.name == "grouped_heads" and row.choice]
    return ContractCard(
        implementation=impls[0].name,
        device=device,
        dtypes=[impl.dtype for impl in impls],  # type: ignore[misc]
        steps=sorted(adapter.steps),
        options=[*(name for name in questions.OPTIONS if name in options), *grouped],
        ignored=list(dict.fromkeys(row.name for row in shown_rows if row.choice == "ignored")),
        conventions=shown_rows,
        sizes=sizes,
        numerics=numbers,
        invariance=invariances,
        domain=_domain(impls[0]),
        contract=in_words(getattr(adapter, "contract", None)),
        declaration=declared.declaration(shown_rows, numbers),
        mismatches=[*declared.mismatches(shown_rows), *(line for impl in impls for line in declared.contradictions(impl, numbers))],
        seconds=round(time.monotonic() - began, 3),
    )


def sizes_of(impl: Impl) -> list[CardTaken]:
    """Which sizes, masks and layouts are taken; nothing where none of the first sizes is."""

    def ask() -> list[taken.Taken]:
        of = taken.start(impl)
        return [] if of is None else [*taken.sizes_taken(impl, of), taken.layouts_taken(impl, of)]

    found = attempted(ask)
    return [] if isinstance(found, Failed) else [CardTaken(each.name, each.taken, each.refused, each.other) for each in found]


def _together(rows: list[CardConvention]) -> list[CardConvention]:
    """The rows of dtypes that are the same but for the dtype, as one, in the order of their first."""
    groups: dict[tuple[Any, ...], list[CardConvention]] = {}
    for row in rows:
        groups.setdefault((row.name, row.choice, row.problem, row.meaning, row.differs and row.torch), []).append(row)
    order = {name: place for place, name in enumerate(dict.fromkeys(row.name for row in rows))}
    merged = [
        msgspec.structs.replace(group[0], dtypes=[dtype for row in group for dtype in row.dtypes]) for group in groups.values()
    ]
    return sorted(merged, key=lambda row: order[row.name])


def _within_limits(impl: Impl) -> Impl:
    """The implementation within the domain that it declares, or that probes find."""
    return impl if impl.domain is not None else impl.within(domain_probes.found(impl))


def _domain(impl: Impl) -> str:
    return str(impl.domain) if impl.domain else ""
