"""What a reader is told of an implementation, on the page and on the terminal alike: what is wrong, and what it follows.

A card is one failure. It begins with what is wrong in one sentence, made of what the verdict's line says: the smallest input's own
answer where one was written down, else the message. A message in words of its own is its own sequence.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports import words
from reports.records import Choice, Follows, Verdict

UNDECLARED = "none declared: held to what eager and fused code may be off by"
LONGEST = 300  # characters of a sentence

HEADER = re.compile(r"^(\w+)(?=[(,:])(?:\(.*\))?(?:, arrays laid out in memory as .*)?:?$")  # of a call in a counterexample
REPLAYED = ("veriformer repro ", "no script: ")
ANSWER = re.compile(r"^expected (?P<expected>\S+)(?: ± (?P<allowed>\S+))?, got (?P<got>\S+) at (?P<index>\([^)]*\))")
SCORE = re.compile(
    r"^(?P<step>\w+) (?:at|in [^(]*) ?(?P<index>\([^)]*\))(?:, worst)?: expected (?P<expected>[^\s,]+), got (?P<got>[^\s,:]+)"
    r"(?:, which rounding|.* (?P<times>\S+) times what rounding)"
)
OTHER = re.compile(
    r"^(?P<who>.*?):? ?expected (?:a result of )?(?P<what>shape|dtype) (?P<expected>\(.*?\)|\w+), got (?P<got>\(.*?\)|\w+)$"
)
KILLED = re.compile(r" was killed by (\w+)(?: \((out of memory\?)\))?")


# ---- what is wrong ----


@dataclass(frozen=True)
class Card:
    """What a person needs of one broken check, in the order it is read."""

    wrong: str  # one sentence
    example: str  # the smallest input, and what is expected of it; "" for none
    numbers: str  # what was expected and what came, where the example does not say so
    said: str  # the verdict's message, where it says more than the sentence
    commands: tuple[str, ...]  # that show it again


def card(told: Mapping[str, Any], command: Sequence[str] = ()) -> Card:
    """The card of a verdict's line; `command` is what made the run, and keeps its own options."""
    lines = str(told["counterexample"] or "").splitlines()
    scripts = [line for line in lines if line.startswith(REPLAYED)]
    example = "\n".join(line for line in lines if line not in scripts and line != told["message"])
    wrong = sentence(told)
    seen = f"expected {told['expected']}, got {told['got']}" + (f" at {told['index']}" if told["index"] else "")
    shown = told["expected"] is None or "expected " in example or str(told["expected"]) in str(told["message"])
    message = str(told["message"] or "")
    said = "" if _plain(message, told, _answer(told)[0]) in wrong else message
    return Card(wrong, example, "" if shown else seen, said, (*scripts, words.replay(dict(told), list(command))))


def sentence(told: Mapping[str, Any]) -> str:
    """What is wrong, as one would say it to whoever wrote the kernel."""
    message = (str(told["message"] or "").splitlines() or [""])[0]
    step, answer = _answer(told)
    match told["verdict"]:
        case Verdict.UNEXPECTED_PASS:
            text = f"holds, though declared a known failure: {_plain(message, told)}"
        case Verdict.FAIL:
            text = _wrong(step, answer, told) or _scored(message, told) or _instead(message) or message
        case Verdict.ERROR | Verdict.CRASH | Verdict.TIMEOUT if not told.get("suite_error"):
            text = _instead(_plain(message, told, step))
        case _:
            text = message
    text = text or f"{told['claim']} does not hold"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _answer(told: Mapping[str, Any]) -> tuple[str, str]:
    """Which step the last call of the counterexample asks for, and the line that says what is wrong with the answer."""
    text = str(told["counterexample"] or "")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", *REPLAYED))]
    headers = [found[1] for line in lines[:-1] if (found := HEADER.match(line))]
    return (headers[-1], lines[-1]) if headers else ("", "")


def _wrong(step: str, answer: str, told: Mapping[str, Any]) -> str:
    """A wrong number, or another shape, by the answer to the smallest input; "" where it says nothing of the kind."""
    found = ANSWER.match(answer)
    if found is None:
        return _instead(f"{step}: {answer}") if OTHER.match(answer) else ""
    expected, got = found["expected"], found["got"]
    times = _far(expected, got, found["allowed"])
    dtype = str(told.get("shown_in") or told["dtype"])  # of the counterexample, where it stands with another verdict
    return _number(step, expected, got, found["index"], times, dtype)


