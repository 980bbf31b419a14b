"""The steps an implementation may offer, and the signature each must have.

One face for everybody: tensors with a leading batch axis, nested dicts of tensors for layers and whole models. What an
implementation lacks is UNSUPPORTED, never a failure.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

CHOICES = 'h, norm="post", activation="relu", eps=1e-5'
MULTI_HEAD = "X (b, n, d_model), M (b, m, d_model)"
MULTI_HEAD_WEIGHTS = "h, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O"
ATTENTION_BACKWARD = "dO (b, h, n, d_v), Q (b, h, n, d_k), K (b, h, m, d_k), V (b, h, m, d_v)"


class Sizes(NamedTuple):
    """The axes of one attention."""

    b: int
    h: int
    n: int
    m: int
    d_k: int
    d_v: int


@dataclass(frozen=True)
class Step:
    """One callable: its name, the article's step it belongs to, how it is called, what it must return."""

    name: str
    row: str  # a module of `reference` and `optimized`
    arguments: str
    returns: str
    kind: str = "float"  # what the result holds: float | bool | int | nested
    results: tuple[str, ...] = ()  # the names of several arrays that are returned, as a tuple in this order or as a dict

    @property
    def signature(self) -> str:
        """As printed by `veriformer list steps`."""
        return f"{self.name}({self.arguments}) -> {self.returns}"


@dataclass(frozen=True)
class Option:
    """An argument of a step that an implementation may offer or not: how it is given, its default, and what it does."""

    name: str
    given: str
    default: str
    formula: str


_ATTENTION_OPTIONS = [
    Option("causal", "bool", "False", "key j is hidden from query i where j > i, or j > i + m − n (causal_alignment)"),
    Option("scale", "float", "None: 1/√d_k", "s = scale · Q·Kᵀ"),
    Option("bias", "float, broadcastable to (b, h, n, m), finite or −∞", "None", "s + bias"),
    Option("grouped_heads", "K (b, g, m, d_k), V (b, g, m, d_v)", "g = h", "g divides h; query head i reads key head ⌊i·g/h⌋"),
    Option(
        "window",
        "(left, right), None on a side that is open",
        "None",
        "key j is hidden from query i where j < i − left or j > i + right; i + m − n for i at the bottom right",
    ),
    Option("softcap", "float above 0", "None", "c·tanh(s/c), before bias and mask"),
    Option("sinks", "float (h,)", "None", "exp(s_j) / (exp(sink) + Σ_k exp(s_k)): one more score in each row, whose value is 0"),
    Option("slopes", "float (h,)", "None", "s − slope·|i − j|; i + m − n for i at the bottom right (ALiBi)"),
    Option(
        "dropout_mask",
        "bool (b, h, n, m), True = kept, beside dropout_p (float)",
        "None",
        "P_ij / (1 − dropout_p) where True, 0 elsewhere; P: the weights",
    ),
]

_PACKED_CAUSAL = Option("causal", "bool", "False", "as of attention, within each sequence")
_LAYER_CAUSAL = Option("causal", "bool", "False", "as of attention, beside the mask: a key is seen by both")
_CAPACITY = Option("capacity", "int", "None: grows as it must", "how many tokens a row will have at most; one more is refused")
_WINDOW = Option("window", "int", "None", "a query sees the last `window` tokens of its row, its own among them")
_RING = Option("ring", "bool", "False", "position p lies in slot p mod capacity, in the place of position p − capacity")

OPTIONS: dict[str, dict[str, Option]] = {
    "attention": {option.name: option for option in _ATTENTION_OPTIONS},
    "packed_attention": {"causal": _PACKED_CAUSAL},
    "cached_attention": {"ring": _RING},
    "attention_cache": {"capacity": _CAPACITY, "window": _WINDOW},
    "multi_head": {"causal": _LAYER_CAUSAL},
    "multi_head_with_weights": {"causal": _LAYER_CAUSAL},
}
"""By step and name. An implementation offers those that are parameters of its function, and those it names in `options`."""

COMPANIONS = {"dropout_p": "dropout_mask"}
"""Arguments of attention that are given beside an option, and mean nothing without it."""


def option_name(step: str, option: str) -> str:
    """An option as an implementation names it in `options`: one of attention by its name, others with their step before it."""
    return option if step == "attention" else f"{step}.{option}"


def offered_options(parameters: Mapping[str, Collection[str]], named: Collection[str] = ()) -> frozenset[str]:
    """The options, as `option_name` has them, that are among the parameters of each step's function, and those that are `named`.

    Raises ValueError for a name that is no option.
    """
    known = {option_name(step, option): (step, option) for step, options in OPTIONS.items() for option in options}
    if unknown := [name for name in named if name not in known]:
        raise ValueError(f"options: expected some of {', '.join(known)}, got {unknown[0]!r}")
    return frozenset(name for name, (step, option) in known.items() if name in named or option in parameters.get(step, ()))


