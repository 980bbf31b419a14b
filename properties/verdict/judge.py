"""Run one property on one implementation and say how it ended: the only place where an exception becomes a verdict.

pytest (through the plugin) and the detection score both come here, so that both mean the same by FAIL.
"""

import hashlib
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import Phase
from hypothesis.errors import FlakyFailure, Unsatisfiable, UnsatisfiedAssumption
from hypothesis.internal.conjecture import engine
from hypothesis.statistics import collector

from properties.claims import Property
from properties.implementations.calls import Asked, calls
from properties.implementations.domain import drawn_in
from properties.implementations.impl import Impl
from properties.verdicts import (
    ClaimBroken,
    ConventionMismatch,
    ImplementationCrash,
    ImplementationError,
    ImplementationTimeout,
    Record,
    record,
)
from reports.records import NOT_OFFERED, Verdict

MESSAGE_KEPT = 4000  # characters of a message or a counterexample that a verdict carries
SHRINKING = 300.0  # seconds that Hypothesis may take to make an example smaller, by its own rule


class Vacuous(Exception):
    """The property compared nothing, or too much of a case could not be judged: it proves nothing."""


@dataclass(frozen=True)
class Judgement:
    """How one property ended on one implementation."""

    verdict: Verdict
    message: str = ""
    counterexample: str = ""
    budget_used: float | None = None  # the largest error seen, as a share of the budget (> 1: over it)
    index: str | None = None
    expected: str | None = None
    got: str | None = None
    generated: int = 0
    filtered: int = 0
    refused: int = 0
    compared: int = 0
    undecidable: int = 0
    suspects: list[str] = field(default_factory=list)
    seconds: float = 0.0
    suite_error: str = ""  # what went wrong in veriformer itself
    error: BaseException | None = None
    calls: tuple[Asked, ...] = ()  # what a broken example asked of the implementation, in its order

    def as_line(self) -> dict[str, Any]:
        """What `verify.jsonl` holds of it."""
        return {name: value for name, value in vars(self).items() if name not in ("error", "calls")}


def seed_of(claim: str, name: str, dtype: str, seed: int) -> int:
    """The seed Hypothesis gets for one property: from its claim and name, so that neither order nor sharding changes examples.

    And from the dtype, so that an implementation of several dtypes is asked other questions in each.
    """
    return int.from_bytes(hashlib.blake2b(f"{claim}/{name}/{dtype}/{seed}".encode(), digest_size=8).digest(), "big")


def _with_room(test: Callable[[], object]) -> None:
    test()


# CPython takes memory for its frames from the system in pieces of 16 KiB. Where a deep loop stands at the edge of one, every call
# takes a piece and gives it back: a third more time for some properties. This frame is too large for a small piece, so all that
# are called from it share a large one.
_with_room.__code__ = _with_room.__code__.replace(co_stacksize=2**15)


def judge(test: Callable[[], object], prop: Property, name: str, impl: Impl, *, small: bool = True) -> Judgement:
    """Call `test` (a Hypothesis test with all its other arguments bound) and judge it; never raises but for KeyboardInterrupt.

    A property that shrinks gives its exceptions an attribute `smaller`: called, it raises what a smaller example shows, if any.
    """
    counts = record.start()
    calls.start()
    statistics: dict[str, Any] = {}
    known = known_failure(impl, prop, name)
    began = time.perf_counter()
    error: BaseException | None = None
    with collector.with_value(statistics.update):  # type: ignore[attr-defined]
        try:
            with drawn_in(impl.domain):
                _with_room(test)
            _must_not_be_vacuous(counts, impl)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as raised:  # an implementation in this process may raise SystemExit
            error = _smaller(raised) if small else raised
    examples = _examples(statistics)
    verdict, message = _told(error, counts, taken=examples["generated"] if statistics else counts.answered)
    own = suite_error(cause_of(error)) if verdict is Verdict.ERROR else ""
    if own:
        message = f"an error of veriformer's own, not of {impl.name}: {own}"
    if known is not None and verdict in (Verdict.FAIL, Verdict.ERROR) and not own:
        verdict, message, error = Verdict.KNOWN_FAILURE, f"{known} ({message})", None
    elif known is not None and verdict is Verdict.PASS:
        verdict, message = Verdict.UNEXPECTED_PASS, f"declared as failing: {known}"
        error = AssertionError(message)
    budget_used = max(counts.budget_used, getattr(error, "budget_used", None) or 0.0)
    return Judgement(
        verdict=verdict,
        message=message[:MESSAGE_KEPT],
        counterexample=(_counterexample(error) or "; ".join(counts.counterexamples[-1:]))[:MESSAGE_KEPT],
        budget_used=budget_used if counts.compared or budget_used else None,
        index=_text(getattr(error, "index", None)),
        expected=_text(getattr(error, "expected", None)),
        got=_text(getattr(error, "got", None)),
        **examples,
        refused=counts.refused,
        compared=counts.compared,
        undecidable=counts.undecidable,
        suspects=[suspect[:MESSAGE_KEPT] for suspect in counts.suspects[:5]],
        seconds=time.perf_counter() - began,
        suite_error=own,
        error=error,
        calls=tuple(calls.kept) if error is not None else (),
    )


