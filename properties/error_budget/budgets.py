"""How far rounding may take a correct implementation: derived for every component of every result, never chosen.

The oracle runs in float64 (exactly, for our purposes) and, on the rounding simulator, sixteen times as the implementation's
contract would have it round. How far those runs stray is the scale of each component; an error is judged in these σ:

    up to 6 passes; above, the case is judged again on 256 fresh trials, and 256 in which every rounding errs twice as much:
    no further than these is correct, wherever they go beyond 8 σ (errors with heavy tails);
    then up to 8 is SUSPECT and above it FAIL. (Beyond 100 it is judged again only if 64 of each make it less than that.)
    A result of few components, of which 256 trials show less than of many, has a third look if it is at most 16: on up to 2048.

On single steps there is a ceiling besides: an error above the proven bound (`rounding.worst_case`) fails whatever its score.
Comparison happens in float64; NaN, +inf and −inf are met as categories, before anything is subtracted; the worst component
decides. This is the only place in the project that holds a tolerance.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from properties.error_budget.scales import FAIL, Aggregate, aggregates, component_scale
from properties.error_budget.simulate import BOUNDED, Errors, bound, simulate_all
from properties.implementations.contract import Contract, envelope, in_force
from properties.implementations.impl import Impl
from properties.steps import STEPS
from reports.records import Verdict

SUSPECT, ESCALATE_BELOW = 6.0, 100.0  # σ
TRIALS, AGAIN, BRIEFLY, AT_LAST = 16, 256, 64, 2048
CLOSE = 2 * FAIL  # σ up to which a result of few components has a third look
FEW = 2**17  # components in the trials of that look
ROOM = 2**24  # components in the fresh trials of a contract: a large result is judged again on fewer, though never on fewer than 64
COPIES = frozenset({"mask", "split_heads", "concat_heads"})  # steps that compute nothing: equal bit for bit
NOT_SUMMED = {"positional_encoding": ("column",)}  # sines of p·ω: equal steps, whose roundings may all point the same way
UNDECIDABLE = 100  # more than one component in so many undecidable, and a case proves nothing


@dataclass(frozen=True)
class Score:
    """How far a result is from exact, measured by what rounding allows.

    worst      the largest error, in σ       kind   where it was seen: "component", "row, bias", "head, gain" …
    index      of that element or sum      budget_used  a share: above 1 the claim is broken
    """

    worst: float
    kind: str
    index: tuple[int, ...]
    expected: float
    got: float
    budget_used: float
    elements: int
    undecidable: int = 0
    dtype: str = ""

    @property
    def verdict(self) -> Verdict:
        """FAIL, SUSPECT, VACUOUS where too much could not be judged, or PASS."""
        if self.budget_used > 1:
            return Verdict.FAIL
        if self.undecidable * UNDECIDABLE > self.elements:
            return Verdict.VACUOUS
        return Verdict.SUSPECT if self.worst > SUSPECT else Verdict.PASS

    def __str__(self) -> str:
        where = f"at {self.index}" if self.kind in ("component", "category", "bound") else f"in {self.kind} {self.index}, worst"
        if self.kind == "category":
            return (
                f"{where}: expected {self.expected}, got {self.got}, which rounding in {self.dtype} does not turn into one another"
            )
        how = f"{self.worst:.3g} σ" if self.kind != "bound" else "above the proven bound"
        values = f"expected {self.expected!r}, got {self.got!r}"
        return f"{where}: {values}: {how}, {self.budget_used:.3g} times what rounding in {self.dtype} allows"


@dataclass(frozen=True)
class Budget:
    """What a step gives exactly, and the deviation of correct implementations from it, component by component."""

    step: str
    dtype: str
    exact: np.ndarray
    scale: np.ndarray
    undecidable: np.ndarray  # True where a simulated correct run is not finite
    categories: np.ndarray  # what the oracle gives where it is not finite itself; 0 elsewhere
    aggregates: Sequence[Aggregate] = field(repr=False)
    again: Callable[[int], "Budget"] = field(repr=False)  # from so many fresh trials, and as many doubled ones
    find_bound: Callable[[], np.ndarray] | None = field(repr=False)

    @cached_property
    def bound(self) -> np.ndarray | None:
        """The proven bound of the error of each component, for single steps."""
        return None if self.find_bound is None else self.find_bound()

    def tolerance(self, *, escalate: bool = True) -> np.ndarray:
        """By how much each element may be off by itself: what `score` lets pass, its sums and a third look aside.

        Infinite where an element is undecidable, 0 where the exact one is not finite. Without `escalate` it is from the first
        trials alone: quicker and rougher.
        """
        allowed = np.maximum(SUSPECT * self.scale, FAIL * self.again(AGAIN).scale) if escalate else FAIL * self.scale
        allowed = allowed if self.bound is None else np.minimum(allowed, self.bound)
        return np.where(self.undecidable, np.inf, np.where(self.categories == 0, allowed, 0.0))

    def score(self, got: np.ndarray, *, escalate: bool = True) -> Score:
        """The worst of all components and sums; a suspect is judged again on fresh trials, unless `escalate` is False."""
        if np.shape(got) != self.exact.shape:
            raise ValueError(f"{self.step}: expected a result of shape {self.exact.shape}, got {np.shape(got)}")
        return self.scores(np.asarray(got)[None], escalate=escalate)[0]

    def scores(self, results: np.ndarray, *, escalate: bool = True) -> list[Score]:
        """What `score` says of each of many results, (results, *shape)."""
        results = np.asarray(results, dtype=np.float64)
        judged = ~self.undecidable & np.isfinite(self.exact)
        errors = np.subtract(results, self.exact, out=np.zeros_like(results), where=judged & np.isfinite(results))
        scores = self._worst(results, errors)
        if escalate:
            suspects = [i for i, score in enumerate(scores) if score.worst > SUSPECT]
            briefly = self._again(BRIEFLY, results, [i for i in suspects if scores[i].worst > ESCALATE_BELOW])
            hopeful = [i for i in suspects if briefly.get(i, scores[i]).worst <= ESCALATE_BELOW]
            again = self._again(AGAIN, results, hopeful)
            trials = min(AT_LAST, FEW // max(self.exact.size, 1))
            if trials > AGAIN:
                again |= self._again(trials, results, [i for i in hopeful if FAIL < again[i].worst <= CLOSE])
            scores = [again.get(i, score) for i, score in enumerate(scores)]
        for i, score in enumerate(scores):  # 2 σ are within any bound: the last rounding alone gives it u·|y|
            if score.worst > 2 and score.budget_used <= 1:
                scores[i] = self._under_the_ceiling(results[i], errors[i], score)
        for i, place in self._category_mismatches(results):
            scores[i] = self._score_at(place, results[i], "category", np.inf, np.inf)
        return scores

    def _again(self, trials: int, results: np.ndarray, which: Sequence[int]) -> dict[int, Score]:
        """The scores that some of the results have by so many fresh trials."""
        return dict(zip(which, self.again(trials).scores(results[which], escalate=False), strict=True)) if which else {}

    def _worst(self, results: np.ndarray, errors: np.ndarray) -> list[Score]:
        if not self.exact.size:
            return [Score(0.0, "component", (), 0.0, 0.0, 0.0, 0, dtype=self.dtype)] * len(results)
        z = errors / self.scale
        sums = (Aggregate("component", (), 1.0, np.ones(self.exact.shape)), *self.aggregates)
        sizes = [each.score(z).reshape(len(z), -1) for each in sums]
        worst = np.array([size.max(axis=1) for size in sizes])
        scores = []
        for i, which in enumerate(worst.argmax(axis=0)):
            place = sums[which].worst_place(int(sizes[which][i].argmax()), np.abs(z[i]))
            sigmas = float(worst[which, i])
            scores.append(self._score_at(place, results[i], sums[which].kind, sigmas, sigmas / FAIL))
        return scores

    def _under_the_ceiling(self, got: np.ndarray, error: np.ndarray, score: Score) -> Score:
        if self.bound is None:
            return score
        budget_used = np.divide(np.abs(error), self.bound, out=np.where(error == 0, 0.0, np.inf), where=self.bound > 0)
        place = np.unravel_index(int(budget_used.argmax()), budget_used.shape)
        if budget_used[place] <= 1:
            return score
        return self._score_at(place, got, "bound", score.worst, float(budget_used[place]))

    def _score_at(self, place: Sequence[Any], got: np.ndarray, kind: str, worst: float, budget_used: float) -> Score:
        index = tuple(int(i) for i in place)
        values = float(self.exact[index]), float(got[index])
        return Score(worst, kind, index, *values, budget_used, got.size, int(self.undecidable.sum()), self.dtype)

    def without_probes(self) -> "Budget":
        """The same budget without the probes it was made with (its fresh trials are too)."""
        plain = tuple(aggregate for aggregate in self.aggregates if not aggregate.kind.startswith("probe"))
        return replace(self, aggregates=plain, again=lambda trials: self.again(trials).without_probes())

    def _category_mismatches(self, results: np.ndarray) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Which results are NaN or infinite where the exact one is something else, or the other way round; and where first."""
        if np.isfinite(results).all() and not self.categories.any():
            return
        wrong = ~self.undecidable & (category(results) != self.categories)
        for i in np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)):
            yield int(i), np.unravel_index(int(wrong[i].argmax()), wrong[i].shape)