_ROWS = [
    Step("embedding", "embedding", "tokens (b, n), *, table (vocab, d_model), scale=True", "(b, n, d_model)"),
    Step("positional_encoding", "positional_encoding", "n, d_model, *, dtype", "(n, d_model)"),
    Step(
        "attention",
        "attention",
        "Q (b, h, n, d_k), K (b, h, m, d_k), V (b, h, m, d_v), mask=None, *, causal=False, scale=None, bias=None, window=None, "
        "softcap=None, sinks=None, slopes=None, dropout_mask=None, dropout_p=0.0",
        "(b, h, n, d_v)",
    ),
    Step("softmax", "softmax", "scores (..., n, m)", "(..., n, m)"),
    Step("mask", "mask", "n, m", "(n, m) bool, True = attend", "bool"),
    Step("split_heads", "multi_head", "X (b, n, d_model), h", "(b, h, n, d_k)"),
    Step("concat_heads", "multi_head", "heads (b, h, n, d_k)", "(b, n, d_model)"),
    Step(
        "multi_head",
        "multi_head",
        f"{MULTI_HEAD}, mask=None, *, causal=False, {MULTI_HEAD_WEIGHTS}",
        "(b, n, d_model)",
    ),
    Step("layer_norm", "residual_norm", "X (b, n, d_model), *, gain, bias, eps=1e-5", "(b, n, d_model)"),
    Step("residual_norm", "residual_norm", "X (b, n, d_model), Y (b, n, d_model), *, gain, bias, eps=1e-5", "(b, n, d_model)"),
    Step(
        "feed_forward",
        "feed_forward",
        'X (b, n, d_model), *, W_1 (d_model, d_ff), b_1 (d_ff,), W_2 (d_ff, d_model), b_2 (d_model,), activation="relu"',
        "(b, n, d_model)",
    ),
    Step("encoder_layer", "encoder", f"X (b, n, d_model), mask=None, *, layer, {CHOICES}", "(b, n, d_model)"),
    Step("encoder", "encoder", f"X (b, n, d_model), mask=None, *, layers, final_norm=None, {CHOICES}", "(b, n, d_model)"),
    Step(
        "decoder_layer",
        "decoder",
        f"X (b, n, d_model), M (b, m, d_model), mask=None, memory_mask=None, *, layer, {CHOICES}",
        "(b, n, d_model)",
    ),
    Step(
        "decoder",
        "decoder",
        f"X (b, n, d_model), M (b, m, d_model), mask=None, memory_mask=None, *, layers, final_norm=None, {CHOICES}",
        "(b, n, d_model)",
    ),
    Step("output_projection", "output_projection", "X (b, n, d_model), *, W (d_model, vocab), b (vocab,)=None", "(b, n, vocab)"),
    Step(
        "next_token",
        "output_projection",
        "X (b, n, d_model), *, W (d_model, vocab), b (vocab,)=None",
        "(b, n, vocab), rows sum to 1",
    ),
    Step(
        "transformer",
        "transformer",
        f"source (b, m), target (b, n), source_mask=None, target_mask=None, *, parameters, {CHOICES}, scale_embedding=True",
        "(b, n, vocab) logits",
    ),
    Step(
        "gradients",
        "transformer",
        f"source (b, m), target (b, n), *, parameters, direction (b, n, vocab), {CHOICES}, scale_embedding=True",
        "the gradient of sum(direction * logits) as nested dicts like parameters",
        "nested",
    ),
    Step(
        "softmax_backward",
        "softmax",
        "dP (..., n, m), scores (..., n, m)",
        "(..., n, m), the gradient of sum(dP * softmax(scores))",
    ),
    Step(
        "attention_backward",
        "attention",
        f"{ATTENTION_BACKWARD}, mask=None",
        "(dQ, dK, dV), the gradients of sum(dO * attention(Q, K, V, mask))",
        "nested",
        ("dQ", "dK", "dV"),
    ),
    Step(
        "attention_gradient",
        "attention",
        f"{ATTENTION_BACKWARD}, mask=None, *, of, passes=1",
        'that of dQ, dK, dV which `of` ("Q", "K" or "V") names, from the last of so many passes through one graph',
    ),
    Step(
        "layer_norm_backward",
        "residual_norm",
        "dY (b, n, d_model), X (b, n, d_model), *, gain, eps=1e-5",
        "(dX, dgain, dbias), the gradients of sum(dY * layer_norm(X))",
        "nested",
        ("dX", "dgain", "dbias"),
    ),
    Step(
        "feed_forward_backward",
        "feed_forward",
        'dY (b, n, d_model), X (b, n, d_model), *, W_1 (d_model, d_ff), b_1 (d_ff,), W_2 (d_ff, d_model), activation="relu"',
        "(dX, dW_1, db_1, dW_2, db_2), the gradients of sum(dY * feed_forward(X))",
        "nested",
        ("dX", "dW_1", "db_1", "dW_2", "db_2"),
    ),
    Step(
        "generation",
        "generation",
        f"source (b, m), source_mask=None, *, parameters, bos, eos, length, {CHOICES}, scale_embedding=True",
        "(b, length) int64, filled with `end` after a row's end",
        "int",
    ),
    Step(
        "kv_cache",
        "generation",
        f"source (b, m), source_mask=None, *, parameters, {CHOICES}, scale_embedding=True",
        "a cache: see properties.implementations.cached",
        "nested",
    ),
    # Beyond the article: what kernels of attention are asked for today.
    Step("log_sum_exp", "attention", "Q (b, h, n, d_k), K (b, h, m, d_k), mask=None", "(b, h, n), float32 or the dtype"),
    Step(
        "packed_attention",
        "attention",
        "Q (t, h, d_k), K (u, h, d_k), V (u, h, d_v), *, cu_seqlens_q (s+1,), cu_seqlens_k (s+1,), causal=False",
        "(t, h, d_v)",
    ),
    Step(
        "paged_attention",
        "attention",
        "Q (b, h, n, d_k), K_pages (p, page, h, d_k), V_pages (p, page, h, d_v), *, block_table (b, w), lengths (b,)",
        "(b, h, n, d_v)",
    ),
    Step(
        "cached_attention",
        "attention",
        "Q (b, h, n, d_k), K_cache (b, h, capacity, d_k), V_cache (b, h, capacity, d_v), *, lengths (b,), ring=False",
        "(b, h, n, d_v)",
    ),
    Step(
        "attention_cache",
        "attention",
        "K (b, h, m, d_k), V (b, h, m, d_v), *, capacity=None, window=None",
        "a cache that begins with these keys and values: see properties.implementations.cached",
        "nested",
    ),
    Step(
        "multi_head_with_weights",
        "multi_head",
        f"{MULTI_HEAD}, mask=None, *, causal=False, {MULTI_HEAD_WEIGHTS}",
        "(output, weights): (b, n, d_model) as multi_head, and (b, h, n, m), what the values of each head were weighted with",
        "nested",
        ("output", "weights"),
    ),
]

