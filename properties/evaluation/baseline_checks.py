"""What others do, measured beside the suite: normal inputs, and a tolerance from a table or a multiple of a baseline's error.

The only file besides `budgets.py` that compares within a tolerance: none is chosen here, they are the defaults that the field uses.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from properties.evaluation.detection.fault import Fault
from properties.implementations.impl import DTYPES, Impl
from properties.implementations.oracle import oracle
from properties.implementations.recomputed import seen
from properties.steps import STEPS
from properties.verdicts import ImplementationCrash, ImplementationError

SEEDS = range(3)
FOOLED_BY = (" replaced ", "does not hold what it gives when it is read")
"""Errors of ours that a comparison does not make: it is itself what was replaced, and what it reads is right by then."""
b, h, n, d_model, d_ff, vocab = 2, 4, 12, 32, 64, 20  # as in many a test: one length for all, two sequences

Case = tuple[str, tuple[Any, ...], dict[str, Any]]
Check = Callable[[np.ndarray, np.ndarray, np.ndarray, str], bool]


def caught_by(check: Check, fault: Fault) -> bool:
    """Whether a test of the step that the fault offers first, on normal inputs of three seeds, would have noticed it."""
    faulty, right = (Impl(fault.implementation(wrong=wrong), fault.dtype) for wrong in (True, False))
    return any(_noticed(check, faulty, right, *case) for seed in SEEDS for case in normal_cases(fault.steps[0], seed))


def by_assert_close(got: np.ndarray, exact: np.ndarray, baseline: np.ndarray, dtype: str) -> bool:  # noqa: ARG001 (one of two)
    """`torch.testing.assert_close` with its defaults for the dtype."""
    in_dtype = [torch.from_numpy(np.asarray(values)).to(DTYPES[dtype]) for values in (got, exact)]
    try:
        torch.testing.assert_close(*in_dtype)
    except AssertionError:
        return False
    return True


def by_twice_the_baseline(got: np.ndarray, exact: np.ndarray, baseline: np.ndarray, dtype: str) -> bool:  # noqa: ARG001
    """flash-attention's rule: at most twice the largest error that a plain implementation in the same dtype makes."""
    return bool(np.abs(got - exact).max() <= 2 * np.abs(baseline - exact).max())