def budget(
    step: str,
    *args: Any,
    contract: Contract | Sequence[Contract] | None = None,
    dtype: str = "float32",
    probes: Mapping[str, np.ndarray] | None = None,
    **kwargs: Any,
) -> Budget:
    """How far a correct implementation may be from `step` of these arguments (float64, representable in the dtype).

    `contract` says how it computes; several mean the larger scale of each; None is what an implementation in `dtype` is held to
    that declares nothing. `probes` are results of named faults: sums of errors along each of them are judged too.
    Raises ValueError for a step without rounding.
    """
    if step in COPIES or step not in STEPS or STEPS[step].kind != "float":
        raise ValueError(f"step: expected one that computes with real numbers, got {step!r}")
    contracts = envelope(dtype) if contract is None else (contract,) if isinstance(contract, Contract) else tuple(contract)
    key = digest(step, args, kwargs, contracts, probes)
    return memory.recall(key, lambda: _budget(step, args, kwargs, contracts, probes or {}, TRIALS, key))


def _budget(
    step: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    contracts: tuple[Contract, ...],
    probes: Mapping[str, np.ndarray],
    trials: int,
    seed: bytes,
    *,
    doubled: bool = False,
) -> Budget:
    (errors,) = simulate_all(step, args, kwargs, contracts, trials, int.from_bytes(seed, "big"), doubled=doubled).values()
    exact = errors.exact

    def again(trials: int) -> Budget:
        trials = min(trials, max(BRIEFLY, ROOM // max(exact.size, 1)))
        key = b"again %d " % trials + seed
        return memory.recall(key, lambda: _budget(step, args, kwargs, contracts, probes, trials, key, doubled=True))

    ceiling = (lambda: bound(step, args, kwargs, contracts)) if step in BOUNDED else None
    return derived(step, contracts, exact, errors.plain, again, probes=probes, ceiling=ceiling, doubled=errors.doubled)


def budgets(
    step: str, *args: Any, contract: Contract | Sequence[Contract] | None = None, dtype: str = "float32", **kwargs: Any
) -> dict[str, Budget]:
    """The same for a step of several results, by their names. Raises ValueError for a step of one."""
    names = STEPS[step].results if step in STEPS else ()
    if not names:
        raise ValueError(f"step: expected one with several results, got {step!r}")
    contracts = envelope(dtype) if contract is None else (contract,) if isinstance(contract, Contract) else tuple(contract)
    run = _Run(step, args, kwargs, contracts, TRIALS, digest(step, args, kwargs, contracts))
    return {name: memory.recall(run.key + name.encode(), partial(run.budget, name)) for name in names}


@dataclass(frozen=True)
class _Run:
    """So many trials of a step of several results: simulated when the first of its budgets is asked for, once for all."""

    step: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    contracts: tuple[Contract, ...]
    trials: int
    key: bytes
    doubled: bool = False

    @cached_property
    def errors(self) -> dict[str, Errors]:
        seed = int.from_bytes(self.key, "big")
        return simulate_all(self.step, self.args, self.kwargs, self.contracts, self.trials, seed, doubled=self.doubled)

    def budget(self, name: str) -> Budget:
        exact, plain, doubled = self.errors[name]
        size = sum(errors.exact.size for errors in self.errors.values())
        step, args, kwargs, contracts, key = self.step, self.args, self.kwargs, self.contracts, self.key

        def again(trials: int) -> Budget:
            trials = min(trials, max(BRIEFLY, ROOM // max(size, 1)))
            anew = _Run(step, args, kwargs, contracts, trials, b"again %d " % trials + key, doubled=True)
            return memory.recall(anew.key + name.encode(), lambda: anew.budget(name))

        return derived(self.step, self.contracts, exact, plain, again, doubled=doubled)


def derived(
    step: str,
    contracts: Sequence[Contract],
    exact: np.ndarray,
    blocks: Sequence[np.ndarray],
    again: Callable[[int], Budget],
    *,
    probes: Mapping[str, np.ndarray] | None = None,
    ceiling: Callable[[], np.ndarray] | None = None,
    doubled: Sequence[np.ndarray] = (),
) -> Budget:
    """The budget of a matrix from the errors of correct trials under each contract, (trials, *shape); `again` gives one of more.

    `doubled` are the errors of trials in which every rounding errs twice as much.
    """
    with np.errstate(all="ignore"):
        categories = category(exact)
        agree = [np.isfinite(errors).all(axis=0) for errors in blocks]
        undecidable = ~np.logical_and.reduce(agree) & (categories == 0)
        judged = ~undecidable & (categories == 0)
        plain = [np.where(judged, errors, 0.0) for errors in blocks]
        doubled = [np.where(judged & np.isfinite(errors), errors, 0.0) for errors in doubled]
        finite = np.where(judged, exact, 0.0)
        scale, floor = component_scale(plain, finite, contracts[0], doubled)
        without = NOT_SUMMED.get(step, ())
        sums = tuple(aggregates(plain, finite, scale, floor, probes or {}, doubled, without)) if exact.size else ()
    return Budget(step, contracts[0].dtype, exact, scale, undecidable, categories, sums, again, ceiling)


def sum_bound(terms: int, who: Impl | str, scale: float) -> float:
    """How far a sum of `terms` numbers may be off whose sizes add up to `scale`, in any order: (γₙ + 2u)·scale.

    γₙ = n·u/(1 − n·u) for the n = terms + 4 operations (four around the sum) in what `who`, an implementation or
    the name of a dtype, accumulates in; each term, and the result, may have been stored in the dtype (u each). A contract may allow
    more: operands that are cut, parts that are stored, and a term that is flushed to 0, as weight (of a number up to `scale`) or
    as it is.
    """
    contracts = envelope(who) if isinstance(who, str) else in_force(who)
    return max(_sum_bound(terms, contract, float(scale)) for contract in contracts)


def _sum_bound(terms: int, contract: Contract, scale: float) -> float:
    operations = (terms + 4) * contract.inside.u
    stored = (2 if contract.split_k == 1 else 2 + 2 * contract.split_k) * contract.storage.u
    cut = 0.0 if contract.operands is None else 2 * contract.operands.u
    flushed = (terms + 4) * contract.storage.smallest_normal if contract.flush_to_zero else 0.0
    return scale * (operations / (1 - operations) + stored + cut) + flushed * max(1.0, scale)


def category(values: np.ndarray) -> np.ndarray:
    """0 for a finite number, 1 for NaN, 2 and 3 for +inf and −inf."""
    return np.isnan(values) + 2 * np.isposinf(values) + 3 * np.isneginf(values)


# Budgets are remembered: one oracle serves all implementations of a case ----------------------------------------------

REMEMBERED, LARGE = 1024, 2**20  # budgets kept, and how many components make one too large to keep for long


class Memory:
    """The latest budgets; the oldest are forgotten when they are too many, or too large together."""

    def __init__(self) -> None:
        self.budgets: OrderedDict[bytes, Budget] = OrderedDict()
        self.components = 0  # of all that are kept

    def recall(self, key: bytes, make: Callable[[], Budget]) -> Budget:
        """The budget of that key, made if it is not kept."""
        if key in self.budgets:
            self.budgets.move_to_end(key)
            return self.budgets[key]
        made = self.budgets[key] = make()
        self.components += made.exact.size
        while len(self.budgets) > REMEMBERED or (len(self.budgets) > 1 and self.components > LARGE):
            self.components -= self.budgets.popitem(last=False)[1].exact.size
        return made


memory = Memory()


def digest(*values: Any) -> bytes:
    """A key of these values: the same for the same numbers, in arrays and nested."""
    hashed = hashlib.blake2b(digest_size=16)
    _feed(hashed.update, values)
    return hashed.digest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        update(b"(%d" % len(value))
        for item in value:
            _feed(update, item)
    elif isinstance(value, np.ndarray):
        update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    else:
        update(repr(value).encode() + b";")