def _smaller(error: BaseException) -> BaseException:
    try:
        getattr(error, "smaller", lambda: None)()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as smaller:
        return smaller
    return error


def run_property(
    test: Callable[..., object], impl: Impl, *, seed: int, examples: int | None = None, small: bool = True
) -> Judgement:
    """Judge a property's test function outside of pytest, with `examples` examples drawn from `seed`.

    A counterexample that need not be `small` is the first that comes, as large as it is.
    """
    prop: Property = test.property_of_claim  # type: ignore[attr-defined]
    name = test.__name__
    if not impl.offers(*prop.needs):
        return Judgement(Verdict.UNSUPPORTED, f"{NOT_OFFERED}{', '.join(prop.needs)}")
    shrinking = SHRINKING if small and not prop.shrinks else 0.0
    with drawing(test, seed_of(prop.claim, name, impl.dtype, seed), examples, shrinking=shrinking):
        return judge(lambda: test(impl=impl), prop, name, impl, small=small)


@contextmanager
def drawing(test: Any, seed: int, examples: int | None = None, *, shrinking: float = SHRINKING) -> Iterator[None]:
    """While this lasts the Hypothesis test `test` draws from `seed`, and `examples` examples where that is given.

    It takes up to `shrinking` seconds to find a smaller example than the first that breaks it; with none it stops there.

    Set from outside as Hypothesis's own pytest plugin does: its decorators would have to be applied before `--seed` is known.
    """
    if not hasattr(test, "hypothesis"):
        yield
        return
    hypothesis.seed(seed)(test)
    before, seconds = test._hypothesis_internal_use_settings, engine.MAX_SHRINKING_SECONDS  # noqa: SLF001
    many, remembered = examples or hypothesis.settings(before).max_examples, hypothesis.settings().database
    wanted = hypothesis.settings(before, max_examples=many, database=remembered)  # of the profile in force now, not at import
    phases = [phase for phase in wanted.phases if shrinking or phase is not Phase.shrink]
    test._hypothesis_internal_use_settings = hypothesis.settings(wanted, phases=phases)  # noqa: SLF001
    engine.MAX_SHRINKING_SECONDS = shrinking or seconds  # type: ignore[assignment] (a search within the test shrinks all the same)
    try:
        yield
    finally:
        test._hypothesis_internal_use_settings = before  # noqa: SLF001
        test._hypothesis_internal_use_seed = None  # noqa: SLF001
        engine.MAX_SHRINKING_SECONDS = seconds


def known_failure(impl: Impl, prop: Property, name: str) -> str | None:
    """The reason an implementation's adapter declares for failing this property (by name) or claim, at this dtype or any."""
    declared: dict[str, str] = getattr(impl.adapter, "known_failures", None) or {}
    for key in (f"{name}@{impl.dtype}", name, f"{prop.claim}@{impl.dtype}", prop.claim):
        if key in declared:
            return declared[key]
    return None


def _must_not_be_vacuous(counts: Record, impl: Impl) -> None:
    if counts.compared == 0 and not counts.suspects:
        raise Vacuous(f"nothing was compared with {impl.name} in {impl.dtype}")
    if counts.mostly_undecidable:
        raise Vacuous(f"{counts.mostly_undecidable} cases had more than 1 % of their components undecidable")


