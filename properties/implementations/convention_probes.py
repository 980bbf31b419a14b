"""Which conventions an implementation follows, found out: small questions whose answers differ from choice to choice.

A probe is asked of a step that shows the convention; what an implementation declares is held against it (`test_conventions`), and
what it leaves open is what the probe shows (`settle`). That is asked twice: an answer that does not come again would be lost
here otherwise, since no property sees it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hypothesis.errors import UnsatisfiedAssumption

from properties.implementations.conventions import CHOICES, CONVENTIONS, OURS, Conventions
from properties.implementations.formats import FORMATS
from properties.implementations.sequence_probes import REFUSED, impossible, lengths_of, log_of_nothing, log_of_two, without_keys
from properties.verdicts import ClaimBroken, ImplementationCrash, ImplementationError, ImplementationTimeout, record

if TYPE_CHECKING:
    from properties.implementations.impl import Impl

BIASES = ("b_Q", "b_K", "b_V", "b_O")
UNTAKEN = UnsatisfiedAssumption  # what is raised where it does not take the question
NO_ANSWER = (ImplementationError, ImplementationCrash, ImplementationTimeout, ClaimBroken, UNTAKEN)


class Probe(NamedTuple):
    """Which steps show a convention, a question to one of them, and its answer under each of the CHOICES."""

    steps: tuple[str, ...]
    ask: Callable[["Impl", str], float]
    answers: tuple[float, ...]


# Masks, softmax, norms ------------------------------------------------------------------------------------------------


def _average(impl: "Impl", step: str, values: list[float], mask: list[bool]) -> float:
    """The mean of those values that the mask lets a single query attend to: all scores are 0."""
    V, attend = np.array(values)[:, None], np.array([mask])
    nothing = np.zeros((1, 1))
    if step == "attention":
        return float(impl.attention(nothing[None, None], np.zeros((1, 1, *V.shape)), V[None, None], attend).item())
    weights = {"W_Q": nothing, "W_K": nothing, "W_V": np.eye(1), "W_O": np.eye(1)}
    biases = dict.fromkeys(BIASES, np.zeros(1))
    return float(impl.multi_head(nothing[None], V[None], attend, h=1, **weights, **biases).item())


def _polarity(impl: "Impl", step: str) -> float:
    """Which mask was read rightly: the declared one first, for some read several; a mask to be added last, for True is a number."""
    declared = (impl.adapter.conventions or Conventions()).mask_polarity
    choices = CHOICES["mask_polarity"]
    refusal: Exception | None = None
    for polarity in sorted(choices, key=lambda choice: choice != declared):
        try:
            if _average(impl.under(Conventions(polarity)), step, [1.0, 2.0, 4.0], [True, False, False]) == 1:
                return float(choices.index(polarity))
        except (ImplementationError, UnsatisfiedAssumption) as error:
            refusal = error
    if isinstance(refusal, UnsatisfiedAssumption):  # it takes no masks
        raise refusal
    return np.nan


def _alignment(impl: "Impl", step: str) -> float:
    """Where the only query stands between two keys: at the first, 0, or the last, 1."""
    if step == "mask":
        return float(impl.mask(1, 2)[0, 1])
    if step == "packed_attention.causal":
        nothing, V = np.zeros((1, 1, 1)), np.array([[[0.0]], [[2.0]]])
        return float(impl.packed_attention(nothing, np.zeros((2, 1, 1)), V, **lengths_of([0, 1], [0, 2]), causal=True).item())
    if step in OF_LAYERS:
        one = {f"W_{name}": np.eye(1) for name in "VO"} | {f"W_{name}": np.zeros((1, 1)) for name in "QK"}
        asked = (np.zeros((1, 1, 1)), np.array([[[0.0], [2.0]]])), {"h": 1, **one, **dict.fromkeys(BIASES), "causal": True}
        answer = impl.call(step.partition(".")[0], *asked[0], **asked[1])
        return float((answer["output"] if isinstance(answer, dict) else answer).item())
    n, m = _more_keys(impl)
    Q, K, own = np.zeros((1, 1, n, 1)), np.zeros((1, 1, m, 1)), np.arange(m) == m - n
    options, V = {
        "attention.causal": ({"causal": True}, (m - n + 1) * own),  # sees the first, or all up to this one
        "attention.window": ({"window": (0, 0)}, own),  # sees its own
        "attention.slopes": ({"slopes": np.array([64.0])}, own),  # and here next to nothing of the others
    }[step]
    return float(impl.attention(Q, K, impl.representable(V)[None, None, :, None], **options)[0, 0, 0, 0])


def _more_keys(impl: "Impl") -> tuple[int, int]:
    """How many queries and, of more, how many keys are asked about: 1 and 2, or the least of another domain that has such."""
    taken = [impl.domain.sizes(axis) if impl.domain else None for axis in ("n", "m")]
    n = 1 if taken[0] is None else max(min(taken[0]), 1)
    return n, n + 1 if taken[1] is None else next((size for size in taken[1] if size > n), n + 1)


def _masked_key(impl: "Impl", _: str) -> float:
    """What two queries get that attend to one value of 1 and not to the key beside it; NaN if NaN or ∞ in that key ever shows."""
    Q, V, row = np.ones((1, 1, 2, 1)), np.array([[[[1.0], [2.0]]]]), np.array([True, False])
    keys = (np.array([[[[0.0], [number]]]]) for number in (np.nan, np.inf, -np.inf))
    asked = [(K, mask) for K in keys for mask in (row[None], np.tile(row, (2, 1)), np.tile(row, (1, 1, 2, 1)))]
    got = np.concatenate([impl.attention(Q, K, V, mask).ravel() for K, mask in asked])
    return np.nan if np.isnan(got).any() else float(got[np.abs(got - 1).argmax()])


def _row_of_nothing(impl: "Impl", _: str) -> float:
    """What all probabilities of a fully masked row come to, were they as the first: of two scores, or of as many as it takes."""
    taken = impl.domain.sizes("m") if impl.domain else None
    m = 2 if taken is None else max(min(taken), 2)
    return float(m * impl.softmax(np.full((1, m), -np.inf))[0, 0])


def _outer_eps(impl: "Impl", step: str) -> float:
    return float(impl.call(step, np.array([[[1.0, -1.0]]]), gain=np.ones(2), bias=np.zeros(2), eps=1.0)[0, 0, 0])


# Subnormal numbers ----------------------------------------------------------------------------------------------------

WIDE = 34  # numbers: more than a vector of any processor holds, and two that are left over
HEAD = 64  # as wide as kernels want their heads, and its root is a power of two
DEEP = {"float64": 709.0, "float32": 88.0, "bfloat16": 88.0, "float16": 10.5}  # exp(−DEEP) is subnormal

Question = tuple[tuple[Any, ...], dict[str, Any], np.ndarray]  # arguments, and what comes of them where it is not 0


def _subnormal(impl: "Impl", step: str) -> float:
    """What is left of numbers that are subnormal, in an argument, on the way or in the result: 1, or 0 where one is flushed.

    They are asked for in rows, of code for whole vectors and of code for what is left over. But for an exponential nothing is
    rounded: it is half the smallest normal number, times 1 or with 0 added.
    """
    s, d = FORMATS[impl.dtype].smallest_normal / 2, WIDE
    args, kwargs, exact = _question(step, np.full(d, s), DEEP[impl.dtype])
    got = impl.call(step, *args, **kwargs)
    return float((got[exact != 0] / exact[exact != 0]).min())


def _question(step: str, s: np.ndarray, c: float) -> Question:
    d, nothing = len(s), np.zeros((1, 1, len(s)))
    scores = np.where(np.arange(d) == 0, 0.0, -c)
    match step:
        case "softmax":
            return (scores[None, None],), {}, np.exp(scores)[None, None] * (scores != 0)
        case "attention":  # the weights are subnormal, not their sum; and values are, under a weight of 1
            first = np.arange(HEAD) == 0
            Q, K = np.sqrt(HEAD) * first, scores[:, None] * first
            V = np.where(first, (scores != 0)[:, None], s[0])
            return (
                (Q[None, None, None], K[None, None], V[None, None]),
                {},
                np.where(first, (d - 1) * np.exp(-c), s[0])[None, None, None],
            )
        case "layer_norm":
            return (nothing,), _norm(s), s[None, None]
        case "residual_norm":
            return (nothing, nothing), _norm(s), s[None, None]
        case "embedding":
            return (np.zeros((1, 1), dtype=np.int64),), {"table": s[None, :16] / 4}, s[None, None, :16]
        case "feed_forward":
            weights = {"W_1": np.ones((d, 1)), "b_1": np.ones(1), "W_2": s[None], "b_2": 0 * s}
            return (nothing,), weights, s[None, None]
        case "output_projection":
            return (np.ones((1, 1, 1)),), {"W": s[None]}, s[None, None]
        case "multi_head":
            return (nothing, nothing), {"h": 2, **_heads(d), "W_O": np.eye(d), "b_V": s}, s[None, None]
        case "encoder_layer":
            return (nothing,), {"h": 2, "layer": _layer(d, norm_2=_norm(s))}, s[None, None]
        case "decoder_layer":
            layer = _layer(d, cross_attention=_heads(d), norm_3=_norm(s))
            return (nothing, nothing), {"h": 2, "layer": layer}, s[None, None]
        case _:
            tokens = np.zeros((1, 1), dtype=np.int64)
            return (tokens, tokens), {"h": 2, "parameters": _model(d) | {"b_out": s}}, s[None, None]


def _norm(bias: np.ndarray) -> dict[str, np.ndarray]:
    return {"gain": np.ones(len(bias)), "bias": bias}


def _heads(d: int) -> dict[str, np.ndarray]:
    return {f"W_{name}": np.zeros((d, d)) for name in "QKVO"} | {f"b_{name}": np.zeros(d) for name in "QKVO"}


def _layer(d: int, **others: Any) -> dict[str, Any]:
    """A layer of zeros, so that what it answers is the bias of its last norm."""
    feed_forward = {"W_1": np.zeros((d, 1)), "b_1": np.zeros(1), "W_2": np.zeros((1, d)), "b_2": np.zeros(d)}
    zeros = np.zeros(d)
    return {"self_attention": _heads(d), "norm_1": _norm(zeros), "feed_forward": feed_forward, "norm_2": _norm(zeros), **others}


def _model(vocab: int) -> dict[str, Any]:
    """A model of two features, all zeros but for its embeddings."""
    return {
        "source_embedding": np.eye(3, 2),
        "target_embedding": np.zeros((vocab, 2)),
        "encoder": [_layer(2)],
        "decoder": [_layer(2, cross_attention=_heads(2), norm_3=_norm(np.zeros(2)))],
        "W_out": np.zeros((2, vocab)),
    }


# What is outside of a step's domain -----------------------------------------------------------------------------------

WRAPS, COMPUTED = 1.0, 2.0  # besides REFUSED, 0


def _outside(impl: "Impl", step: str) -> float:
    """What becomes of the tokens −1 and 3 of a vocabulary of 3."""
    table = np.array([[1.0], [2.0], [4.0]])

    def row(token: int) -> float | None:
        """What is answered, None where it is refused."""
        asked = (np.array([[token]]),), {"table": table, "scale": False}
        return None if impl.refuses(step, *asked[0], **asked[1]) else float(impl.call(step, *asked[0], **asked[1]).item())

    below, beyond = row(-1), row(3)
    if beyond is None and below in (None, 4.0):
        return REFUSED if below is None else WRAPS
    return COMPUTED


def _odd(impl: "Impl", step: str) -> float:
    return REFUSED if impl.refuses(step, 2, 3) else 1.0


# All of them ----------------------------------------------------------------------------------------------------------

LOOKS = ("attention", "multi_head")  # steps that take a mask and values that can be told apart
OF_LAYERS = ("multi_head.causal", "multi_head_with_weights.causal")
PLACED = ("attention.causal", "attention.window", "attention.slopes")  # options that ask where the first query stands

PROBES: dict[str, Probe] = {
    "mask_polarity": Probe(LOOKS, _polarity, (0.0, 1.0, 2.0, 3.0)),
    "causal_alignment": Probe(("mask", "packed_attention.causal", *PLACED, *OF_LAYERS), _alignment, (0.0, 1.0)),
    "fully_masked_row": Probe(LOOKS, lambda impl, step: _average(impl, step, [1.0, 2.0, 6.0], [False] * 3), (0.0, np.nan, 3.0)),
    "fully_masked_softmax": Probe(("softmax",), _row_of_nothing, (0.0, np.nan, 1.0)),
    "eps": Probe(("layer_norm",), _outer_eps, (2**-0.5, 0.5)),
    "layout": Probe(
        ("positional_encoding",), lambda impl, _: float(impl.positional_encoding(2, 4)[1, 1]), (np.cos(1), np.sin(0.01))
    ),
    "non_finite_behind_mask": Probe(LOOKS, lambda impl, step: _average(impl, step, [1.0, np.nan], [True, False]), (np.nan, 1.0)),
    "subnormals": Probe(
        (
            "attention",
            "softmax",
            "embedding",
            "multi_head",
            "layer_norm",
            "residual_norm",
            "feed_forward",
            "output_projection",
            "encoder_layer",
            "decoder_layer",
            "transformer",
        ),
        _subnormal,
        (1.0, 0.0),
    ),
    "out_of_range_token": Probe(("embedding",), _outside, (REFUSED, WRAPS, COMPUTED)),
    "odd_d_model": Probe(("positional_encoding",), _odd, (REFUSED, 1.0)),
    "non_finite_masked_key": Probe(("attention",), _masked_key, (np.nan, 1.0)),
    "log_sum_exp_base": Probe(("log_sum_exp",), log_of_two, (np.log(2.0), 1.0)),
    "fully_masked_log_sum_exp": Probe(("log_sum_exp",), log_of_nothing, (0.0, 1.0, 2.0, 3.0)),
    "sequence_without_keys": Probe(("packed_attention", "paged_attention", "cached_attention"), without_keys, (0.0, np.nan, 2.0)),
    "corrupt_indices": Probe(("packed_attention", "paged_attention", "cached_attention"), impossible, (REFUSED, 1.0)),
}


def shown(impl: "Impl", name: str, step: str) -> tuple[str | None, float]:
    """The choice that a step is seen to follow, and its answer to the probe; None for an answer that fits no choice."""
    got = PROBES[name].ask(impl, step)
    return _choice(name, got), got


def _choice(name: str, got: float) -> str | None:
    answers = PROBES[name].answers
    fitting = [choice for choice, answer in zip(CHOICES[name], answers, strict=True) if _means(got, answer, answers)]
    return fitting[0] if fitting else None


def _means(got: float, answer: float, answers: tuple[float, ...]) -> bool:
    """Whether `got` is this answer, rounded: nearer to it than a quarter of the way to any other."""
    if np.isnan(got) or np.isnan(answer):
        return bool(np.isnan(got) and np.isnan(answer))
    others = [abs(other - answer) for other in answers if other != answer and not np.isnan(other)]
    return abs(got - answer) < min(others, default=1.0) / 4


class Settled(NamedTuple):
    """The conventions an implementation is held to, and the names of those that probes have found."""

    conventions: Conventions
    found: frozenset[str]
    unsteady: tuple[Exception, ...] = ()  # answers to probes that did not come again, each as a property raises it


def settle(impl: "Impl", declared: Conventions | None) -> Settled:
    """What is declared, and for what is left open what probes show; our own choice where they show nothing."""
    known = Conventions() if declared is None else declared
    shows: dict[str, str | None] = {}
    unsteady: list[Exception] = []
    for name in (name for name in CHOICES if getattr(known, name) is None):
        shows[name] = found(impl.under(known), name, unsteady)
        known = replace(known, **{name: shows[name] or getattr(OURS, name)})
    return Settled(known, frozenset(name for name, choice in shows.items() if choice), tuple(unsteady))


def found(impl: "Impl", name: str, unsteady: list[Exception] | None = None) -> str | None:
    """What the first step shows that shows anything, or a later one, if that is the choice that permits the others too.

    Every step is asked twice; where its second answer is another one, that counts, and `unsteady` is told.
    """
    seen, allows = [], CONVENTIONS[name].allows
    with record.apart():
        for step in filter(impl.offers, PROBES[name].steps):
            first, again = (_answer(impl, name, step) for _ in range(2))
            if unsteady is not None and not _same(first, again):
                unsteady.append(_difference(CONVENTIONS[name].what, first, again))
            if isinstance(again.got, float):
                seen.append(_choice(name, again.got))
            if allows is None and seen:
                break
    return allows if allows in seen else next(iter(seen), None)


class Answer(NamedTuple):
    """What a probe makes of what it recorded, or why there was nothing to record."""

    got: float | Exception
    recorded: list[np.ndarray]

    def __str__(self) -> str:
        return str(self.got) if not self.recorded or isinstance(self.got, Exception) else ", ".join(map(str, self.recorded))[:200]


def _answer(impl: "Impl", name: str, step: str) -> Answer:
    listening, recorded = impl.under(impl.conventions), []

    def attempt(*args: Any, **kwargs: Any) -> Any:
        recorded.append(impl.attempt(*args, **kwargs))
        return recorded[-1]

    vars(listening)["attempt"] = attempt
    try:
        return Answer(PROBES[name].ask(listening, step), recorded)
    except NO_ANSWER as error:
        return Answer(error, recorded)


def _same(one: Answer, other: Answer) -> bool:
    """Whether a question was answered alike, or not taken; in what words it was refused is not looked at."""
    if isinstance(one.got, Exception) or isinstance(other.got, Exception):
        return type(one.got) is type(other.got) or UNTAKEN in (type(one.got), type(other.got))
    numbers, others = ([np.array(each.got), *each.recorded] for each in (one, other))
    alike = (np.array_equal(a, b, equal_nan=a.dtype == np.float64) for a, b in zip(numbers, others, strict=False))
    return len(numbers) == len(others) and all(alike)


def _difference(what: str, first: Answer, again: Answer) -> Exception:
    kind = next((type(each.got) for each in (first, again) if isinstance(each.got, Exception)), ClaimBroken)
    return kind(f"{what}, asked for twice: {first}, then {again}")