def _scored(message: str, told: Mapping[str, Any]) -> str:
    """The same by the message of a check against an error budget."""
    found = SCORE.match(message)
    if found is None:
        return ""
    times = _as_float(found["times"] or "")
    return _number(found["step"], found["expected"], found["got"], found["index"], times, str(told["dtype"]))


def _far(expected: str, got: str, allowed: str | None) -> float | None:
    """By how many times what is allowed a number is off."""
    right, answer, reach = (_as_float(text) for text in (expected, got, allowed or ""))
    return abs(answer - right) / reach if right is not None and answer is not None and reach else None


def _as_float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _number(step: str, expected: str, got: str, index: str, times: float | None, dtype: str) -> str:
    where = _index(index)
    if {expected, got} & {"nan", "inf", "-inf"}:
        return f"{step} returned {_plainly(got)} where {_plainly(expected)} is expected{f', at {where}' if where else ''}"
    seen = "expected {}, got {}".format(*words.apart(expected, got))
    if words.absent(times):
        return f"{step}: {seen}{f' at {where}' if where else ''}"
    worst = f"worst at {where}: " if where else ""
    return f"{step}: wrong by {words.times(times)} what {dtype} rounding allows, {worst}{seen}"


def _plainly(value: str) -> str:
    number = _as_float(value)
    return value if number is None else "NaN" if words.absent(number) else f"{number:.3g}"


def _index(index: str) -> str:
    """(0, 3) as [0, 3], (3,) as [3]."""
    inside = index.strip("()").rstrip(",")
    return f"[{inside}]" if inside else ""


def _instead(message: str) -> str:
    """A result of another shape or dtype: what came in place of what."""
    found = OTHER.match(message)
    return message if found is None else f"{found['who']}: {found['what']} {found['got']} instead of {found['expected']}"


def _plain(message: str, told: Mapping[str, Any], step: str = "") -> str:
    """A message with the step in place of the implementation, whose name stands on the card."""
    implementation = str(told["implementation"])
    text = message.removeprefix("declared as failing: ")
    if implementation and text.startswith(f"{implementation}."):
        text = text.removeprefix(f"{implementation}.")
    elif implementation and re.match(rf"{re.escape(implementation)}(?![\w:])", text):
        text = (step or re.split(r"[:.]", implementation)[-1]) + text.removeprefix(implementation)
    return KILLED.sub(lambda found: f" crashed ({', '.join(filter(None, found.groups()))})", text)


# ---- what it follows ----


@dataclass(frozen=True)
class Alike:
    """An implementation, and the dtypes in which it follows the same."""

    implementation: str
    where: str
    choices: tuple[Choice, ...]
    contract: str
    domain: str = ""
    domain_declared: bool = False
    warning: str = ""
    arithmetic: str = ""

    @property
    def found(self) -> str:
        """What probes have found out."""
        return _items(self.choices, "found")

    @property
    def declared(self) -> str:
        """What it says of itself, or was said of it."""
        return _items(self.choices, "declared")

    @property
    def differing(self) -> list[str]:
        """In a sentence each, where PyTorch does otherwise."""
        return [
            f"{each.what}: {each.meaning} (torch: {each.torch}; {each.name}={each.choice}, {each.how})"
            for each in self.choices
            if each.differs
        ]


def alike(follows: Iterable[Follows]) -> list[Alike]:
    """One for each implementation and what it follows, in order."""
    groups: dict[tuple[object, ...], list[Follows]] = {}
    for each in follows:
        told = tuple((one.name, one.choice, one.how, one.differs and one.torch) for one in each.conventions)
        groups.setdefault((each.implementation, told, each.contract, each.domain, each.warning), []).append(each)
    return [
        Alike(
            first.implementation,
            ", ".join(map(_where, (first, *others))),
            tuple(first.conventions),
            first.contract,
            first.domain,
            first.domain_declared,
            first.warning,
            _arithmetic([first, *others]),
        )
        for first, *others in groups.values()
    ]


def _arithmetic(of: list[Follows]) -> str:
    """What is found of sums and roundings, each with the dtypes it holds for where these are not all alike."""
    said: dict[str, list[str]] = {}
    for each in of:
        said.setdefault(each.arithmetic, []).append(each.dtype)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{', '.join(dict.fromkeys(dtypes))}: {text}" for text, dtypes in said.items() if text)


def _where(of: Follows) -> str:
    return of.dtype if of.device == "cpu" else f"{of.dtype} on {of.device}"


def _items(choices: Iterable[Choice], how: str) -> str:
    return " ".join(f"{each.name}={each.choice}" for each in choices if each.how == how)
