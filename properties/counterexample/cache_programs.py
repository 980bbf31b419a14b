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
    """What the model knows of one cache: nothing but tokens, and what was answered for them. Rows may differ in length."""

    source: np.ndarray  # (b, m)
    real: np.ndarray  # (b, m), False for source tokens that only fill up the length
    tokens: np.ndarray  # (b, n), of a row the first `lengths`
    logits: np.ndarray  # (b, n, vocab), as answered by the implementation
    lengths: np.ndarray  # (b,)

    @classmethod
    def unread(cls, source: np.ndarray, real: np.ndarray | None, vocab: int) -> "Branch":
        """A cache that has not read a token yet."""
        b, real = len(source), np.ones(source.shape, dtype=bool) if real is None else real
        lengths = np.zeros(b, dtype=np.int64)
        return cls(source, real, np.zeros((b, 0), dtype=np.int64), np.zeros((b, 0, vocab)), lengths)

    @property
    def length(self) -> int:
        """How many tokens the longest row has."""
        return int(self.lengths.max())

    @property
    def even(self) -> bool:
        """Whether all rows have read as many."""
        return bool((self.lengths == self.lengths[0]).all())

    def reading(self, tokens: np.ndarray, logits: np.ndarray | None, counts: np.ndarray | None = None) -> "Branch":
        """The branch once it has read `tokens`, (b, k), or of each row the first `counts`.

        `logits`, (b, k, vocab), were answered for them, or are not yet: NaN.
        """
        counts = np.full(len(tokens), tokens.shape[1]) if counts is None else counts
        lengths = self.lengths + counts
        wider = self.widened(int(lengths.max()))
        for r, (start, stop, count) in enumerate(zip(self.lengths, lengths, counts, strict=True)):
            wider.tokens[r, start:stop] = tokens[r, :count]
            wider.logits[r, start:stop] = np.nan if logits is None else logits[r, :count]
        return replace(wider, lengths=lengths)

    def widened(self, n: int) -> "Branch":
        """With room for so many tokens, in arrays of its own."""
        more = max(n - self.tokens.shape[1], 0)
        tokens = np.pad(self.tokens, ((0, 0), (0, more)))
        return replace(self, tokens=tokens, logits=np.pad(self.logits, ((0, 0), (0, more), (0, 0)), constant_values=np.nan))

    def first(self, length: int) -> "Branch":
        """The branch when no row had read more than `length` tokens."""
        lengths = np.minimum(self.lengths, length)
        return replace(self, tokens=self.tokens[:, :length], logits=self.logits[:, :length], lengths=lengths)

    def last(self, k: int) -> np.ndarray:
        """What was answered for the last k tokens of each row, (b, k, vocab)."""
        return np.stack([row[length - k : length] for row, length in zip(self.logits, self.lengths, strict=True)])

    def rows(self, chosen: np.ndarray) -> "Branch":
        """The branch whose row i is row chosen[i] of this one."""
        return Branch(self.source[chosen], self.real[chosen], self.tokens[chosen], self.logits[chosen], self.lengths[chosen])

    def above(self, other: "Branch") -> "Branch":
        """The branch with the rows of `other` behind its own."""
        n = max(self.tokens.shape[1], other.tokens.shape[1])
        both = self.widened(n), other.widened(n)
        names = ("source", "real", "tokens", "logits", "lengths")
        return Branch(*(np.concatenate([getattr(branch, name) for branch in both]) for name in names))


def followed(branches: Sequence[Branch], operation: list[Any], logits: np.ndarray | None) -> list[Branch]:
    """The branches after one operation, to which `logits`, (b, k, vocab), were answered: none, or not yet, if None."""
    which, name, *operands = operation
    old = branches[which]
    vocab = old.logits.shape[-1]
    match name:
        case "prefill" | "step":
            new = old.reading(operands[0].reshape(len(old.tokens), -1), logits)
        case "prefill_some":
            new = old.reading(operands[0], logits, operands[1])
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
            if name in ("prefill", "step", "prefill_some"):
                operands = [rng.integers(0, vocab, operands[0].shape), *operands[1:]]
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
    b, m = played.source.shape
    shapes, program = [(m, [0] * b)], []  # width of the source, and how many tokens each row of a branch has read
    for which, name, *operands in played.program:
        m, lengths = shapes[which]
        b, given = len(lengths), list(operands)
        if name in ("prefill", "step", "prefill_some"):
            given = [np.resize(each, (b, *each.shape[1:])) for each in operands]
            counts = given[1] if name == "prefill_some" else [given[0].size // b] * b
            if not any(counts):
                continue
            lengths = [length + int(count) for length, count in zip(lengths, counts, strict=True)]
        elif name == "rollback" and operands[0] < max(lengths):
            lengths = [min(length, operands[0]) for length in lengths]
        elif name == "reorder":
            given = [np.resize(operands[0], b) % b]
            lengths = [lengths[r] for r in given[0]]
        elif name == "leave" and b > 1:
            given = [operands[0] % b]
            lengths = [length for r, length in enumerate(lengths) if r not in given[0]]
        elif name == "join" and len(set(lengths)) == 1:
            given = [np.resize(each, (1, width)) for each, width in zip(operands, (m, m, lengths[0]), strict=True)]
            given[1][:, 0], lengths = True, [*lengths, lengths[0]]
        elif name == "reset":
            m, lengths = operands[0].shape[1], [0] * len(operands[0])
        elif name == "request":
            shapes.append((operands[0].shape[1], [0] * len(operands[0])))
        elif name == "copy":
            shapes.append((m, lengths))
        else:
            continue  # it would change nothing, or leave no row, or join rows of different length
        shapes[which] = (m, lengths)
        program.append([which, name, *given])
    return replace(played, program=program)
