"""The whole: the encoder reads the source, the decoder writes the target."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from properties.assertions import assert_at_most, assert_identical, assert_rounding_only
from properties.claims import claim
from properties.error_budget.budgets import sum_bound
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.inputs.parameters import SEEDS, Call, Nested, dyadic, masks, sequences, transformer_calls
from properties.verdicts import ClaimBroken, record


def vocabularies(call: Call) -> tuple[int, int]:
    """How many tokens the source's and the target's vocabulary have."""
    parameters = call.kwargs["parameters"]
    return len(parameters["source_embedding"]), len(parameters["target_embedding"])


@claim("T1", needs="transformer")
@given(transformer_calls(most_layers=2))
def test_transformer_agrees_with_the_oracle(impl, call):
    """From two sequences of token ids to logits (n, vocab): every choice, padding, tied or not; rounding is the only difference."""
    got = impl.transformer(*call.args, **call.kwargs)

    assert_rounding_only(impl, "transformer", got, *call.args, **call.kwargs)


@claim("T1", needs="transformer")
@given(transformer_calls(padded=False), SEEDS)
def test_the_source_moves_the_target_as_the_oracle_predicts(impl, call, seed):
    """Another source gives other logits, and the first source asked again gives the first answer, bit for bit."""
    source, target, *_ = call.args
    other = np.random.default_rng(seed).integers(0, vocabularies(call)[0], source.shape)

    first = impl.transformer(source, target, **call.kwargs)
    assert_rounding_only(impl, "transformer", impl.transformer(other, target, **call.kwargs), other, target, **call.kwargs)
    assert_identical(impl.transformer(source, target, **call.kwargs), first, "the same question asked again")


@claim("T1", needs="transformer")
@given(transformer_calls(padded=False, tied=True))
def test_a_tied_output_matrix_is_the_target_embedding_transposed(impl, call):
    """Tied, the output matrix is target_embeddingᵀ: handed over explicitly it gives the same logits."""
    parameters = call.kwargs["parameters"]
    untied = call.but(parameters={**parameters, "W_out": parameters["target_embedding"].T.copy()})

    got = impl.transformer(*untied.args, **untied.kwargs)

    assert_rounding_only(impl, "transformer", got, *call.args, **call.kwargs)


@claim("O2", needs="transformer")
@given(transformer_calls(), st.integers(0, 3), SEEDS)
def test_future_target_tokens_do_not_influence_the_logits(impl, call, i, seed):
    """Row i scores token i + 1 from target tokens 0 … i: other later tokens leave rows 0 … i bit-identical."""
    source, target, *real = call.args
    i %= target.shape[1]
    other = target.copy()
    other[:, i + 1 :] = np.random.default_rng(seed).integers(0, vocabularies(call)[1], other[:, i + 1 :].shape)

    before, after = (impl.transformer(source, tokens, *real, **call.kwargs) for tokens in (target, other))

    assert_identical(after[:, : i + 1], before[:, : i + 1], f"rows up to {i}, after later tokens changed")


@claim("O2", needs="transformer")
@given(transformer_calls(padded=False), SEEDS)
def test_all_earlier_target_tokens_influence_the_logits(impl, call, seed):
    """Another first token moves every row as the oracle predicts."""
    source, target, *_ = call.args
    other = target.copy()
    other[:, 0] = np.random.default_rng(seed).integers(0, vocabularies(call)[1], len(other))

    got = impl.transformer(source, other, **call.kwargs)

    assert_rounding_only(impl, "transformer", got, source, other, **call.kwargs)


@claim("T3", needs="transformer")
@given(transformer_calls(padded=False))
def test_logits_of_one_sequence_equal_its_row_of_the_batch(impl, call):
    """Each sequence of a batch, run alone or with its companions in another order, is judged as the same sequence."""
    source, target, *_ = call.args

    alone = [impl.transformer(source[i : i + 1], target[i : i + 1], **call.kwargs) for i in range(len(source))]
    assert_rounding_only(impl, "transformer", np.concatenate(alone), source, target, **call.kwargs)
    backwards = impl.transformer(np.flip(source, 0).copy(), np.flip(target, 0).copy(), **call.kwargs)
    assert_rounding_only(impl, "transformer", backwards[::-1], source, target, **call.kwargs)


@claim("T3", needs="transformer")
@given(st.data(), transformer_calls(padded=False), st.integers(0, 3), st.integers(0, 3))
def test_logits_do_not_depend_on_the_amount_of_padding(impl, data, call, more_source, more_target):
    """Filled up to a greater length with any tokens that are not real, the real rows are judged as without the filling."""
    source, target, *_ = call.args
    source_vocab, vocab = vocabularies(call)
    (b, m), n = source.shape, target.shape[1]
    filled_source = np.concatenate([source, data.draw(sequences(b, more_source, source_vocab))], axis=1)
    filled_target = np.concatenate([target, data.draw(sequences(b, more_target, vocab))], axis=1)
    real = (np.arange(m + more_source) < m, np.arange(n + more_target) < n)
    source_mask, target_mask = (np.repeat(row[None], b, axis=0) for row in real)

    got = impl.transformer(filled_source, filled_target, source_mask, target_mask, **call.kwargs)

    assert_rounding_only(impl, "transformer", got[:, :n], source, target, **call.kwargs)


@claim("T3", needs="transformer")
@given(st.data(), transformer_calls(padded=False), SEEDS)
def test_padding_tokens_do_not_influence_real_tokens(impl, data, call, seed):
    """Which token fills up the length makes no difference: the rows of real tokens are bit-identical."""
    source, target, *_ = call.args
    rng = np.random.default_rng(seed)
    source_mask, target_mask = data.draw(masks(source.shape)), data.draw(masks(target.shape))
    target_mask[:, 0] = True  # the start token; a first token that is none would leave the row nothing to look at
    other = [
        np.where(real, tokens, rng.integers(0, vocab, tokens.shape))
        for tokens, real, vocab in zip((source, target), (source_mask, target_mask), vocabularies(call), strict=True)
    ]

    before = impl.transformer(source, target, source_mask, target_mask, **call.kwargs)
    after = impl.transformer(*other, source_mask, target_mask, **call.kwargs)

    assert_identical(after[target_mask], before[target_mask], "rows of real tokens after the filling changed")


# Gradients: claim T2 --------------------------------------------------------------------------------------------------

PRECISE = ("float64", "float32")  # what is 0 over the reals is told from what is small only where there are digits to tell it by


def named(nested: Any, path: str = "") -> dict[str, np.ndarray]:
    """Every array of nested dicts and lists under its dotted name."""
    if nested is None:
        return {}
    if not isinstance(nested, (dict, list, tuple)):
        return {path: np.asarray(nested)}
    items = nested.items() if isinstance(nested, dict) else enumerate(nested)
    return {name: array for key, item in items for name, array in named(item, f"{path}.{key}" if path else str(key)).items()}


@st.composite
def generic_calls(draw: st.DrawFn, *, source_tokens: int = 3, may_be_tied: bool = False, may_be_level: bool = False) -> Call:
    """A model none of whose numbers is special: two tokens more in each vocabulary than occur, smooth activation, no padding.

    A tied one learns its table from both ends, so that no token of it is absent. If it may be level, the first token of a
    sequence may have equal features once its position is added: a row without variance, where a norm has no root to divide by.
    """
    rng = np.random.default_rng(draw(st.integers(2, 2**16)))
    h, d_model, d_ff, b, n = draw(st.sampled_from((1, 2))), 4, draw(st.integers(3, 6)), 2, 3

    def some(*shape: int) -> np.ndarray:
        return (rng.integers(8, 64, shape) * rng.choice((-1, 1), shape)) / 64  # at least 1/8: nothing happens to be zero

    def heads() -> Nested:
        return {f"W_{k}": some(d_model, d_model) for k in "QKVO"} | {f"b_{k}": some(d_model) for k in "QKVO"}

    def norm() -> Nested:
        return {"gain": 1 + some(d_model) / 2, "bias": some(d_model)}

    def forward() -> Nested:
        return {"W_1": some(d_model, d_ff), "b_1": some(d_ff), "W_2": some(d_ff, d_model), "b_2": some(d_model)}

    def layer(*sublayers: str) -> Nested:
        return {name: heads() for name in sublayers} | {f"norm_{i + 1}": norm() for i in range(len(sublayers) + 1)}

    parameters = {
        "source_embedding": some(6, d_model),
        "target_embedding": some(5, d_model),
        "encoder": [layer("self_attention") | {"feed_forward": forward()}],
        "decoder": [layer("self_attention", "cross_attention") | {"feed_forward": forward()}],
        "W_out": None if may_be_tied and draw(st.booleans()) else some(d_model, 5),
        "b_out": some(5),
        "encoder_norm": norm(),
        "decoder_norm": norm(),
    }
    choices = {"h": h, "norm": draw(st.sampled_from(("post", "pre"))), "activation": "gelu"}
    source, target = rng.integers(0, 4, (b, source_tokens)), rng.integers(0, 3, (b, n))
    if may_be_level and draw(st.booleans()):
        for table, tokens in ((parameters["source_embedding"], source), (parameters["target_embedding"], target)):
            table[tokens[0, 0]] = (some(1) - oracle("positional_encoding", 1, d_model)[0]) / np.sqrt(d_model)
    return Call((source, target), {"parameters": parameters, **choices, "direction": some(b, n, 5)})


def rounding_of(gradients: dict[str, np.ndarray], impl: Impl) -> float:
    """How far from 0 a gradient may be that is 0 over the reals: a long sum of terms as large as the largest gradient."""
    return sum_bound(2**10, impl, max(np.abs(g).max() for g in gradients.values()))


def unreachable(name: str, call: Call) -> bool:
    """Whether mathematics gives this parameter a gradient of 0: key biases always; queries and keys where there is one key."""
    one_token = call.args[0].shape[1] == 1
    return name.endswith("b_K") or (
        one_token and name.rpartition(".")[2] in ("W_Q", "W_K", "b_Q") and ("encoder" in name or "cross_attention" in name)
    )


@claim("T2", needs=("transformer", "gradients"), dtypes=PRECISE)
@given(generic_calls())
def test_key_biases_and_absent_tokens_have_no_gradient(impl, call):
    """Refuted: "all the matrices can be learned". A key bias shifts all scores of a row alike, so its gradient is 0."""
    gradients = named(impl.gradients(*call.args, **call.kwargs))
    rounding = rounding_of(gradients, impl)

    for name in (name for name in gradients if name.endswith("b_K")):
        assert_at_most(np.abs(gradients[name]).max(), rounding, f"gradient of {name}")
        record.counterexample(f"{name} has gradient 0 (largest found {np.abs(gradients[name]).max():.1e}): it cannot be learned")
    for name, tokens in (("source_embedding", call.args[0]), ("target_embedding", call.args[1])):
        absent = np.setdiff1d(np.arange(len(gradients[name])), tokens)
        assert_identical(gradients[name][absent], np.zeros_like(gradients[name][absent]), f"{name} of absent tokens")


@claim("T2", needs=("transformer", "gradients"), dtypes=PRECISE)
@given(generic_calls(source_tokens=1))
def test_queries_and_keys_have_no_gradient_with_a_single_key(impl, call):
    """Refuted again where the source is one token: its weight is 1 whatever W_Q and W_K say."""
    gradients = named(impl.gradients(*call.args, **call.kwargs))
    rounding = rounding_of(gradients, impl)

    for name in (name for name in gradients if unreachable(name, call)):
        assert_at_most(np.abs(gradients[name]).max(), rounding, f"gradient of {name}")


@claim("T2", needs=("transformer", "gradients"), dtypes=PRECISE)
@given(generic_calls())
def test_dead_units_have_no_gradient(impl, call):
    """Refuted once more: the weights into and out of a ReLU that is never active get a gradient of exactly 0."""
    encoder = call.kwargs["parameters"]["encoder"][0]
    b_1 = encoder["feed_forward"]["b_1"].copy()
    b_1[0] = -(2.0**10)
    layer = {**encoder, "feed_forward": {**encoder["feed_forward"], "b_1": b_1}}
    dead = call.but(parameters={**call.kwargs["parameters"], "encoder": [layer]}, activation="relu")

    got = named(impl.gradients(*dead.args, **dead.kwargs))

    of_the_unit = np.concatenate([got[f"encoder.0.feed_forward.{name}"].T[0].ravel() for name in ("W_1", "b_1")])
    assert_identical(of_the_unit, np.zeros_like(of_the_unit), "gradients into the dead unit")
    out_of_it = got["encoder.0.feed_forward.W_2"][0]
    assert_identical(out_of_it, np.zeros_like(out_of_it), "gradients out of the dead unit")


@claim("T2", needs=("transformer", "gradients"), dtypes=PRECISE)
@given(generic_calls())
def test_every_other_parameter_has_a_gradient(impl, call):
    """Corrected: every parameter but these exceptions gets a gradient that is not 0; so does each token that occurs."""
    gradients = named(impl.gradients(*call.args, **call.kwargs))
    rounding = rounding_of(gradients, "float64")  # a missing gradient is exactly 0
    missing = set(named(call.kwargs["parameters"])) - set(gradients)
    if missing:
        raise ClaimBroken(f"no gradient at all for {sorted(missing)}")

    for name, gradient in gradients.items():
        if not unreachable(name, call):
            assert_at_most(rounding, np.abs(gradient).max(), f"rounding, as against the gradient of {name}")
    for name, tokens in (("source_embedding", call.args[0]), ("target_embedding", call.args[1])):
        for token in np.unique(tokens):
            assert_at_most(rounding, np.abs(gradients[name][token]).max(), f"rounding, as against the gradient of {name}[{token}]")


def slope(loss: Callable[[float], float], rounding: float) -> tuple[float, float]:
    """The slope of `loss` at 0, each value of which may be off by `rounding`; and how far the slope may be off.

    By central differences over a step and over half of it (Richardson: the error of second order is gone). Where a row is level,
    the loss bends within 2^-13, and only a smaller step knows its slope.
    """
    best, best_off = 0.0, np.inf
    for bits in (13, 17, 21):
        coarse, fine = ((loss(t) - loss(-t)) / (2 * t) for t in (2.0**-bits, 2.0 ** -(bits + 1)))
        off = abs(fine - coarse) + rounding * 2.0 ** (bits + 1)
        if off < best_off:
            best, best_off = fine + (fine - coarse) / 3, off
        if abs(fine - coarse) <= abs(fine) * 2.0**-10:
            break
    return best, best_off


def assert_gradients_say_how_the_oracle_moves(impl, call: Call, *steps: dict[str, np.ndarray]) -> None:
    """Along each step of the parameters, ⟨gradient, step⟩ is the slope that the oracle's own logits have there."""
    direction, choices = call.kwargs["direction"], {k: v for k, v in call.kwargs.items() if k not in ("direction", "parameters")}
    gradients = named(impl.gradients(*call.args, **call.kwargs))

    def moved(nested: Any, step: dict[str, np.ndarray], path: str, t: float) -> Any:
        if isinstance(nested, dict):
            return {key: moved(item, step, f"{path}.{key}" if path else key, t) for key, item in nested.items()}
        if isinstance(nested, list):
            return [moved(item, step, f"{path}.{i}", t) for i, item in enumerate(nested)]
        return None if nested is None else nested + t * step[path]

    for step in steps:

        def loss(t: float, step: dict[str, np.ndarray] = step) -> float:
            parameters = moved(call.kwargs["parameters"], step, "", t)
            return float((direction * oracle("transformer", *call.args, parameters=parameters, **choices)).sum())

        exact, off = slope(loss, sum_bound(2**10, "float64", np.abs(direction).sum()))
        got = sum(float((gradients[name] * step[name]).sum()) for name in step)
        size = sum(float(np.abs(gradients[name] * step[name]).sum()) for name in step)
        allowed = off + sum_bound(2**10, impl.dtype, size)
        assert_at_most(abs(got - exact), allowed, f"|⟨gradient, direction⟩ − slope| for targets of shape {call.args[1].shape}")


@claim("T2", needs=("transformer", "gradients"), dtypes=PRECISE)
@given(generic_calls(may_be_tied=True, may_be_level=True), SEEDS)
def test_gradients_agree_with_differences_of_the_oracle(impl, call, seed):
    """Along any direction of the parameters, ⟨gradient, direction⟩ is the slope that the oracle's own logits have there."""
    weights = named(call.kwargs["parameters"])
    step = {name: dyadic(2 + seed + i, array.shape) for i, (name, array) in enumerate(weights.items())}

    assert_gradients_say_how_the_oracle_moves(impl, call, step)
