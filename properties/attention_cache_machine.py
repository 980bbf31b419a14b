"""A machine that drives caches of attention, of any form of memory, and knows what each answer must be.

Keys and values are handed in, so no model is needed. The oracle knows no cache either: a row is what was handed over for it, and
each of its queries must get attention on all keys and values up to its own, or on the last `window` of them. A program is drawn,
played on a new cache, and each branch asked one token more; all that was answered is judged together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from hypothesis import strategies as st

from properties.assertions import assert_identical, assert_rounding_only
from properties.cache_machine import WRONG
from properties.counterexample.attention_programs import BRANCHING, Branch, Program, Row, begun, followed
from properties.implementations.attention_caches import Pool, Slots
from properties.implementations.cached import play
from properties.implementations.domain import drawn_inside
from properties.implementations.impl import Impl
from properties.implementations.recomputed import seen
from properties.inputs.parameters import SEEDS, dyadic
from properties.inputs.sequences import PAGES
from properties.verdicts import ImplementationError, NotOffered

MOST_BRANCHES, MOST_ROWS = 3, 4
MOST_TOKENS = 13  # of a row, the last one asked of every branch among them

Wish = tuple[int, int, int]  # an operation, a branch and the seed of what is handed over, each as far as there are any
WISH = st.tuples(st.integers(0, 15), st.integers(0, MOST_BRANCHES - 1), SEEDS)
WISHES = st.lists(WISH, min_size=1, max_size=6)


@dataclass(frozen=True)
class Start:
    """How a cache begins, and what it is promised: sizes, room for so many tokens a row, a window; and where its pages lie."""

    b: int
    h: int
    d_k: int
    d_v: int
    m: int = 0
    room: int = MOST_TOKENS
    window: int | None = None
    page: int = 1
    seed: int = 0

    def tokens(self, rng: np.random.Generator, b: int, k: int) -> list[np.ndarray]:
        """Q, K and V of k tokens in each of b rows, no two alike."""
        sizes = (self.d_k, self.d_k, self.d_v)
        return [dyadic(int(rng.integers(2, 2**31)), (b, self.h, k, d), 2.0) for d in sizes]

    @property
    def beginning(self) -> list[np.ndarray]:
        """The keys and values that the first branch begins with."""
        return self.tokens(np.random.default_rng(self.seed), self.b, self.m)[1:]


@st.composite
def starts(draw: st.DrawFn, *, window: bool = False) -> Start:
    """One to three rows that begin with nothing or a few tokens, and room that some programs fill to the last slot."""
    b, h = draw(st.sampled_from(((2, 1), (1, 1), (3, 1), (2, 2))))
    d_k, d_v, m = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(0, 3))
    width = draw(st.sampled_from((2, 3, 1, 4, 8))) if window else None
    room, page = draw(st.sampled_from((MOST_TOKENS, 5, 8))), draw(st.sampled_from(PAGES))
    inside = drawn_inside(b=b, h=h, d_k=d_k, d_v=d_v, capacity=width or room, page=page)
    b, h, d_k, d_v, capacity, page = (inside[name] for name in ("b", "h", "d_k", "d_v", "capacity", "page"))
    m = min(m, capacity - 1)
    return Start(b, h, d_k, d_v, m, MOST_TOKENS if window else capacity, capacity if window else None, page, draw(SEEDS))


# ---- from wishes to a program ----


def program_of(wishes: list[Wish], start: Start, offered: tuple[str, ...]) -> Program:
    """The program that grants each wish as nearly as it can, and asks each branch one token more in the end."""
    program, branches = granted(wishes, start, offered, [begun(*start.beginning)])
    return [*program, *one_token_more(branches, start)]


def granted(wishes: list[Wish], start: Start, offered: tuple[str, ...], branches: list[Branch]) -> tuple[Program, list[Branch]]:
    """What each wish is granted of these branches, with operations that are offered and make sense by then; what they become."""
    program: Program = []
    for number, branch, seed in wishes:
        which = branch % len(branches)
        possible = [name for name in offered if makes_sense(name, branches[which], len(branches), start)]
        if possible:
            name = possible[number % len(possible)]
            program.append([which, name, *operands(name, branches[which], start, np.random.default_rng(seed))])
            branches = followed(branches, program[-1], None)
    return program, branches


def makes_sense(name: str, rows: Branch, branches: int, start: Start) -> bool:
    """Whether a branch has the room, the rows or the tokens for it; one token of its room is asked in the end."""
    longest = max(row.length for row in rows)
    if name in ("attend", "attend_some"):
        return longest < start.room - 1
    return {
        "rollback": 0 < longest < (start.window or MOST_TOKENS),  # what a window has let go cannot come back
        "leave": len(rows) > 1,
        "join": len(rows) < MOST_ROWS and longest < start.room,
        "copy": branches < MOST_BRANCHES,
        "request": branches < MOST_BRANCHES,
    }.get(name, True)


def operands(name: str, rows: Branch, start: Start, rng: np.random.Generator) -> list[Any]:
    """What is handed over with an operation."""
    b, lengths = len(rows), [row.length for row in rows]
    longest = max(lengths)
    k = int(rng.integers(1, min(4, start.room - longest))) if longest < start.room - 1 else 0
    match name:
        case "attend":
            return start.tokens(rng, b, k)
        case "attend_some":
            return [*start.tokens(rng, b, k), np.where(rng.random(b) < 0.5, rng.integers(0, k + 1, b), rng.choice([0, k], b))]
        case "rollback":
            between = min(min(lengths) + 1, longest - 1)  # where rows differ, a shorter one stays as it is
            return [int(rng.choice([longest - 1, int(rng.integers(0, longest)), between, 0], p=[0.3, 0.3, 0.3, 0.1]))]
        case "reorder":
            return [rng.integers(0, b, b)]
        case "leave":
            return [rng.integers(0, b, 1)]
        case "join":  # as many tokens as the longest row has, so that a cache of even rows stays one
            m = int(rng.integers(0, min(longest, start.window or longest) + 1))
            return [*start.tokens(rng, 1, m)[1:], *start.tokens(rng, 1, longest - m)]
        case "reset" | "request":
            return start.tokens(rng, b if rng.random() < 0.5 else int(rng.integers(1, 4)), min(start.m, start.room - 1))[1:]
        case _:
            return []


def one_token_more(branches: list[Branch], start: Start) -> Program:
    """Every branch in turn, with tokens of its own: what one writes must not be what another reads."""
    return [
        [i, "attend", *start.tokens(np.random.default_rng(start.seed + 1 + i), len(rows), 1)] for i, rows in enumerate(branches)
    ]


# ---- what cannot be done ----

OFF = (-1, 1, -2, 2)  # how far below 0, or beyond the last
IMPOSSIBLE = ("rollback", "reorder", "leave", "attend_some", "attend")  # the last one beyond the room that is promised


def impossible(name: str, rows: Branch, start: Start, rng: np.random.Generator, off: int) -> list[Any]:
    """Operands of which one number, often the last, is `off` the end, below 0 if that is; tokens of which the first have room."""
    b, longest = len(rows), max(row.length for row in rows)
    if name == "rollback":
        return [off if off < 0 else longest + off]
    if name == "attend":
        return start.tokens(rng, b, start.room - longest + abs(off))
    size = {"reorder": b, "leave": 1, "attend_some": b}[name]
    most = 1 if name == "attend_some" else b - 1  # the largest number that is there
    numbers = (np.arange(size) + int(rng.integers(1, max(most, 1) + 1))) % (most + 1)  # none in its own place
    numbers[-1 if rng.random() < 0.5 else rng.integers(size)] = off if off < 0 else most + off
    return [*(start.tokens(rng, b, most) if name == "attend_some" else []), numbers]


def meaning(name: str, given: list[Any], rows: Branch) -> list[Any] | None:
    """The operands that these stand for, if they are not refused; None where they can only be refused.

    Rows may be counted from the end, as Python does; of counts and lengths what is beyond an end is the end.
    """
    b, longest = len(rows), max(row.length for row in rows)
    match name:
        case "rollback":
            return [min(max(given[0], 0), longest)]
        case "reorder" | "leave":
            return [given[0] % b] if (-b <= given[0]).all() and (given[0] < b).all() else None
        case "attend_some":
            return [*given[:3], given[3].clip(0, given[0].shape[2])]
        case _:
            return given


def taken(operation: list[Any], rows: Branch, *, refused: bool) -> list[Any] | None:
    """The operation as it stands for itself; None for one that was tried and refused, which changes nothing."""
    if operation[1] != "try":
        return operation
    which, _, name, *given = operation
    meant = meaning(name, given, rows)
    if meant is None:
        assert_identical(np.array(refused), np.array(True), f"refusal of {_line(which, name, *given)}")
    return None if refused or meant is None else [which, name, *meant]


def trying(impl: Impl, start: Start, wishes: list[Wish], tried: tuple[Wish, int], later: list[Wish]) -> Program:
    """A program that tries, among other operations, one that cannot be done, and goes on with what that leaves.

    Raises NotOffered where the cache has no operation that anything can be wrong with.
    """
    played = own_cache(impl, start)
    offered, ((number, branch, seed), off) = offered_by(played), tried
    program, branches = granted(wishes, start, offered, [begun(*start.beginning)])
    rows = branches[which := branch % len(branches)]
    limited = impl.offers("attention_cache.capacity")
    possible = [name for name in IMPOSSIBLE if (name in offered if name != "attend" else limited)]
    if not any(row.length for row in rows):  # which of them is taken, nobody sees
        possible = [name for name in possible if name not in ("reorder", "leave")]
    possible = [name for name in possible if name != "leave" or len(rows) > 1]
    if not possible:
        raise NotOffered(f"{impl.name}: no operation on a cache that can be asked for what cannot be done")
    name = possible[number % len(possible)]
    operation = [which, "try", name, *impossible(name, rows, start, np.random.default_rng(seed), off)]
    with showing([*program, operation]):
        refused = bool(played([*program, operation])["refused"])
        what = taken(operation, rows, refused=refused)
    more, branches = granted(later, start, offered, branches if what is None else followed(branches, what, None))
    return [*program, operation, *more, *one_token_more(branches, start)]


# ---- what is played, and what must come ----

Played = Callable[[Program], dict[str, Any]]


def own_cache(impl: Impl, start: Start) -> Played:
    """Programs on the caches that the implementation makes itself."""
    promised = {"capacity": start.room, "window": start.window}
    given = {name: value for name, value in promised.items() if value is not None and impl.offers(f"attention_cache.{name}")}
    return lambda program: impl.attention_cache(*start.beginning, program=program, **given)


def in_slots(impl: Impl, start: Start, *, spare: bool = True) -> Played:
    """Programs on memory of ours: slots to spare, or none; a ring where there is a window."""
    memory = partial(Slots, impl.cached_attention, capacity=start.room if spare else None, window=start.window)
    return lambda program: play(memory, *start.beginning, program=program)


def in_pages(impl: Impl, start: Start) -> Played:
    """Programs on pages that all branches share."""

    def played(program: Program) -> dict[str, Any]:
        pages = (MOST_BRANCHES + 1) * MOST_ROWS * -(-MOST_TOKENS // start.page)
        return play(Pool(impl.paged_attention, pages, start.page, start.seed).cache, *start.beginning, program=program)

    return played


def offered_by(played: Played) -> tuple[str, ...]:
    """The operations that these caches have."""
    return ("attend", *played([])["operations"], "request")


def assert_answers(impl: Impl, start: Start, played: Played, program: Program) -> None:
    """Whatever is done to it, each query gets attention on the keys and values of its row so far."""
    with showing(program):
        outcome = played(program)
    branches = [begun(*start.beginning)]
    for place, (operation, (answers, length)) in enumerate(zip(program, outcome["results"], strict=True)):
        with showing(program[: place + 1]):
            what = taken(operation, branches[operation[0]], refused=place in outcome["refused"])
            if what is not None:
                branches = followed(branches, what, rows_of_answers(impl, what, answers))
            if length is not None and operation[1] not in BRANCHING:
                longest = max(row.length for row in branches[operation[0]])
                assert_identical(np.array(length), np.array(longest), "length of the cache")
    with showing(program):
        for rows in branches:
            for _, alike in groupby(sorted(rows, key=_lengths), key=_lengths):
                assert_attention_so_far(impl, list(alike), start.window)


def _lengths(row: Row) -> tuple[int, int]:
    return row.length, row.begun


def assert_attention_so_far(impl: Impl, rows: list[Row], window: int | None) -> None:
    """What rows of one length were answered is plain attention under the mask that says which tokens each one sees."""
    length, begins = _lengths(rows[0])
    if length > begins:
        Q, K, V, answers = (np.stack([getattr(row, name) for row in rows]) for name in ("Q", "K", "V", "answers"))
        mask = seen(length, window)[begins:]
        assert_rounding_only(impl, "attention", answers[:, :, begins:], Q[:, :, begins:], K, V, mask)


def rows_of_answers(impl: Impl, operation: list[Any], answers: np.ndarray | None) -> np.ndarray | None:
    """What was answered to an operation, None for one that reads nothing. Raises ImplementationError for another shape."""
    name, *given = operation[1:]
    if name not in ("attend", "attend_some", "join"):
        return None
    Q, _, V = given[2:] if name == "join" else given[:3]
    if not Q.size:
        return None
    expected = (*Q.shape[:3], V.shape[-1])
    if answers is None or answers.shape != expected:
        got = "none" if answers is None else answers.shape
        raise ImplementationError(f"{impl.name}: expected answers of shape {expected} to {name}, got {got}")
    return answers


@contextmanager
def showing(program: Program) -> Iterator[None]:
    """Whatever is found wrong in here carries the program that shows it: whole numbers as they are, of others how many."""
    try:
        yield
    except WRONG as broken:
        lines = "\n".join(_line(*operation) for operation in program)
        broken.counterexample = lines  # type: ignore[union-attr]
        broken.add_note(f"The program of {len(program)} operations:\n{lines}")
        raise


def _line(branch: int, name: str, *given: Any) -> str:
    words = [
        repr(each) if not isinstance(each, np.ndarray) else str(each.tolist()) if each.dtype.kind == "i" else _size(each)
        for each in given
    ]
    return f"[{branch}, {name!r}{''.join(f', {word}' for word in words)}]"


def _size(X: np.ndarray) -> str:
    return "×".join(map(str, X.shape))
