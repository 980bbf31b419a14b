"""Inputs of packed and paged attention: lengths, block tables, pages with NaN wherever nothing was written."""

import numpy as np
from hypothesis import strategies as st

from properties.implementations.domain import drawn_inside
from properties.implementations.impl import Impl
from properties.inputs.attention import BLOCKS, Sizes, scored, values
from properties.inputs.parameters import SEEDS, Call

# Packed ---------------------------------------------------------------------------------------------------------------


def cumulative(lengths: list[int]) -> np.ndarray:
    """0, and where each sequence ends: int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@st.composite
def sequence_lengths(draw: st.DrawFn, *, least: int = 0) -> list[tuple[int, int]]:
    """Queries and keys of up to four sequences; often as many of both, at times none, or as many as a block has, or one more."""
    same = draw(st.booleans())
    lengths = draw(st.lists(st.tuples(st.integers(least, 4), st.integers(least, 5)), min_size=1, max_size=4))
    edge = draw(st.sampled_from((*[None] * 6, "keys", "queries")))
    if edge:
        n, m = (
            (draw(st.integers(1, 3)), draw(st.sampled_from(BLOCKS))) if edge == "keys" else (draw(st.sampled_from(BLOCKS[:9])), 3)
        )
        lengths[draw(st.integers(0, len(lengths) - 1))] = (n, m)
    return [(n, n) if same and n < BLOCKS[9] else (n, m) for n, m in lengths]


@st.composite
def packed_calls(draw: st.DrawFn, *, least: int = 0, same: bool = False, causal: bool | None = None) -> Call:
    """Sequences packed one after another; `least` rows each, the `same` number of queries and keys, `causal` always or never."""
    lengths = draw(sequence_lengths(least=least))
    lengths = [(n, n) for n, _ in lengths] if same else lengths
    queries, keys = (cumulative([length[k] for length in lengths]) for k in (0, 1))
    h, d_k, d_v = draw(st.sampled_from((1, 1, 2))), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    h, d_k, d_v = drawn_inside(h=h, d_k=d_k, d_v=d_v).values()
    t, u = int(queries[-1]), int(keys[-1])
    Q, K = draw(scored(Sizes(1, h, max(t, 1), max(u, 1), d_k, d_v)))
    V = draw(values(u, h, d_v))
    options = {"causal": True} if (draw(st.booleans()) if causal is None else causal) else {}
    tensors = Q[0].swapaxes(0, 1)[:t].copy(), K[0].swapaxes(0, 1)[:u].copy(), V
    return Call(tensors, {"cu_seqlens_q": queries, "cu_seqlens_k": keys, **options})


def as_offered(call: Call, impl: Impl) -> Call:
    """The call, not causal where the implementation has no such option: it is held to everything else."""
    if impl.offers("packed_attention.causal"):
        return call
    return Call(call.args, {name: value for name, value in call.kwargs.items() if name != "causal"})


def parts(call: Call) -> list[tuple[slice, slice]]:
    """Which rows of the queries and which of the keys each packed sequence has."""
    queries, keys = call.kwargs["cu_seqlens_q"], call.kwargs["cu_seqlens_k"]
    return [(slice(*queries[r : r + 2]), slice(*keys[r : r + 2])) for r in range(len(queries) - 1)]


def packed_again(call: Call, order: list[int]) -> Call:
    """The sequences of these numbers, in this order, packed anew; a number beyond the last is an empty sequence."""
    found = [*parts(call), (slice(0, 0), slice(0, 0))]
    chosen = [found[min(r, len(found) - 1)] for r in order]
    Q, K, V = call.args
    tensors = tuple(np.concatenate([X[:0], *(X[place[which]] for place in chosen)]) for X, which in ((Q, 0), (K, 1), (V, 1)))
    lengths = {
        name: cumulative([place[which].stop - place[which].start for place in chosen])
        for name, which in (("cu_seqlens_q", 0), ("cu_seqlens_k", 1))
    }
    return Call(tensors, {**call.kwargs, **lengths})


# Paged ----------------------------------------------------------------------------------------------------------------

PAGES = (1, 2, 3, 4, 8)


@st.composite
def _as_long_as(draw: st.DrawFn, lengths: np.ndarray, b: int, h: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q, K and V of the longest sequence."""
    d_k, d_v = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    d_k, d_v = drawn_inside(d_k=d_k, d_v=d_v).values()
    m = max(int(lengths.max()), 1)
    Q, K = draw(scored(Sizes(b, h, n, m, d_k, d_v)))
    return Q, K, draw(values(b, h, m, d_v))


