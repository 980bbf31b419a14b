"""The oracle's backward against its own forward, by complex steps: every entry of every gradient, to the last digits.

    f(x + i·h) = f(x) + i·h·f′(x) + O(h²)   ⇒   f′(x) = Im f(x + i·h) / h

No two numbers of about the same size are subtracted, so h may be as small as 10⁻³⁰ and the derivative has float64's full accuracy
(Squire & Trapp 1998). The oracle's forward runs on complex numbers as it stands, but for two places:

* the error function of `math` takes real numbers: SciPy's takes its place;
* max, and max(0, ·), compare complex numbers by their real parts and ties by the imaginary ones. A softmax does not care which of
  equal scores is subtracted. Of max(0, ·) at 0 the step sees the slope of one side: inputs here keep away from 0.

    python -m properties.evaluation.derivatives
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import erf

import reference.feed_forward
from properties.implementations.oracle_parameters import decoder_layer_parameters, encoder_layer_parameters, transformer_parameters
from properties.implementations.shapes import shapes_unchecked
from properties.implementations.weights import nested
from reference.attention import attention
from reference.backward.attention import attention_backward
from reference.backward.decoder import decoder_layer_backward
from reference.backward.embedding import embedding_backward
from reference.backward.encoder import encoder_layer_backward
from reference.backward.feed_forward import feed_forward_backward
from reference.backward.multi_head import multi_head_backward
from reference.backward.output_projection import next_token_backward, output_projection_backward
from reference.backward.residual_norm import layer_norm_backward
from reference.backward.softmax import softmax_backward
from reference.backward.transformer import transformer_backward
from reference.decoder import decoder_layer
from reference.embedding import embedding
from reference.encoder import encoder_layer
from reference.feed_forward import feed_forward
from reference.initialisation import initialise
from reference.multi_head import multi_head
from reference.output_projection import next_token, output_projection
from reference.parameters import Architecture, FeedForwardParameters, MultiHeadParameters, NormParameters, TransformerParameters
from reference.residual_norm import layer_norm
from reference.softmax import softmax
from reference.transformer import transformer

STEP = 1e-30
SEED = 7

Named = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One step at one place: its forward of named arrays, and its backward of a gradient and the same arrays."""

    step: str
    label: str
    arrays: Named
    forward: Callable[..., np.ndarray]
    backward: Callable[..., Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Checked:
    """How one case came out. An error is relative to the largest entry of its gradient, or of dY where that is larger."""

    case: Case
    entries: int
    worst: float


def checked(case: Case) -> Checked:
    """Every entry of every gradient, for a dY drawn at random."""
    with complex_oracle(), np.errstate(invalid="ignore"):
        Y = case.forward(**case.arrays)
        dY = np.random.default_rng(SEED).standard_normal(Y.shape)
        gradients = case.backward(dY, **case.arrays)
        worst, entries = 0.0, 0
        for name, array in case.arrays.items():
            exact = by_complex_steps(case, name, dY)
            size = max(np.abs(exact).max(initial=0.0), np.abs(dY).max(initial=0.0))
            worst = max(worst, float(np.abs(gradients[name] - exact).max(initial=0.0) / size))
            entries += array.size
    return Checked(case, entries, worst)


def by_complex_steps(case: Case, name: str, dY: np.ndarray) -> np.ndarray:
    """The gradient of Σ dY ∘ Y by the entries of one array, which are moved one after the other."""
    arrays = {each: array.astype(complex) for each, array in case.arrays.items()}
    gradient = np.zeros(case.arrays[name].shape)
    for place in np.ndindex(gradient.shape):
        moved = arrays[name].copy()
        moved[place] += 1j * STEP
        slopes = np.imag(case.forward(**{**arrays, name: moved})) / STEP
        gradient[place] = (dY * slopes).sum()
    return gradient


@contextmanager
def complex_oracle() -> Iterator[None]:
    """While this lasts the oracle takes complex numbers."""
    real = reference.feed_forward._erf  # noqa: SLF001 (the one function of the oracle that is real by its making)
    reference.feed_forward._erf = lambda x: erf(x) if np.iscomplexobj(x) else real(x)  # noqa: SLF001
    try:
        with shapes_unchecked():
            yield
    finally:
        reference.feed_forward._erf = real  # noqa: SLF001


# ---- cases ----


def cases() -> Iterator[Case]:
    """Every step; sizes that differ, and every axis at 1; ties, one key in sight, rows that are hidden or constant."""
    rng = np.random.default_rng(SEED)
    for n, m, d_k, d_v in ((3, 5, 4, 7), (1, 5, 4, 3), (4, 1, 3, 2), (3, 4, 1, 2), (2, 3, 4, 1), (1, 1, 1, 1), (33, 3, 2, 2)):
        yield from _of_attention(rng, n, m, d_k, d_v)
    for shape in ((3, 5), (1, 5), (4, 1), (1, 1), (2, 70)):
        yield from _of_softmax(rng, shape)
    for n, d in ((3, 5), (1, 4), (3, 2), (3, 1), (65, 3)):
        yield from _of_norms(rng, n, d)
        yield from _of_feed_forward(rng, n, d)
        yield from _of_embedding_and_projection(rng, n, d)
    for h, n, m in ((1, 3, 2), (2, 3, 4), (3, 1, 5), (2, 4, 1)):
        yield from _of_layers(rng, h, n, m)
    for norm, tied, final in (("post", True, False), ("pre", False, True)):
        yield _of_the_whole(rng, norm, tied=tied, final=final)


def masks(rng: np.random.Generator, n: int, m: int) -> dict[str, np.ndarray | None]:
    """None, scattered ones, one key a row, and a first row that sees nothing."""
    scattered = rng.random((n, m)) < 0.5
    scattered[np.arange(n), rng.integers(0, m, n)] = True
    one = np.arange(m) == rng.integers(0, m, (n, 1))
    fully_masked = scattered & (np.arange(n) > 0)[:, None]
    return {"no mask": None, "scattered mask": scattered, "one key in sight": one, "a fully masked row": fully_masked}


def _of_attention(rng: np.random.Generator, n: int, m: int, d_k: int, d_v: int) -> Iterator[Case]:
    arrays = {"Q": rng.standard_normal((n, d_k)), "K": rng.standard_normal((m, d_k)), "V": rng.standard_normal((m, d_v))}
    tied = {**arrays, "K": np.ones((m, d_k)), "Q": np.ones((n, d_k))}
    for label, mask in masks(rng, n, m).items():
        for kept in ("weights", "log_sums"):
            for inputs, kind in ((arrays, ""), (tied, ", all scores tied")):
                backward = partial(_named, ("Q", "K", "V"), partial(attention_backward, mask=mask, kept=kept))
                place = f"{n}×{m}, d_k {d_k}, d_v {d_v}, {label}, {kept} kept{kind}"
                yield Case("attention", place, inputs, partial(attention, mask=mask), backward)


def _of_softmax(rng: np.random.Generator, shape: tuple[int, int]) -> Iterator[Case]:
    n, m = shape
    plain = rng.standard_normal(shape)
    for label, mask in masks(rng, n, m).items():
        hidden = plain if mask is None else np.where(mask, plain, -np.inf)
        for kind, scores in (("plain", hidden), ("tied", np.where(np.isfinite(hidden), 1.0, hidden)), ("wide", 40 * hidden)):
            arrays = {"scores": scores}
            yield Case("softmax", f"{n}×{m}, {label}, {kind}", arrays, softmax, partial(_named, ("scores",), softmax_backward))
            backward = partial(_named, ("logits",), next_token_backward)
            yield Case("next_token", f"{n}×{m}, {label}, {kind}", {"logits": scores}, next_token, backward)


def _of_norms(rng: np.random.Generator, n: int, d: int) -> Iterator[Case]:
    X = rng.standard_normal((n, d))
    # an offset takes digits from a row of little spread, from both
    spread = np.arange(n * d).reshape(n, d) % d + rng.random((n, d)) / 2
    rows = {"plain": X, "constant": np.ones((n, d)), "offset": 8 + spread, "tiny": 2.0**-9 * X}
    for label, each in rows.items():
        for eps in (1e-5, 1e-3):
            arrays = {"X": each, "gain": rng.standard_normal(d), "bias": rng.standard_normal(d)}
            yield Case("layer_norm", f"{n}×{d}, {label}, eps {eps}", arrays, partial(_norm, eps), partial(_norm_backward, eps))


def _norm(eps: float, *, X: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return layer_norm(X, NormParameters(gain, bias), eps)


def _norm_backward(eps: float, dY: np.ndarray, *, X: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> Named:
    dX, of_norm = layer_norm_backward(dY, X, NormParameters(gain, bias), eps)
    return {"X": dX, **flat(of_norm)}


def _of_feed_forward(rng: np.random.Generator, n: int, d: int) -> Iterator[Case]:
    for d_ff in (1, 6):
        arrays = {
            "X": rng.standard_normal((n, d)),
            "W_1": rng.standard_normal((d, d_ff)),
            "b_1": rng.standard_normal(d_ff),
            "W_2": rng.standard_normal((d_ff, d)),
            "b_2": rng.standard_normal(d),
        }
        for activation in ("relu", "gelu", "gelu_tanh"):
            forward, backward = partial(_feed_forward, activation), partial(_feed_forward_backward, activation)
            yield Case("feed_forward", f"{n}×{d}, d_ff {d_ff}, {activation}", arrays, forward, backward)


def _feed_forward(activation: Any, *, X: np.ndarray, **weights: np.ndarray) -> np.ndarray:
    return feed_forward(X, FeedForwardParameters(**weights), activation)


def _feed_forward_backward(activation: Any, dY: np.ndarray, *, X: np.ndarray, **weights: np.ndarray) -> Named:
    dX, of_maps = feed_forward_backward(dY, X, FeedForwardParameters(**weights), activation)
    return {"X": dX, **flat(of_maps)}


def _of_embedding_and_projection(rng: np.random.Generator, n: int, d: int) -> Iterator[Case]:
    for vocab in (1, 5):
        tokens = rng.integers(0, vocab, n)
        for scale in (True, False):
            forward = partial(_looked_up, tokens, scale)
            backward = partial(_named, ("table",), partial(_embedding_backward, tokens, scale))
            yield Case("embedding", f"{n}×{d}, vocab {vocab}", {"table": rng.standard_normal((vocab, d))}, forward, backward)
        arrays = {"X": rng.standard_normal((n, d)), "W": rng.standard_normal((d, vocab)), "b": rng.standard_normal(vocab)}
        backward = partial(_named, ("X", "W", "b"), output_projection_backward)
        yield Case("output_projection", f"{n}×{d}, vocab {vocab}", arrays, output_projection, backward)


def _looked_up(tokens: np.ndarray, scale: bool, *, table: np.ndarray) -> np.ndarray:
    return embedding(tokens, table, scale)


def _embedding_backward(tokens: np.ndarray, scale: bool, dX: np.ndarray, *, table: np.ndarray) -> np.ndarray:
    return embedding_backward(dX, tokens, table, scale)


def _of_layers(rng: np.random.Generator, h: int, n: int, m: int) -> Iterator[Case]:
    d = 2 * h
    X, M = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    heads = [_heads(rng, d) for _ in range(2)]
    forward = {"W_1": (d, 5), "b_1": (5,), "W_2": (5, d), "b_2": (d,)}
    thinking = {name: rng.standard_normal(shape) for name, shape in forward.items()}
    norms = [{"gain": rng.standard_normal(d), "bias": rng.standard_normal(d)} for _ in range(3)]
    encoding = {"self_attention": heads[0], "norm_1": norms[0], "feed_forward": thinking, "norm_2": norms[1]}
    decoding = encoding | {"cross_attention": heads[1], "norm_3": norms[2]}
    memory, own = masks(rng, n, m)["scattered mask"], masks(rng, n, n)["scattered mask"]
    at = f"{h} heads, {n}×{m}"
    for biased in (True, False):
        weights = {name: W for name, W in heads[0].items() if biased or name[0] == "W"}
        arrays, call = {"X": X, "M": M, **weights}, {"h": h, "mask": memory}
        label = f"{at}, {'with' if biased else 'without'} biases"
        yield Case("multi_head", label, arrays, partial(_multi_head, **call), partial(_multi_head_backward, **call))
    for norm in ("post", "pre"):
        for activation in ("relu", "gelu"):
            architecture = Architecture(h=h, norm=norm, activation=activation)  # type: ignore[arg-type]
            call = {"architecture": architecture, "mask": own}
            arrays = {"X": X, **flat(encoding)}
            label = f"{at}, {norm}-norm, {activation}"
            yield Case("encoder_layer", label, arrays, partial(_encoder_layer, **call), partial(_encoder_layer_backward, **call))
            call |= {"memory_mask": memory}
            arrays = {"X": X, "M": M, **flat(decoding)}
            yield Case("decoder_layer", label, arrays, partial(_decoder_layer, **call), partial(_decoder_layer_backward, **call))


def _of_the_whole(rng: np.random.Generator, norm: Any, *, tied: bool, final: bool) -> Case:
    """Two layers a side, a token that occurs twice, and one that only fills up the length."""
    d, vocab = 4, 5
    drawn = nested(initialise(int(rng.integers(2**16)), vocab=vocab, d_model=d, d_ff=3, layers=2))
    drawn |= {"W_out": None, "b_out": None} if tied else {"W_out": np.zeros((d, vocab)), "b_out": np.zeros(vocab)}
    for name in ("encoder_norm", "decoder_norm"):
        drawn[name] = {"gain": np.zeros(d), "bias": np.zeros(d)} if final else None
    arrays = {name: rng.standard_normal(array.shape) for name, array in flat(drawn).items()}
    sequences = {
        "source": np.array([1, 3, 1, 0]),
        "target": np.array([2, 2, 4]),
        "source_mask": np.array([True, True, True, False]),
        "architecture": Architecture(h=2, norm=norm, activation="gelu"),
    }
    label = f"{norm}-norm, {'tied' if tied else 'untied'}, {'a' if final else 'no'} last norm"
    return Case("transformer", label, arrays, partial(_transformer, **sequences), partial(_transformer_backward, **sequences))


def _transformer(**call: Any) -> np.ndarray:
    return transformer(parameters=_whole(call), **call)


def _transformer_backward(dlogits: np.ndarray, **call: Any) -> Named:
    return flat(transformer_backward(dlogits, parameters=_whole(call), **call))


def _whole(call: dict[str, Any]) -> TransformerParameters:
    """The parameters, which are taken out of the call."""
    arrays = {name: call.pop(name) for name in list(call) if name not in ("source", "target", "source_mask", "architecture")}
    whole = deep(arrays)
    for side in ("encoder", "decoder"):
        whole[side] = [whole[side][str(i)] for i in range(len(whole[side]))]
    return transformer_parameters(whole)


def _heads(rng: np.random.Generator, d: int) -> Named:
    matrices = {name: rng.standard_normal((d, d)) for name in ("W_Q", "W_K", "W_V", "W_O")}
    return matrices | {name: rng.standard_normal(d) for name in ("b_Q", "b_K", "b_V", "b_O")}


def _multi_head(*, X: np.ndarray, M: np.ndarray, h: int, mask: np.ndarray | None, **weights: np.ndarray) -> np.ndarray:
    return multi_head(X, M, MultiHeadParameters(**weights), h, mask)


def _multi_head_backward(
    dY: np.ndarray, *, X: np.ndarray, M: np.ndarray, h: int, mask: np.ndarray | None, **weights: np.ndarray
) -> Named:
    dX, dM, of_heads = multi_head_backward(dY, X, M, MultiHeadParameters(**weights), h, mask)
    return {"X": dX, "M": dM, **flat(of_heads)}


def _encoder_layer(*, X: np.ndarray, architecture: Architecture, mask: np.ndarray, **weights: np.ndarray) -> np.ndarray:
    return encoder_layer(X, encoder_layer_parameters(deep(weights)), architecture, mask)


def _encoder_layer_backward(
    dY: np.ndarray, *, X: np.ndarray, architecture: Architecture, mask: np.ndarray, **weights: np.ndarray
) -> Named:
    dX, of_layer = encoder_layer_backward(dY, X, encoder_layer_parameters(deep(weights)), architecture, mask)
    return {"X": dX, **flat(of_layer)}


def _decoder_layer(*, X: np.ndarray, M: np.ndarray, architecture: Architecture, mask: Any, memory_mask: Any, **weights: Any) -> Any:
    return decoder_layer(X, M, decoder_layer_parameters(deep(weights)), architecture, mask, memory_mask)


def _decoder_layer_backward(
    dY: np.ndarray, *, X: np.ndarray, M: np.ndarray, architecture: Architecture, mask: Any, memory_mask: Any, **weights: Any
) -> Named:
    parameters = decoder_layer_parameters(deep(weights))
    dX, dM, of_layer = decoder_layer_backward(dY, X, M, parameters, architecture, mask, memory_mask)
    return {"X": dX, "M": dM, **flat(of_layer)}


def _named(names: tuple[str, ...], backward: Callable[..., Any], dY: np.ndarray, **arrays: np.ndarray) -> Named:
    """The results of a backward by the names of what they are gradients of."""
    results = backward(dY, **arrays)
    return dict(zip(names, results if isinstance(results, tuple) else (results,), strict=True))


def flat(nested: Any, prefix: str = "") -> Named:
    """Every array of nested dicts or dataclasses by a dotted name."""
    if is_dataclass(nested):
        nested = {field.name: getattr(nested, field.name) for field in fields(nested)}
    if isinstance(nested, list | tuple):
        nested = dict(enumerate(nested))
    if not isinstance(nested, dict):
        return {} if nested is None else {prefix.removesuffix("."): nested}
    return {name: array for key, item in nested.items() for name, array in flat(item, f"{prefix}{key}.").items()}


def deep(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nested dicts from dotted names."""
    nested: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split(".")
        inner = nested
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = array
    return nested


def main() -> None:
    """Print, for each step, how many cases and entries were checked and the largest error."""
    found: dict[str, list[Checked]] = {}
    for case in cases():
        found.setdefault(case.step, []).append(checked(case))
    print(f"{'step':18} {'cases':>6} {'entries':>8}  largest relative error")
    for step, each in [*found.items(), ("all", [result for results in found.values() for result in results])]:
        print(f"{step:18} {len(each):6} {sum(r.entries for r in each):8}  {max(r.worst for r in each):.1e}")


if __name__ == "__main__":
    main()
