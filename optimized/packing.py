"""Packing: weights laid out once, when they are loaded, as the fastest product of this processor reads them.

Which layout that is depends on the processor, the shape and the number of rows, so it is measured: once for each of them in a
process, on the very weights, one matrix after the other as a forward pass reads them. `choices` tells what was chosen, and by how
much it won. The oracle has no such file: it is not fast.

There are two tiers. The plain one is torch alone. The tuned one has a product of its own in C++ among the layouts it measures
(see `optimized.tuned`); everything else is the same code.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from optimized import tuned
from optimized.multi_head import linear
from optimized.packed import Convolution, InnerProduct, Int8, Int8Panels, Packed, Panels, can_pack, check
from optimized.parameters import (
    DecoderLayerParameters,
    EncoderLayerParameters,
    MultiHeadParameters,
    Parameters,
    SelfAttentionParameters,
    TransformerParameters,
    map_tensors,
    tensors,
)
from optimized.tuned.layers import PackedLayers

Tier = Literal["plain", "tuned", "fastest"]
TIERS: dict[Tier, str] = {
    "plain": "torch alone",
    "tuned": "a product in C++ among the layouts, compiled at its first use",
    "fastest": "tuned, or plain with a line that says why it is not",
}
Layout = Literal["given", "rows", "columns", "inner_product", "convolution", "panels", "int8", "int8_panels"]
LAYOUTS: dict[Layout, Callable[[Tensor, int], Tensor | Packed]] = {
    "given": lambda W, rows: W,  # noqa: ARG005
    "rows": lambda W, rows: W.contiguous(),  # noqa: ARG005
    "columns": lambda W, rows: W.mT.contiguous().mT,  # noqa: ARG005
    "inner_product": InnerProduct,
    "convolution": Convolution,
    "panels": Panels,
    "int8": Int8,
    "int8_panels": Int8Panels,
}
"""How a matrix may lie in memory: as it came, row by row, column by column (as nn.Linear has it), in the blocks of one of
oneDNN's products, or in the panels of the tuned tier's; and rounded to int8, for torch's product or in such panels."""
OF_TIER: dict[bool, dict[str, tuple[Layout, ...]]] = {
    False: {"plain": ("given", "rows", "columns", "inner_product", "convolution"), "tuned": ("panels",)},
    True: {"plain": ("int8",), "tuned": ("int8_panels",)},
}
"""Which of them are measured, as numbers are given and in int8; the tuned tier has those of the plain one too."""

Key = tuple[Any, ...]
PACKABLE = (torch.float32, torch.bfloat16, torch.float16)
ONE_CALL: tuple[Layout, ...] = ("panels", "int8_panels")
LEAST_GAIN: dict[Layout, float] = {"given": 1.05, "panels": 1.5, "int8_panels": 1.5}
"""Of another layout over these: less may be noise, and a copy is not worth it; and panels make a stack of layers one call, which
saves more than a product does."""
ROUNDS = 5
MOST_FLOPS = 1.5e8  # of the products of a round, but for one matrix in any case
MOST_BYTES = 2**26  # of the weights of a round: more than most caches hold
MOST_ROWS = 512  # beyond, the rate of a product hardly depends on the number of rows


@dataclass(frozen=True)
class Choice:
    """The layout that was fastest for products of so many rows with matrices of this shape.

    `gain` is how many times as fast it is as the matrix given, or in int8 as torch's product.
    """

    rows: int
    shape: tuple[int, int]
    dtype: torch.dtype
    threads: int
    layout: Layout
    gain: float
    seconds: float  # of one product, in this layout

    def __str__(self) -> str:
        inner, columns = self.shape
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.rows}x{inner}x{columns} {dtype}, {self.threads} threads: {self.layout} ({self.gain:.2f} times as fast)"


