"""The memory of an engine: caches whose attention is one call of an implementation, which finds the keys where we laid them.

`cached_attention` and `paged_attention` are handed memory and keep none. So what an engine does to that memory between two calls is
done here, and each class is a `cached.AttentionCache`: tokens are appended, forgotten, their rows picked; NaN stands wherever
nothing was ever written, and what was written and is nobody's any more stays where it is.
"""

from collections.abc import Callable
from functools import partial
from typing import Self

import numpy as np

Ask = Callable[..., np.ndarray]


class Slots:
    """Slots of (b, h, capacity, d), and how many of them each row has written: as `cached_attention` takes them.

    With a `window` a ring of as many slots. With neither there is never a slot to spare: a contiguous cache, made anew as it grows.
    """

    def __init__(self, ask: Ask, K: np.ndarray, V: np.ndarray, *, capacity: int | None = None, window: int | None = None) -> None:
        self.ask = ask if window is None else partial(ask, ring=True)
        self.capacity = capacity if window is None else window
        self.reset(K, V)

    def reset(self, K: np.ndarray, V: np.ndarray) -> None:
        """Memory that nobody wrote to yet, and these tokens."""
        self.lengths: np.ndarray = np.zeros(len(K), dtype=np.int64)
        memory = [np.full((*X.shape[:2], self.capacity or 0, X.shape[-1]), np.nan) for X in (K, V)]
        self.K: np.ndarray = memory[0]
        self.V: np.ndarray = memory[1]
        self._write(K, V, np.full(len(K), K.shape[2]))

    def attend(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
        """One call; token by token where the ring would lose a key that the first of them still sees."""
        k = Q.shape[2]
        if "ring" in getattr(self.ask, "keywords", ()) and (self.lengths + k > self.K.shape[2]).any():
            return self.attend_some(Q, K, V, np.full(len(Q), k))
        self._write(K, V, np.full(len(Q), k))
        return self._answer(Q)

    def attend_some(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Token by token, of all rows at once; what a row gets that has no more of them is left out."""
        answers = np.full((*Q.shape[:3], V.shape[-1]), np.nan)
        for i in range(Q.shape[2]):
            going = counts > i
            self._write(K[:, :, i : i + 1], V[:, :, i : i + 1], going.astype(np.int64))
            answers[going, :, i] = self._answer(Q[:, :, i : i + 1])[going, :, 0]
        return answers

    def _answer(self, Q: np.ndarray) -> np.ndarray:
        return self.ask(Q, self.K, self.V, lengths=self.lengths)

    def _write(self, K: np.ndarray, V: np.ndarray, counts: np.ndarray) -> None:
        if self.capacity is None:
            self.fit(int((self.lengths + counts).max()))
        self.K, self.V = self.K.copy(), self.V.copy()  # a copy of this cache has them too
        for r, count in enumerate(counts):
            for i in range(count):
                slot = (self.lengths[r] + i) % self.K.shape[2]
                self.K[r, :, slot], self.V[r, :, slot] = K[r, :, i], V[r, :, i]
        self.lengths = self.lengths + counts

    def fit(self, slots: int) -> None:
        """Have so many slots: more of them, or without the last ones."""
        more = max(slots - self.K.shape[2], 0)
        larger = (np.pad(X, ((0, 0), (0, 0), (0, more), (0, 0)), constant_values=np.nan) for X in (self.K, self.V))
        self.K, self.V = (X[:, :, :slots] for X in larger)

    def rollback(self, length: int) -> None:
        """The slots behind hold what they held."""
        self.lengths = np.minimum(self.lengths, length)
        if self.capacity is None:
            self.fit(int(self.lengths.max()))

    def reorder(self, rows: np.ndarray) -> None:
        """Their slots change places with them."""
        self.K, self.V, self.lengths = self.K[rows], self.V[rows], self.lengths[rows]
        if self.capacity is None:
            self.fit(int(self.lengths.max()))

    def leave(self, rows: np.ndarray) -> None:
        """The others close up."""
        self.reorder(np.delete(np.arange(len(self.K)), rows))

    def join(self, other: "Slots") -> None:
        """Its rows, with slots as many."""
        slots = max(self.K.shape[2], other.K.shape[2])
        for cache in (self, other):
            cache.fit(slots)
        names = ("K", "V", "lengths")
        self.K, self.V, self.lengths = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in names)

    def copy(self) -> Self:
        """Memory of its own."""
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__
        return other


class Pool:
    """Pages that all caches of a program share: which are free, how many rows have each, and what lies in them."""

    def __init__(self, ask: Ask, pages: int, page: int, seed: int) -> None:
        self.ask, self.page = ask, page
        self.free = np.random.default_rng(seed).permutation(pages).tolist()
        self.rows = dict.fromkeys(self.free, 0)
        self.K, self.V = np.zeros((0, 0, 0, 0)), np.zeros((0, 0, 0, 0))

    def cache(self, K: np.ndarray, V: np.ndarray) -> "Pages":
        """A cache in this memory, which is made when the first one is: heads and features are as many in all of them."""
        if not self.K.size:
            self.K, self.V = (np.full((len(self.rows), self.page, X.shape[1], X.shape[-1]), np.nan) for X in (K, V))
        return Pages(self, K, V)

    def take(self) -> int:
        """The page that was given back last: what its last row wrote is still in it."""
        page = self.free.pop()
        self.rows[page] = 1
        return page

    def give_back(self, page: int) -> None:
        """One row less has it."""
        self.rows[page] -= 1
        if not self.rows[page]:
            self.free.append(page)

    def own(self, page: int) -> int:
        """This page, or a copy of it where another row has it too: it is about to be written to."""
        if self.rows[page] == 1:
            return page
        copy = self.take()
        self.K[copy], self.V[copy] = self.K[page], self.V[page]
        self.give_back(page)
        return copy


class Pages:
    """Rows that are lists of pages, as `paged_attention` takes them. What is copied is shared until one of them writes to it."""

    def __init__(self, pool: Pool, K: np.ndarray, V: np.ndarray) -> None:
        self.pool, self.tables, self.lengths = pool, [[] for _ in K], [0] * len(K)
        self._write(K, V, np.full(len(K), K.shape[2]))

    def reset(self, K: np.ndarray, V: np.ndarray) -> None:
        """All pages are given back, and some taken."""
        self.rollback(0)
        self.__init__(self.pool, K, V)  # type: ignore[misc]

    def attend(self, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
        """One call."""
        self._write(K, V, np.full(len(Q), Q.shape[2]))
        return self._answer(Q)

    attend_some = Slots.attend_some

    def _answer(self, Q: np.ndarray) -> np.ndarray:
        table = np.zeros((len(Q), max(map(len, self.tables)) or 1), dtype=np.int64)  # behind a row's own stands a page of anybody
        for r, pages in enumerate(self.tables):
            table[r, : len(pages)] = pages
        return self.pool.ask(Q, self.pool.K.copy(), self.pool.V.copy(), block_table=table, lengths=np.array(self.lengths))

    def _write(self, K: np.ndarray, V: np.ndarray, counts: np.ndarray) -> None:
        for r, count in enumerate(counts):
            for i in range(count):
                place, slot = divmod(self.lengths[r], self.pool.page)
                if place == len(self.tables[r]):
                    self.tables[r].append(self.pool.take())
                page = self.tables[r][place] = self.pool.own(self.tables[r][place])
                self.pool.K[page, slot], self.pool.V[page, slot] = K[r, :, i], V[r, :, i]
                self.lengths[r] += 1

    def rollback(self, length: int) -> None:
        """Pages that hold nothing of a row any more are given back."""
        self.lengths = [min(each, length) for each in self.lengths]
        for pages, left in zip(self.tables, self.lengths, strict=True):
            while len(pages) > -(-left // self.pool.page):
                self.pool.give_back(pages.pop())

    def reorder(self, rows: np.ndarray) -> None:
        """Tables change places, and what comes twice is shared."""
        before, self.tables = self.tables, [list(self.tables[r]) for r in rows]
        self.lengths = [self.lengths[r] for r in rows]
        self._share()
        for page in (page for pages in before for page in pages):
            self.pool.give_back(page)

    def _share(self) -> None:
        for page in (page for pages in self.tables for page in pages):
            self.pool.rows[page] += 1

    def leave(self, rows: np.ndarray) -> None:
        """Their pages are free."""
        self.reorder(np.delete(np.arange(len(self.tables)), rows))

    def join(self, other: "Pages") -> None:
        """Its tables: the memory is one."""
        self.tables, self.lengths = [*self.tables, *other.tables], [*self.lengths, *other.lengths]

    def copy(self) -> "Pages":
        """The same pages, shared."""
        other = object.__new__(Pages)
        other.pool, other.tables, other.lengths = self.pool, [list(pages) for pages in self.tables], list(self.lengths)
        other._share()
        return other