def _told(error: BaseException | None, counts: Record, taken: int) -> tuple[Verdict, str]:
    """The verdict and its message; `taken`: examples, or calls of a property that draws none, that were not refused.

    Where more than half was refused, what holds of the rest is no pass, and what the implementation does not take is no failure:
    UNSUPPORTED, as where all was refused, and not VACUOUS, which is red and would be mended by refusing the rest.
    """
    if error is None and counts.suspects:
        return Verdict.SUSPECT, counts.suspects[0]
    if error is None and counts.refused > taken:
        return Verdict.UNSUPPORTED, f"more than half {counts.why_refused}"
    if error is None:
        return Verdict.PASS, ""
    if isinstance(error, Vacuous) and counts.with_itself:
        return Verdict.UNSUPPORTED, "agreement with the oracle says nothing of the oracle: it is not compared with itself"
    if counts.refused and _took_nothing(error, counts):
        return Verdict.UNSUPPORTED, counts.why_refused
    cause = cause_of(error)
    verdict = {
        ClaimBroken: Verdict.FAIL,
        ConventionMismatch: Verdict.CONVENTION_MISMATCH,
        ImplementationError: Verdict.ERROR,
        ImplementationTimeout: Verdict.TIMEOUT,
        ImplementationCrash: Verdict.CRASH,
        Vacuous: Verdict.VACUOUS,
    }.get(type(cause), Verdict.FAIL if isinstance(cause, AssertionError) else Verdict.ERROR)
    unsteady = "not the same twice: " if isinstance(error, FlakyFailure) else ""
    return verdict, f"{unsteady}{_text(cause) or type(cause).__name__}"


def cause_of(error: BaseException | None) -> BaseException | None:
    """What an example that fails only at times raised; any other error itself."""
    return error.exceptions[0] if isinstance(error, FlakyFailure) and error.exceptions else error


def suite_error(error: BaseException | None) -> str:
    """In one line, what went wrong in the suite itself and where; "" for an error that says something of the implementation."""
    of_the_implementation = (AssertionError, ImplementationError, ImplementationTimeout, ImplementationCrash, Vacuous)
    if not isinstance(error, Exception) or isinstance(error, of_the_implementation):
        return ""
    index = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({Path(frame.filename).name}:{frame.lineno} in {frame.name})" for frame in index)
    return f"{type(error).__name__}: {' '.join(str(_text(error)).split())[:500]}{where}"


def _took_nothing(error: BaseException | None, counts: Record) -> bool:
    """Whether every example was refused: the only one of a property that draws none, or all that were drawn."""
    return isinstance(error, UnsatisfiedAssumption) or (isinstance(error, Unsatisfiable | Vacuous) and not counts.compared)


def _examples(statistics: dict[str, Any]) -> dict[str, int]:
    """How many examples were tried until one broke the property, and how many were drawn in vain: not what shrinking tried."""
    phases = [phase for name, phase in statistics.items() if isinstance(phase, dict) and name != "shrink-phase"]
    cases = [case["status"] for phase in phases for case in phase.get("test-cases", ())]
    if not cases:
        return {"generated": 1, "filtered": 0}
    tried = sum(status in ("valid", "interesting") for status in cases)
    return {"generated": tried, "filtered": len(cases) - tried}


def _counterexample(error: BaseException | None) -> str:
    """What the exception carries (a program played on a cache), or else Hypothesis's own print of the smallest failing arguments.

    Without the implementation, which the verdict names.
    """
    if carried := getattr(error, "counterexample", None):
        return carried
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(("Failing test case", "Falsifying example"))]
    text = notes[0].split("\nExplanation:")[0] if notes else ""
    return "\n".join(line for line in text.splitlines() if not line.strip().startswith("impl=Impl("))


def _text(value: Any) -> str | None:
    """The beginning of what a value says; an exception of the implementation's may have no text that can be had."""
    try:
        return None if value is None else str(value)[:MESSAGE_KEPT]
    except Exception as error:
        return f"(its text raised {type(error).__name__})"