def pack(
    parameters: Parameters,
    rows: int,
    source_rows: int | None = None,
    layout: Layout | None = None,
    tier: Tier = "plain",
    *,
    int8: bool = False,
) -> Parameters:
    """The same parameters, their matrices laid out for products of `rows` rows: the tokens of all sequences that go in at once.

    `source_rows` are those of the encoder and of the keys and values of cross-attention, where they differ: to generate, `rows`
    is the number of sequences, and `source_rows` that of all their source tokens. Other numbers of rows are answered too, but
    less fast. In a layer the projections of self-attention become one matrix where that is faster. An embedding that is also the
    output matrix is packed beside the table. `layout` names one instead of measuring, for one matrix for self-attention too.

    `tier` says what is measured: see TIERS. "tuned" is an error where it cannot be had, "fastest" then takes the plain one and
    prints why. `int8` rounds every matrix to int8, with a scale for each column, and rows of its input; the rest is float32.

    Raises ValueError for weights that require a gradient, are not on the CPU, of float64 or of several dtypes, and for a layout
    or a tier that this processor does not have; `tuned.NotBuilt` where the tuned tier cannot be compiled.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    chosen, found = _chosen(parameters, rows, source_rows, tier, int8=int8, measure=layout is None)

    def laid_out(W: Tensor, rows: int) -> Any:
        return LAYOUTS[layout or found[_key(W, rows)].layout](W, rows)

    return _map_matrices(laid_out, chosen, rows, source_rows or rows)


def choices(
    parameters: Any, rows: int, source_rows: int | None = None, tier: Tier = "plain", *, int8: bool = False
) -> list[Choice]:
    """What `pack` chooses for these arguments, a line for each shape and number of rows. Raises as it does."""
    chosen, found = _chosen(parameters, rows, source_rows, tier, int8=int8)
    return [found[key] for key in _alike([chosen], rows, source_rows or rows)]


def _chosen(
    parameters: Parameters, rows: int, source_rows: int | None, tier: Tier, *, int8: bool, measure: bool = True
) -> tuple[Parameters, dict[Key, Choice]]:
    """The parameters with projections side by side where that is faster, and what was measured of them."""
    _check(parameters, rows, source_rows)
    layouts = _layouts(tier, {W.dtype for W in tensors(parameters)}, int8=int8)
    source_rows = source_rows or rows
    joined = _joined(parameters, rows, source_rows, lambda heads, rows: True)  # noqa: ARG005
    if not measure:
        return joined, {}
    found = {key: _fastest(key, alike, layouts) for key, alike in _alike([parameters, joined], rows, source_rows).items()}

    def faster(heads: MultiHeadParameters, rows: int) -> bool:
        apart = sum(found[_key(W, rows)].seconds for W in (heads.W_Q, heads.W_K, heads.W_V))
        joined = found[_key(_side_by_side(heads).W_QKV, rows)]
        return joined.seconds < (LEAST_GAIN[joined.layout] if joined.layout in ONE_CALL else 1.0) * apart

    return _joined(parameters, rows, source_rows, faster), found


def _alike(several: list[Any], rows: int, source_rows: int) -> dict[Key, list[Tensor]]:
    """The matrices of a kind, each once."""
    alike: dict[Key, dict[int, Tensor]] = {}

    def noted(W: Tensor, rows: int) -> Tensor:
        alike.setdefault(_key(W, rows), {})[W.data_ptr()] = W
        return W

    for parameters in several:
        _map_matrices(noted, parameters, rows, source_rows)
    return {key: list(weights.values()) for key, weights in alike.items()}


def _joined(parameters: Any, rows: int, source_rows: int, faster: Callable[[MultiHeadParameters, int], bool]) -> Any:
    """The same parameters with the projections of each self-attention side by side, where that is faster for so many rows."""
    if isinstance(parameters, TransformerParameters):
        encoder = tuple(_joined(layer, source_rows, source_rows, faster) for layer in parameters.encoder)
        decoder = tuple(_joined(layer, rows, rows, faster) for layer in parameters.decoder)
        return replace(parameters, encoder=encoder, decoder=decoder)
    if isinstance(parameters, EncoderLayerParameters | DecoderLayerParameters):
        heads = parameters.self_attention
        if isinstance(heads, MultiHeadParameters) and faster(heads, rows):
            return replace(parameters, self_attention=_side_by_side(heads))
    return parameters


def _side_by_side(heads: MultiHeadParameters) -> SelfAttentionParameters:
    """A projection without a bias gets one of zeros, if the others have one."""
    matrices, biases = (heads.W_Q, heads.W_K, heads.W_V), (heads.b_Q, heads.b_K, heads.b_V)
    pairs = zip(matrices, biases, strict=True)
    b_QKV = None if biases == (None, None, None) else torch.cat([W.new_zeros(W.shape[1]) if b is None else b for W, b in pairs])
    return SelfAttentionParameters(torch.cat(matrices, dim=1), heads.W_O, b_QKV, heads.b_O)


def _map_matrices(change: Callable[[Tensor, int], Any], parameters: Parameters, rows: int, source_rows: int) -> Parameters:
    """The same parameters with `change` applied to every matrix of a product and the number of rows it is multiplied with."""
    part: Any = parameters

    def each(part: Any, rows: int, source_rows: int) -> Any:
        return _map_matrices(change, part, rows, source_rows)

    if isinstance(part, TransformerParameters):
        part = replace(
            part,
            encoder=PackedLayers(each(layer, source_rows, source_rows) for layer in part.encoder),
            decoder=PackedLayers(each(layer, rows, source_rows) for layer in part.decoder),
            W_out=change(part.target_embedding.mT if part.W_out is None else part.W_out, rows),
        )
    elif isinstance(part, DecoderLayerParameters):
        part = replace(
            part,
            self_attention=each(part.self_attention, rows, rows),
            cross_attention=each(part.cross_attention, rows, source_rows),
            feed_forward=each(part.feed_forward, rows, rows),
        )
    elif isinstance(part, MultiHeadParameters):
        part = replace(
            part,
            W_Q=change(part.W_Q, rows),
            W_K=change(part.W_K, source_rows),
            W_V=change(part.W_V, source_rows),
            W_O=change(part.W_O, rows),
        )
    else:
        part = map_tensors(lambda W: change(W, rows) if W.dim() == 2 else W, part)
    return part


def _layouts(tier: Tier, dtypes: set[torch.dtype], *, int8: bool = False) -> tuple[Layout, ...]:
    """Those of a tier, which is compiled now if it has to be. Raises ValueError or `tuned.NotBuilt` for one that is not here."""
    if tier not in TIERS:
        raise ValueError(f"tier: expected one of {', '.join(TIERS)}, got {tier!r}")
    if int8 and (other := dtypes - {torch.float32}):
        raise ValueError(f"int8: expected parameters of torch.float32, got {other.pop()}")
    plain = OF_TIER[int8]["plain"]
    if tier == "plain":
        return plain
    try:
        _check_tuned({torch.int8} if int8 else dtypes)
    except (ValueError, tuned.NotBuilt) as why:
        if tier == "tuned":
            raise
        print(f"veriformer: the plain tier is taken: {why}", file=sys.stderr)
        return plain
    return plain + OF_TIER[int8]["tuned"]


def _check_tuned(dtypes: set[torch.dtype]) -> None:
    """Raises ValueError or `tuned.NotBuilt` where there is no tuned tier for these."""
    if other := dtypes - set(tuned.dtypes()):
        here = " and ".join(map(str, tuned.dtypes()))
        raise ValueError(f"tier: the tuned one has products of {here} on this processor, not of {other.pop()}")
    tuned.load()


_measured: dict[Key, Choice] = {}


@torch.no_grad()
def _fastest(key: Key, weights: list[Tensor], layouts: tuple[Layout, ...]) -> Choice:
    """The choice for matrices of one kind, measured unless it was before."""
    if (key := (*key, layouts)) not in _measured:
        dtype, shape, _, rows, threads, _ = key
        seconds = _seconds(weights, rows, layouts)
        layout = min(seconds, key=lambda name: seconds[name])
        for usual, least in LEAST_GAIN.items():
            if usual in seconds and seconds[usual] < least * seconds[layout]:
                layout = usual
        gain = seconds[layouts[0]] / seconds[layout]
        _measured[key] = Choice(rows, shape, dtype, threads, layout, gain, seconds[layout])
    return _measured[key]


def _seconds(weights: list[Tensor], rows: int, layouts: tuple[Layout, ...]) -> dict[Layout, float]:
    """The mean over the matrices of the least time of a product, in each layout; rounds of all layouts in turn."""
    rows, (inner, columns) = min(rows, MOST_ROWS), weights[0].shape
    most = min(MOST_FLOPS / (2 * rows * inner * columns), MOST_BYTES / weights[0].nbytes)
    weights = weights[: max(1, int(most))]
    X = torch.ones(rows, inner, dtype=weights[0].dtype)
    candidates: dict[Layout, list[Any]] = {
        layout: [LAYOUTS[layout](W, rows) for W in weights] for layout in _candidates(weights[0], layouts)
    }
    best: dict[Layout, list[float]] = {layout: [float("inf")] * len(weights) for layout in candidates}
    for _ in range(ROUNDS):
        for layout, laid_out in candidates.items():
            linear(X, laid_out[0], None)  # wakes the threads of its library
            best[layout] = [min(seconds, _timed(X, W)) for seconds, W in zip(best[layout], laid_out, strict=True)]
    return {layout: sum(seconds) / len(weights) for layout, seconds in best.items()}


def _timed(X: Tensor, W: Any) -> float:
    began = time.perf_counter()
    linear(X, W, None)
    return time.perf_counter() - began


def _candidates(W: Tensor, layouts: tuple[Layout, ...]) -> list[Layout]:
    """As it is given, and the layouts that it is not in already and that this processor has for its dtype."""
    wanted = {"given": True, "rows": not W.is_contiguous(), "columns": not W.mT.is_contiguous()}
    by_onednn = ("inner_product", "convolution")
    return [layout for layout in layouts if wanted.get(layout, layout not in by_onednn or can_pack(W.dtype))]


def _key(W: Tensor, rows: int) -> Key:
    return W.dtype, tuple(W.shape), W.stride(), rows, torch.get_num_threads()


def _check(parameters: Any, rows: int, source_rows: int | None) -> None:
    """Raises ValueError for what cannot be packed."""
    for name, number in {"rows": rows, "source_rows": source_rows}.items():
        if number is not None and number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number}")
    found = tensors(parameters)
    for W in found:
        check(W)
    if not (dtypes := {W.dtype for W in found}) <= set(PACKABLE) or len(dtypes) > 1:
        raise ValueError(f"parameters: expected all in float32, bfloat16 or float16, got {', '.join(sorted(map(str, dtypes)))}")
