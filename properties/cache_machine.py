"""A machine that drives the K/V cache of any implementation, and knows what each answer must be.

Its model is the oracle recomputing from scratch: a branch is a source, the tokens each row has read, and the logits that were
answered for them. After every rule the program so far is played anew, on a new cache, and each branch asked two tokens more;
so every rule is judged at once, a failure comes with a program that stands for itself, and that program is made short by leaving
operations out (`counterexample.cache_programs`): Hypothesis, which knows nothing of what they mean, took minutes and left more of
them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from properties.assertions import assert_identical, assert_rounding_only
from properties.counterexample.cache_programs import Branch, Played, Program, followed, shorter
from properties.implementations.cached import CHANGES as OF_CACHES
from properties.implementations.impl import Impl
from properties.inputs.parameters import SEEDS, Call, Nested, choices, dyadic, real_tokens, sequences, sizes
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError, ImplementationTimeout, record

WRONG = (ClaimBroken, ImplementationError, ImplementationCrash, ImplementationTimeout)

BRANCHES = st.integers(0, 2)
CHUNKS = st.integers(1, 3)
CHANGES = ("prefill_some", *OF_CACHES, "request")  # a second request is nothing that a cache could lack
MOST_BRANCHES, MOST_ROWS, MOST_WORDS = 3, 4, 12  # the probe's tokens come on top
TURNS = 2  # tokens that each branch is asked after a rule
MOST_PLAYED, MOST_SECONDS = 500, 20.0  # of shorter programs that are tried in place of one that shows a fault


@st.composite
def cache_starts(draw: st.DrawFn) -> Call:
    """A source and a whole model: one to three rows, one or two layers a side, source tokens that may not be real.

    All weights come from one seed, so that shrinking is about the program.
    """
    b, _, m, h, d_model, d_ff = draw(sizes(even=True, most_tokens=4, most_sequences=3))
    source_vocab, vocab, layers = draw(st.integers(2, 7)), draw(st.integers(2, 6)), draw(st.integers(1, 2))
    parameters = seeded_model(draw(SEEDS), d_model, d_ff, source_vocab=source_vocab, vocab=vocab, layers=layers)
    model = {"parameters": parameters, **draw(choices(h)), "scale_embedding": draw(st.booleans())}
    return Call((draw(sequences(b, m, source_vocab)), draw(real_tokens(b, m))), model)


def seeded_model(seed: int, d_model: int, d_ff: int, *, source_vocab: int, vocab: int, layers: int) -> Nested:
    """Every learned number of a small Transformer, from one seed: biases, an output matrix of its own and final norms included."""
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return dyadic(int(rng.integers(2, 2**31)), shape)

    def heads() -> Nested:
        return {f"W_{k}": some(d_model, d_model) for k in "QKVO"} | {f"b_{k}": some(d_model) for k in "QKVO"}

    def norm() -> Nested:
        return {"gain": 1 + some(d_model) / 2, "bias": some(d_model)}

    def layer(**more: Nested) -> Nested:
        think = {"W_1": some(d_model, d_ff), "b_1": some(d_ff), "W_2": some(d_ff, d_model), "b_2": some(d_model)}
        return {"self_attention": heads(), "norm_1": norm(), "feed_forward": think, "norm_2": norm(), **more}

    return {
        "source_embedding": some(source_vocab, d_model),
        "target_embedding": some(vocab, d_model),
        "encoder": [layer() for _ in range(layers)],
        "decoder": [layer(cross_attention=heads(), norm_3=norm()) for _ in range(layers)],
        "W_out": some(d_model, vocab),
        "b_out": some(vocab),
        "encoder_norm": norm(),
        "decoder_norm": norm(),
    }


class CacheMachine(RuleBasedStateMachine):
    """Two rules, read and change, play the operations of `properties.implementations.cached.Cache` that a cache has.

    And second requests to the same model, so that two caches are in use at once.

    One rule for all changes, and several of them at once, since Hypothesis leaves out whole rules in most of its runs, and few
    runs must see many of their pairs.
    """

    def __init__(self, impl: Impl) -> None:
        super().__init__()
        self.impl = impl
        self.program: Program = []
        self.touched: set[int] = set()  # the branches that the last rule changed
        self.probes: dict[int, np.ndarray] = {}  # what every branch last answered to the tokens of the probe
        self.changes: dict[str, Callable[[int, np.random.Generator], None]] = {name: getattr(self, f"_{name}") for name in CHANGES}

    @initialize(start=cache_starts(), k=st.sampled_from((2, 6, 3, 4, 9, 1)), seed=SEEDS)
    def start(self, start: Call, k: int, seed: int) -> None:
        """A cache over these sources, of this model, which reads its first tokens."""
        self.cache = CacheOf(self.impl, start.kwargs)
        self.source, self.real = start.args
        self.branches = self.cache.unread(self.source, self.real)
        offered = self.cache.played(self.source, self.real, [])["operations"]
        self.changes = {name: change for name, change in self.changes.items() if name in ("request", *offered)}
        self.read(0, k, seed, at_once=True)

    # ---- the rules ----

    @precondition(lambda self: any(branch.length + 3 <= MOST_WORDS for branch in self.branches))
    @rule(branch=BRANCHES, k=CHUNKS, seed=SEEDS, at_once=st.booleans())
    def read(self, branch: int, k: int, seed: int, at_once: bool) -> None:
        """Read k tokens more: a prompt in chunks, or step by step."""
        which = chosen(branch, [i for i, each in enumerate(self.branches) if each.length + 3 <= MOST_WORDS])
        tokens = self.some_tokens(np.random.default_rng(seed) if seed else None, len(self.branches[which].tokens), k)
        for part in [tokens] if at_once else [tokens[:, i] for i in range(k)]:
            self.do(which, "prefill" if at_once else "step", part)

    @rule(branch=BRANCHES, changes=st.lists(st.integers(0, len(OF_CACHES)), min_size=1, max_size=3), seed=SEEDS)
    def change(self, branch: int, changes: list[int], seed: int) -> None:
        """One to three of the operations that read nothing, in one branch; what the last one leaves is asked about."""
        which, rng = branch % len(self.branches), np.random.default_rng(seed)
        for i, number in enumerate(changes):
            possible = self.sensible(self.branches[which], first=i == 0)
            if possible:
                self.changes[possible[number % len(possible)]](which, rng)

    def sensible(self, branch: Branch, *, first: bool) -> list[str]:
        """The changes that can be made to a branch, and that do not undo what was changed just before."""
        rows = len(branch.tokens)
        senseless = {
            "prefill_some": branch.length + 3 > MOST_WORDS,
            "rollback": not branch.length,
            "leave": rows == 1,
            "join": rows == MOST_ROWS or not branch.even,
            "copy": len(self.branches) == MOST_BRANCHES,
            "request": len(self.branches) == MOST_BRANCHES,
            "reset": not first,
        }
        return [name for name in self.changes if not senseless.get(name)]

    def _prefill_some(self, which: int, rng: np.random.Generator) -> None:
        """Read tokens, in some rows fewer than in others, or none."""
        b, k = len(self.branches[which].tokens), int(rng.integers(1, 4))
        counts = rng.integers(0, k + 1, b)
        counts[rng.integers(b)] = k
        self.do(which, "prefill_some", self.some_tokens(rng, b, k), counts)

    def _rollback(self, which: int, rng: np.random.Generator) -> None:
        """Forget the last token, or several of them, or all."""
        n = self.branches[which].length
        self.do(which, "rollback", int(rng.choice([n - 1, int(rng.integers(0, n)), 0], p=[0.4, 0.5, 0.1])))

    def _reorder(self, which: int, rng: np.random.Generator) -> None:
        """Rows change places; some come twice, others not at all."""
        b = len(self.branches[which].tokens)
        self.do(which, "reorder", rng.integers(0, b, b))

    def _leave(self, which: int, rng: np.random.Generator) -> None:
        """A row is finished and goes; the others close up."""
        self.do(which, "leave", rng.integers(0, len(self.branches[which].tokens), 1))

    def _join(self, which: int, rng: np.random.Generator) -> None:
        """A row with a source of its own, which has read as many tokens elsewhere, comes in."""
        old = self.branches[which]
        source, real = self.some_source(rng, 1, old.source.shape[1])
        self.do(which, "join", source, real, self.some_tokens(rng, 1, old.length))

    def _reset(self, which: int, rng: np.random.Generator) -> None:
        """The same cache is used again for other sources, often for as many as before."""
        b = len(self.branches[which].tokens) if rng.random() < 0.5 else int(rng.integers(1, 4))
        self.do(which, "reset", *self.some_source(rng, b, int(rng.integers(1, 5))))

    def _copy(self, which: int, _: np.random.Generator) -> None:
        """Branch off: what one side reads from now on is no matter of the other's."""
        self.do(which, "copy")
        self.touched.add(len(self.branches) - 1)

    def _request(self, which: int, rng: np.random.Generator) -> None:
        """Another cache of the same model, often for sources of the same shape: neither side knows of the other."""
        b, m = self.branches[which].source.shape if rng.random() < 0.75 else (int(size) for size in rng.integers(1, 4, 2))
        self.do(which, "request", *self.some_source(rng, b, m))
        self.touched.add(len(self.branches) - 1)

    def do(self, which: int, *operation: Any) -> None:
        """Add an operation to the program; it is played when the rule is over."""
        self.program.append([which, *operation])
        self.touched.add(which)
        self.branches = followed(self.branches, self.program[-1], None)

    # ---- what holds after every rule ----

    @invariant()
    def what_is_answered_is_the_whole_models(self) -> None:
        """In every branch, two tokens more are answered as they must be: see the three laws below, each called by its name.

        The branches take turns, each with tokens of its own as far as the vocabulary goes: what one writes must not be what
        another reads.
        """
        order = sorted(range(len(self.branches)), key=lambda which: which not in self.touched)
        asked = [[which, "step", self.probe(which, turn)] for turn in range(TURNS) for which in order]
        program = [*self.program, *asked]
        branches = self.cache.after(self.source, self.real, program)
        for i, which in enumerate(order, start=1):
            with showing(program[: len(program) - len(order) + i]):  # as far as this branch's last token
                more = branches[which].last(TURNS)
                if which in self.touched:
                    self.cache.answers_are_the_whole_models(branches[which])
                else:
                    assert_identical(more, self.probes[which], f"tokens more in branch {which}, which nothing was done to")
                self.probes[which] = more
        self.touched.clear()

    def probe(self, which: int, turn: int) -> np.ndarray:
        """The token that all rows of a branch are asked when it is its turn."""
        return np.full(len(self.branches[which].tokens), (1 + which + turn) % self.cache.vocab)

    # ---- what is drawn ----

    def some_tokens(self, rng: np.random.Generator | None, b: int, k: int) -> np.ndarray:
        """Tokens of the target's vocabulary; None gives the first, repeated."""
        return np.zeros((b, k), dtype=np.int64) if rng is None else rng.integers(0, self.cache.vocab, (b, k))

    def some_source(self, rng: np.random.Generator, b: int, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Other sequences to read, the first token of each real."""
        source, real = rng.integers(0, self.cache.source_vocab, (b, m)), rng.random((b, m)) < 0.7
        real[:, 0] = True
        return source, real


class CacheOf:
    """The caches of one model, as the implementation makes them, and what their answers must be."""

    def __init__(self, impl: Impl, model: dict[str, Any]) -> None:
        self.impl, self.model = impl, model
        self.source_vocab, self.vocab = (len(model["parameters"][f"{side}_embedding"]) for side in ("source", "target"))

    def unread(self, source: np.ndarray, real: np.ndarray | None) -> list[Branch]:
        """The one branch there is before a program begins."""
        return [Branch.unread(source, real, self.vocab)]

    def played(self, source: np.ndarray, real: np.ndarray | None, program: Program) -> dict[str, Any]:
        """What the implementation answers to a program; what is wrong with it carries the program."""
        with showing(program):
            return self.impl.kv_cache(source, real, program=program, **self.model)

    def after(self, source: np.ndarray, real: np.ndarray | None, program: Program) -> list[Branch]:
        """The branches after a program, with what was answered on the way.

        Raises ImplementationError unless there is a row of logits for each token read, ClaimBroken for a length that is another.
        """
        results, branches = self.played(source, real, program)["results"], self.unread(source, real)
        for place, (operation, (logits, length)) in enumerate(zip(program, results, strict=True), start=1):
            with showing(program[:place]):
                branches = followed(branches, operation, self.rows_of_logits(operation, logits))
                length_is_the_number_of_tokens_read(length, branches[operation[0]].length)
        return branches

    def rows_of_logits(self, operation: list[Any], logits: np.ndarray | None) -> np.ndarray | None:
        """What was answered to an operation as (b, k, vocab), None for one that reads nothing."""
        name, *operands = operation[1:]
        if name not in ("prefill", "step", "join", "prefill_some"):
            return None
        tokens = operands[0] if name == "prefill_some" else operands[-1]
        if not tokens.size:
            return None
        expected = (*tokens.shape, self.vocab)
        if logits is None or logits.shape != expected:
            got = "none" if logits is None else logits.shape
            raise ImplementationError(f"{self.impl.name}.kv_cache.{name}: expected logits of shape {expected}, got {got}")
        return logits.reshape(len(tokens), -1, self.vocab)

    def answers_are_the_whole_models(self, branch: Branch) -> None:
        """The logits for all tokens a branch has read are those of the whole model on these tokens, but for rounding."""
        for n in np.unique(branch.lengths[branch.lengths > 0]):
            rows = branch.rows(np.flatnonzero(branch.lengths == n)).first(n)
            assert_rounding_only(self.impl, "transformer", rows.logits, rows.source, rows.tokens, rows.real, **self.model)

    def judge(self, source: np.ndarray, real: np.ndarray | None, program: Program) -> None:
        """Raise what is wrong with the branch that a program's last operation is about."""
        last = self.after(source, real, program)[program[-1][0]]
        with showing(program):
            self.answers_are_the_whole_models(last)

    def shortest(self, source: np.ndarray, real: np.ndarray | None, program: Program) -> Played:
        """The shortest program found that is wrong in the same way; `program` itself where its last branch alone shows nothing."""
        found = Played(source, real, program)
        wrong, tried, deadline = self.wrong(found), 0, time.monotonic() + MOST_SECONDS
        kind, improving = type(wrong), wrong is not None
        while improving:
            improving = False
            for fewer in shorter(found, self.source_vocab, self.vocab):
                tried += 1
                if tried > MOST_PLAYED or time.monotonic() > deadline:
                    break
                if type(self.wrong(fewer)) is kind:
                    found, improving = fewer, True
                    break
        return found

    def can_be_told_shorter(self, broken: Exception, source: np.ndarray, real: np.ndarray | None) -> None:
        """What is wrong carries a program on these sources; `judgement.judge` asks for a shorter one that shows it."""
        broken.smaller = partial(self.tell_the_shortest, Played(source, real, broken.program))  # type: ignore[union-attr]

    def tell_the_shortest(self, found: Played) -> None:
        """Raise what a shorter program shows of what was found broken. It is played last, so that its calls are those kept."""
        shortest = self.shortest(found.source, found.real, found.program)
        self.judge(shortest.source, shortest.real, shortest.program)

    def wrong(self, played: Played) -> Exception | None:
        """What is wrong with a program's last branch."""
        with record.apart(), suppress(UnsatisfiedAssumption):  # of a program that the implementation does not take
            try:
                self.judge(played.source, played.real, played.program)
            except WRONG as broken:
                return broken
        return None


def length_is_the_number_of_tokens_read(length: int | None, tokens: int) -> None:
    """A cache that tells its length tells how many tokens it has read."""
    if length is not None:
        assert_identical(np.array(length), np.array(tokens), "length of the cache")


@contextmanager
def showing(program: list[list[Any]]) -> Iterator[None]:
    """Whatever is found wrong in here carries the program that shows it, the shortest of those it is shown in."""
    try:
        yield
    except WRONG as broken:
        broken.program = program  # type: ignore[union-attr]
        lines = [repr([part.tolist() if isinstance(part, np.ndarray) else part for part in operation]) for operation in program]
        broken.counterexample = "\n".join(lines)  # type: ignore[union-attr]
        broken.add_note(f"The program of {len(program)} operations:\n{broken.counterexample}")  # type: ignore[union-attr]
        raise


def chosen(number: int, among: list[int]) -> int:
    """One of them, by a number that shrinks to the first."""
    return among[number % len(among)]