@st.composite
def paged_calls(draw: st.DrawFn, *, empty: bool = True) -> Call:
    """Sequences of different lengths in pages that lie anywhere; every slot and page that was not written to holds NaN.

    A length is 0 (where `empty` ones are asked for), or at least the number of queries; often at the edge of a page.
    """
    b, h = draw(st.sampled_from(((1, 1), (2, 1), (3, 1), (1, 2), (2, 2))))
    n = draw(st.sampled_from((1, 1, 2, 3)))
    page = draw(st.sampled_from(PAGES))
    b, h, n, page = drawn_inside(b=b, h=h, n=n, page=page).values()
    at_an_edge = st.builds(lambda pages, off: max(n, pages * page + off), st.integers(1, 3), st.integers(-1, 1))
    length = st.integers(n, 6) | at_an_edge
    lengths = np.array([draw(st.just(0) | length if empty else length) for _ in range(b)], dtype=np.int64)
    Q, K, V = draw(_as_long_as(lengths, b, h, n))
    extra, seed = draw(st.integers(0, 2)), draw(SEEDS)
    table = scattered(lengths, page, extra, seed)
    p = int(-(-lengths // page).sum()) + 1 + extra
    return Call((Q, *(in_pages(X, lengths, table, p, page) for X in (K, V))), {"block_table": table, "lengths": lengths})


def scattered(lengths: np.ndarray, page: int, extra: int, seed: int) -> np.ndarray:
    """A block table (b, w) that gives each sequence pages of its own, in no order; the entries behind are page 0, whosever it is.

    Of the physical pages one and `extra` ones belong to nobody.
    """
    needed = -(-lengths // page)
    physical = np.random.default_rng(seed).permutation(int(needed.sum()) + 1 + extra)
    table = np.zeros((len(lengths), max(int(needed.max()) + extra, 1)), dtype=np.int64)
    for r, start in enumerate(np.cumsum(needed) - needed):
        table[r, : needed[r]] = physical[start : start + needed[r]]
    return table


def in_pages(X: np.ndarray, lengths: np.ndarray, table: np.ndarray, p: int, page: int, gap: float = np.nan) -> np.ndarray:
    """The rows X (b, h, m, d), each up to its length, in p pages of (page, h, d); `gap` wherever nothing is written."""
    pages = np.full((p, page, X.shape[1], X.shape[-1]), gap)
    for r, length in enumerate(lengths):
        for j in range(length):
            pages[table[r, j // page], j % page] = X[r, :, j]
    return pages


def out_of_pages(pages: np.ndarray, table: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The keys or values of each sequence, one after another: (h, length, d)."""
    page = pages.shape[1]
    return [
        np.stack([pages[table[r, j // page], j % page] for j in range(length)], axis=1)
        if length
        else np.zeros((pages.shape[2], 0, pages.shape[3]))
        for r, length in enumerate(lengths)
    ]


# Cached ---------------------------------------------------------------------------------------------------------------


@st.composite
def cached_calls(draw: st.DrawFn, *, ring: bool | None = None, empty: bool = True) -> Call:
    """Sequences of different lengths in a cache with room for more, or in a ring, which may have wrapped; what is not held is NaN.

    A length is 0 (where `empty` ones are asked for), or at least the number of queries; often all slots, or one less or more.
    """
    b, h = draw(st.sampled_from(((1, 1), (2, 1), (3, 1), (1, 2), (2, 2))))
    n = draw(st.sampled_from((1, 1, 2, 3)))
    wraps = draw(st.booleans()) if ring is None else ring
    capacity = draw(st.integers(n, 6) | st.sampled_from(BLOCKS[:9]).filter(lambda size: size >= n))
    b, h, n, capacity = drawn_inside(b=b, h=h, n=n, capacity=capacity).values()
    most = 3 * capacity if wraps else capacity
    full = st.sampled_from([size for size in (capacity - 1, capacity, capacity + 1) if n <= size <= most] or [n])
    length = st.integers(n, most) | full
    lengths = np.array([draw(st.just(0) | length if empty else length) for _ in range(b)], dtype=np.int64)
    Q, K, V = draw(_as_long_as(lengths, b, h, n))
    caches = (in_slots(X, lengths, capacity) for X in (K, V))
    return Call((Q, *caches), {"lengths": lengths, **({"ring": True} if wraps else {})})


def in_slots(X: np.ndarray, lengths: np.ndarray, capacity: int, gap: float = np.nan) -> np.ndarray:
    """The rows X (b, h, m, d), each up to its length, in a cache (b, h, capacity, d): p in slot p mod capacity."""
    cache = np.full((*X.shape[:2], capacity, X.shape[-1]), gap)
    for r, length in enumerate(lengths):
        for position in range(max(int(length) - capacity, 0), int(length)):
            cache[r, :, position % capacity] = X[r, :, position]
    return cache


def out_of_slots(cache: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The keys or values that the cache holds of each sequence, in their order: (h, up to capacity, d)."""
    capacity = cache.shape[2]
    return [cache[r][:, np.arange(max(int(length) - capacity, 0), int(length)) % capacity] for r, length in enumerate(lengths)]