STEPS: dict[str, Step] = {step.name: step for step in _ROWS}

BEYOND = frozenset({"log_sum_exp", "packed_attention", "paged_attention", "cached_attention"})
"""The steps of a single attention that the article does not have."""


def parameters(step: str) -> list[str]:
    """The names of all arguments of `step`, from its signature."""
    arguments = re.sub(r"\([^)]*\)", "", STEPS[step].arguments)
    return [name for part in arguments.split(",") if (name := part.split("=")[0].strip()) not in ("", "*")]


def positional_names(step: str, count: int) -> list[str]:
    """The names of the first arguments of `step`, from its signature, for a message about one of them."""
    names = parameters(step) if step in STEPS else []
    return [*names, *(f"[{i}]" for i in range(len(names), count))][:count]


def expected_shapes(step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays that `step` must return for these arguments, by name: each gradient has that of its argument."""
    match step:
        case "attention_backward":
            return dict(zip(STEPS[step].results, (np.shape(array) for array in args[1:4]), strict=True))
        case "multi_head_with_weights":
            X, M = args[:2]
            output = (*np.shape(X)[:-1], kwargs["W_O"].shape[1])
            return {"output": output, "weights": (len(X), kwargs["h"], np.shape(X)[1], np.shape(M)[1])}
        case "layer_norm_backward":
            return {"dX": np.shape(args[1]), "dgain": np.shape(kwargs["gain"]), "dbias": np.shape(kwargs["gain"])}
        case "feed_forward_backward":
            biases = {"db_2": kwargs["W_2"].shape[1:]}
            return {"dX": np.shape(args[1]), **{f"d{name}": kwargs[name].shape for name in ("W_1", "b_1", "W_2")}, **biases}
        case _:
            raise KeyError(step)


def expected_shape(step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The shape `step` must return for these (float64 numpy) arguments."""
    first = args[0]
    match step:
        case "embedding":
            return (*first.shape, kwargs["table"].shape[1])
        case "positional_encoding" | "mask":
            return (args[0], args[1])
        case "attention" | "packed_attention" | "paged_attention" | "cached_attention":
            return (*first.shape[:-1], args[2].shape[-1])
        case "log_sum_exp":
            return tuple(first.shape[:-1])
        case "attention_gradient":
            return np.shape(args["_QKV".index(kwargs["of"])])
        case "split_heads":
            b, n, d_model = first.shape
            return (b, args[1], n, d_model // args[1])
        case "concat_heads":
            b, h, n, d_k = first.shape
            return (b, n, h * d_k)
        case "multi_head":
            return (*first.shape[:-1], kwargs["W_O"].shape[1])
        case "output_projection" | "next_token":
            return (*first.shape[:-1], kwargs["W"].shape[1])
        case "transformer":
            return (*args[1].shape, kwargs["parameters"]["target_embedding"].shape[0])
        case "generation":
            return (len(first), kwargs["length"])
        case _:
            return tuple(np.shape(first))
