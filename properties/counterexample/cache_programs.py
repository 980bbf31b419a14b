"""Programs of operations on a cache: what a model knows after one, and the shorter ones to try in its place.

A program is what `properties.implementations.cached` says it is. An operation cannot simply be left out: those behind it were
made for the rows and tokens that it left. So it is left out and they are fitted to what is there, once as they are, and with
tokens, sources and orders drawn anew, since those of a small example are often alike and would hide the fault.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Program = list[list[Any]]
BRANCHING = ("copy", "request")  # operations that add a branch
DRAWN_ANEW = 3  # times that a shorter program is tried with operands drawn anew


@dataclass(frozen=True)
class Branch:
    """What the model knows of one cache: nothing but tokens, and what was answered for them."""

    source: np.ndarray  # (b, m)
    real: np.ndarray  # (b, m), False for source tokens that only fill up the length
    tokens: np.ndarray  # (b, n)
    logits: np.ndarray  # (b, n, vocab), as answered by the implementation

    @classmethod
    def unread(cls, source: np.ndarray, real: np.ndarray | None, vocab: int) -> "Branch":
        """A cache that has not read a token yet."""
        b, real = len(source), np.ones(source.shape, dtype=bool) if real is None else real
        return cls(source, real, np.zeros((b, 0), dtype=np.int64), np.zeros((b, 0, vocab)))

    def reading(self, tokens: np.ndarray, logits: np.ndarray | None) -> "Branch":
        """The branch once it has read `words`, (b, k); `logits`, (b, k, vocab), were answered for them, or are not yet: NaN."""
        unanswered = np.full((*tokens.shape, self.logits.shape[-1]), np.nan)
        both = (self.tokens, tokens), (self.logits, unanswered if logits is None else logits)
        tokens_now, logits_now = (np.concatenate(parts, axis=1) for parts in both)
        return replace(self, tokens=tokens_now, logits=logits_now)

    def first(self, length: int) -> "Branch":
        """The branch when it had read `length` tokens."""
        return replace(self, tokens=self.tokens[:, :length], logits=self.logits[:, :length])

    def rows(self, chosen: np.ndarray) -> "Branch":
        """The branch whose row i is row chosen[i] of this one."""
        return Branch(self.source[chosen], self.real[chosen], self.tokens[chosen], self.logits[chosen])

    def above(self, other: "Branch") -> "Branch":
        """The branch with the rows of `other` behind its own."""
        names = ("source", "real", "tokens", "logits")
        return Branch(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


def followed(branches: Sequence[Branch], operation: list[Any], logits: np.ndarray | None) -> list[Branch]:
    """The branches after one operation, to which `logits`, (b, k, vocab), were answered: none, or not yet, if None."""
    which, name, *operands = operation
    old = branches[which]
    vocab = old.logits.shape[-1]
    match name:
        case "prefill" | "step":
            new = old.reading(operands[0].reshape(len(old.tokens), -1), logits)
        case "rollback":
            new = old.first(operands[0])
        case "reorder":
            new = old.rows(operands[0])
        case "leave":
            new = old.rows(np.delete(np.arange(len(old.tokens)), operands[0]))
        case "join":
            source, real, tokens = operands
            new = old.above(Branch.unread(source, real, vocab).reading(tokens, logits))
        case "reset":
            new = Branch.unread(operands[0], operands[1], vocab)
        case "request":
            source, real = operands
            return [*branches, Branch.unread(source, real, vocab)]
        case _:
            return [*branches, old]
    return [new if i == which else branch for i, branch in enumerate(branches)]


# ---- shorter programs ----


@dataclass(frozen=True)
class Played:
    """A program and the sources it starts from."""

    source: np.ndarray  # (b, m)
    real: np.ndarray | None  # (b, m)
    program: Program

    def drawn(self, rng: np.random.Generator, source_vocab: int, vocab: int) -> "Played":
        """The same operations with other tokens, sources and orders; rows that change places all do."""

        def other(operation: list[Any]) -> list[Any]:
            which, name, *operands = operation
            if name in ("prefill", "step"):
                operands = [rng.integers(0, vocab, operands[0].shape)]
            elif name == "reorder":
                operands = [np.roll(np.arange(len(operands[0])), 1)]
            elif name in ("join", "reset", "request"):
                operands[0] = rng.integers(0, source_vocab, operands[0].shape)
                operands[2:] = [rng.integers(0, vocab, tokens.shape) for tokens in operands[2:]]
            return [which, name, *operands]

        return Played(rng.integers(0, source_vocab, self.source.shape), self.real, [other(each) for each in self.program])


def shorter(played: Played, source_vocab: int, vocab: int) -> Iterator[Played]:
    """Programs with an operation less, then with a row or a token less."""
    for place in reversed(range(len(played.program))):
        fewer = fitted(replace(played, program=without(played.program, place)))
        if not fewer.program:
            continue
        yield fewer
        yield from (fewer.drawn(np.random.default_rng(seed), source_vocab, vocab) for seed in range(DRAWN_ANEW))
    real = None if played.real is None else played.real[:-1]
    if len(played.source) > 1:
        yield fitted(Played(played.source[:-1], real, played.program))
    for place, (which, name, *operands) in enumerate(played.program):
        if name == "prefill" and operands[0].shape[1] > 1:
            one_less = [*played.program[:place], [which, name, operands[0][:, :-1]], *played.program[place + 1 :]]
            yield fitted(replace(played, program=one_less))


def without(program: Program, place: int) -> Program:
    """The program without one operation; what was done to a branch that is not made is done to the one it was made beside."""
    (original, name, *_), kept = program[place], [*program[:place], *program[place + 1 :]]
    if name not in BRANCHING:
        return kept
    copied = 1 + sum(operation in BRANCHING for _, operation, *_ in program[:place])

    def renamed(which: int) -> int:
        return original if which == copied else which - (which > copied)

    return [[renamed(which), *rest] for which, *rest in kept]


def fitted(played: Played) -> Played:
    """The program with operands cut or repeated to the rows and tokens there are, without what would then change nothing."""
    shapes, program = [(*played.source.shape, 0)], []  # rows, width of the source and tokens of each branch
    for which, name, *operands in played.program:
        b, m, n = shapes[which]
        given: list[Any] = operands
        if name in ("prefill", "step"):
            given = [np.resize(operands[0], (b, *operands[0].shape[1:]))]
            n += given[0].size // b
        elif name == "rollback" and operands[0] < n:
            n = operands[0]
        elif name == "reorder":
            given = [np.resize(operands[0], b) % b]
        elif name == "leave" and b > 1:
            given, b = [operands[0] % b], b - 1
        elif name == "join":
            given = [np.resize(each, (1, width)) for each, width in zip(operands, (m, m, n), strict=True)]
            given[1][:, 0], b = True, b + 1
        elif name == "reset":
            (b, m), n = operands[0].shape, 0
        elif name == "request":
            shapes.append((*operands[0].shape, 0))
        elif name == "copy":
            shapes.append((b, m, n))
        else:
            continue  # it would change nothing, or leave no row
        shapes[which] = (b, m, n)
        program.append([which, name, *given])
    return replace(played, program=program)