def _noticed(check: Check, faulty: Impl, right: Impl, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        got, baseline = (_answer(impl, step, args, kwargs) for impl in (faulty, right))
    except ImplementationCrash:
        return True
    except ImplementationError as error:
        return not any(words in str(error) for words in FOOLED_BY)
    exact = _truth(step, args, kwargs)
    if exact is None:
        double = Impl(right.adapter, "float64")
        exact = _answer(double, step, args, kwargs)
    return not check(got, exact, baseline, faulty.dtype)


def _answer(impl: Impl, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> np.ndarray:
    answer = impl.call(step, *args, **kwargs)
    if step == "kv_cache":
        rows = [logits if logits.ndim == 3 else logits[:, None] for logits, _ in answer["results"]]
        return np.concatenate(rows, axis=1)
    if step == "attention_cache":
        return np.concatenate([heads for heads, _ in answer["results"]], axis=2)
    if STEPS[step].kind == "nested":
        return np.concatenate([np.ravel(each) for each in _flat(answer)])
    return np.asarray(answer, dtype=np.float64)


def _truth(step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> np.ndarray | None:
    """The oracle's answer; None for a gradient, which the oracle does not give."""
    if step == "gradients":
        return None
    if step == "kv_cache":
        given = {name: value for name, value in kwargs.items() if name != "program"}
        tokens = np.concatenate([entry[2].reshape(b, -1) for entry in kwargs["program"]], axis=1)
        return oracle("transformer", args[0], tokens, **given)
    if step == "attention_cache":
        Q, K, V = (np.concatenate(parts, axis=2) for parts in zip(*(entry[2:] for entry in kwargs["program"]), strict=True))
        return oracle("attention", Q, K, V, seen(Q.shape[2], None))
    exact = oracle(step, *args, **kwargs)
    return np.concatenate([np.ravel(each) for each in exact.values()]) if isinstance(exact, dict) else np.asarray(exact, np.float64)


def _flat(nested: Any) -> list[Any]:
    if isinstance(nested, dict):
        return [item for key in nested for item in _flat(nested[key])]
    if isinstance(nested, list):
        return [item for each in nested for item in _flat(each)]
    return [] if nested is None else [np.asarray(nested)]


def normal_cases(step: str, seed: int) -> list[Case]:
    """Calls of a step, or of `step.option`, as a unit test makes them.

    Numbers are from a normal distribution; there is no mask or a causal one, and no padding.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float16).astype(np.float64)  # few bits: the same number in every dtype but one

    def matrix(rows: int, columns: int) -> np.ndarray:
        return _few_bits(rng.standard_normal((rows, columns)) / np.sqrt(rows))

    X = _few_bits(normal(b, n, d_model))
    causal = np.tril(np.ones((n, n), dtype=bool))
    heads = {f"W_{k}": matrix(d_model, d_model) for k in "QKVO"} | {f"b_{k}": np.zeros(d_model) for k in "QKVO"}
    norm = {"gain": np.ones(d_model), "bias": np.zeros(d_model)}
    forward = {"W_1": matrix(d_model, d_ff), "b_1": np.zeros(d_ff), "W_2": matrix(d_ff, d_model), "b_2": np.zeros(d_model)}
    layer = {"self_attention": heads, "cross_attention": heads, "feed_forward": forward} | {f"norm_{i}": norm for i in (1, 2, 3)}
    encoder_layer = {name: layer[name] for name in ("self_attention", "norm_1", "feed_forward", "norm_2")}
    tokens = rng.integers(0, vocab, (b, n))
    parameters = {
        "source_embedding": matrix(vocab, d_model),
        "target_embedding": matrix(vocab, d_model),
        "encoder": [encoder_layer, encoder_layer],
        "decoder": [layer, layer],
        "W_out": None,
        "b_out": None,
        "encoder_norm": norm,
        "decoder_norm": norm,
    }
    whole = {"parameters": parameters, "h": h}
    Q, K, V = (_few_bits(normal(b, h, n, d_model // h)) for _ in range(3))
    prompt = [[0, "prefill", tokens[:, : n // 2]], *([0, "step", tokens[:, i]] for i in range(n // 2, n))]
    chunks = [slice(n // 2), *(slice(i, i + 1) for i in range(n // 2, n))]
    calls: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
        "softmax": [((_few_bits(normal(b, n, n)),), {})],
        "attention": [((Q, K, V), {}), ((Q, K, V, causal), {})],
        **{f"attention.{name}": [((Q, K, V), options)] for name, options in _usual_options(h, n).items()},
        "attention.grouped_heads": [((Q, K[:, : h // 2], V[:, : h // 2]), {})],
        "softmax_backward": [((Q[0], Q[1]), {})],
        "attention_backward": [((V, Q, K, V), {}), ((V, Q, K, V, causal), {})],
        "attention_gradient": [((V, Q, K, V), {"of": of}) for of in ("Q", "K", "V")],
        "layer_norm_backward": [((X[:, ::-1].copy(), X), {"gain": norm["gain"]})],
        "feed_forward_backward": [
            ((X[:, ::-1].copy(), X), {**{name: forward[name] for name in ("W_1", "b_1", "W_2")}, "activation": activation})
            for activation in ("relu", "gelu")
        ],
        "mask": [((n, n), {})],
        "split_heads": [((X, h), {})],
        "multi_head": [((X, X), {"h": h, **heads}), ((X, X, causal), {"h": h, **heads})],
        "multi_head.causal": [((X, X), {"h": h, **heads, "causal": True})],
        "multi_head_with_weights": [((X, X), {"h": h, **heads}), ((X, X, causal), {"h": h, **heads})],
        "multi_head_with_weights.causal": [((X, X), {"h": h, **heads, "causal": True})],
        "layer_norm": [((X,), norm)],
        "residual_norm": [((X, X[:, ::-1].copy()), norm)],
        "feed_forward": [((X,), {**forward, "activation": activation}) for activation in ("relu", "gelu")],
        "encoder_layer": [((X,), {"layer": encoder_layer, "h": h})],
        "encoder": [((X,), {"layers": [encoder_layer, encoder_layer], "final_norm": norm, "h": h})],
        "decoder_layer": [((X, X), {"layer": layer, "h": h})],
        "positional_encoding": [((n, d_model), {})],
        "embedding": [((tokens,), {"table": parameters["target_embedding"]})],
        "next_token": [((X,), {"W": matrix(d_model, vocab)})],
        "transformer": [((tokens, tokens[:, ::-1].copy()), whole)],
        "generation": [((tokens,), {**whole, "bos": 1, "eos": 0, "length": 6})],
        "kv_cache": [((tokens,), {**whole, "program": prompt})],
        "log_sum_exp": [((Q, K), {}), ((Q, K, causal), {})],
        "packed_attention": [
            (tuple(X.swapaxes(1, 2).reshape(b * n, h, -1) for X in (Q, K, V)), _packed(b, n) | options)
            for options in ({}, {"causal": True})
        ],
        "paged_attention": [((Q[:, :, -1:], *(_paged(X) for X in (K, V))), _table(rng))],
        "attention_cache": [
            ((K[:, :, :0], V[:, :, :0]), {"program": [[0, "attend", *(X[:, :, part] for X in (Q, K, V))] for part in chunks]})
        ],
        "cached_attention": [((Q[:, :, -1:], K, V), {"lengths": np.full(b, n), **options}) for options in ({}, {"ring": True})],
        "gradients": [((tokens, tokens[:, ::-1].copy()), {**whole, "direction": _few_bits(normal(b, n, vocab))})],
    }
    return [(step.partition(".")[0], args, kwargs) for args, kwargs in calls[step]]


def _usual_options(heads: int, length: int) -> dict[str, dict[str, Any]]:
    """Each option of attention with a usual value."""
    causal = np.tril(np.ones((length, length), dtype=bool))
    return {
        "causal": {"causal": True},
        "scale": {"scale": 0.25},
        "bias": {"bias": np.where(causal, 0.0, -np.inf)},
        "window": {"window": (4, 0)},
        "softcap": {"softcap": 50.0},
        "sinks": {"sinks": np.zeros(heads)},
        "slopes": {"slopes": 2.0 ** (-8.0 / heads * np.arange(1, heads + 1))},
        "dropout_mask": {"dropout_mask": np.random.default_rng(0).random((b, heads, length, length)) < 0.9, "dropout_p": 0.1},
    }


def _few_bits(values: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16: the same numbers in every dtype."""
    return torch.from_numpy(values).to(torch.bfloat16).to(torch.float64).numpy()


PAGE = 4  # tokens, of which n are a multiple


def _packed(b: int, n: int) -> dict[str, np.ndarray]:
    """Sequences of one length."""
    return dict.fromkeys(("cu_seqlens_q", "cu_seqlens_k"), np.arange(b + 1) * n)


def _paged(X: np.ndarray) -> np.ndarray:
    """(b, h, n, d) in pages, one sequence after another."""
    return X.swapaxes(1, 2).reshape(-1, PAGE, h, X.shape[-1])


def _table(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Those pages in their order, and lengths that fill them but for the last few slots."""
    return {"block_table": np.arange(b * n // PAGE).reshape(b, -1), "lengths": n - rng.integers(0, PAGE, b)}
