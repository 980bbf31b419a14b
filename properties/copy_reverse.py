"""A task small enough to be learned in less than a minute: copy a sequence, or write it backwards.

    source  [COPY]    w_1 … w_k        target  w_1 … w_k END END …
    source  [REVERSE] w_1 … w_k        target  w_k … w_1 END END …

Every eighth sequence, chosen by a checksum of its tokens, is held out: no seed draws it for training, so what is asked of a
trained model it has never seen, neither to copy nor to reverse.
"""

import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from properties.implementations.weights import as_float64, load, mapped

EOS, BOS, COPY, REVERSE = range(4)
FIRST_WORD = 4
TRAINED = Path(__file__).with_name("data") / "copy_reverse.safetensors"
"""The weights that `examples/train_copy_reverse.py` ends with."""


@dataclass(frozen=True)
class Task:
    """How many tokens there are to write sequences with, and how many a sequence has at most."""

    tokens: int = 8
    longest: int = 8

    @property
    def vocab(self) -> int:
        """The tokens, and the four that say what to do and where a sequence begins and ends."""
        return FIRST_WORD + self.tokens


@dataclass(frozen=True)
class Sequences:
    """A batch to train or to ask with; all rows are filled up to the longest sequence the task has."""

    source: np.ndarray  # (b, 1 + longest)
    source_mask: np.ndarray  # (b, 1 + longest), False where a row is only filled up
    target: np.ndarray  # (b, longest + 1): what is to be written, END and nothing else behind it

    @property
    def given(self) -> np.ndarray:
        """What the decoder reads while it is taught: START, and the target one token later."""
        return np.concatenate([np.full((len(self.target), 1), BOS), self.target[:, :-1]], axis=1)

    @property
    def target_mask(self) -> np.ndarray:
        """Which tokens of the target are to be learned: all up to and with the first END."""
        return (np.cumsum(self.target == EOS, axis=1) == 0) | (self.given != EOS) & (self.target == EOS)

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each sequence has."""
        return self.source_mask.sum(axis=1) - 1

    def written_exactly(self, written: np.ndarray) -> np.ndarray:
        """(b,) True where every token of the row is the right one."""
        return (written == self.target).all(axis=1)

    def first(self, rows: int) -> "Sequences":
        """The first so many rows."""
        return Sequences(self.source[:rows], self.source_mask[:rows], self.target[:rows])

    def questions(self) -> set[bytes]:
        """Each row's source, comparable: two batches are disjoint when these sets are."""
        return {row[real].tobytes() for row, real in zip(self.source, self.source_mask, strict=True)}


def is_held_out(sequence: np.ndarray) -> bool:
    """Whether this sequence is kept from training."""
    return zlib.crc32(sequence.astype(np.uint8).tobytes()) % 8 == 0


def draw(task: Task, count: int, rng: np.random.Generator, *, held_out: bool = False, length: int | None = None) -> Sequences:
    """Sequences for training, or held out ones; of lengths from 1 to the longest, or all of the same `length`."""
    shape = (count, max(task.longest, length or 0) + 1)
    source, target = np.zeros(shape, dtype=np.int64), np.full(shape, EOS)
    source_mask = np.zeros(shape, dtype=bool)
    row = 0
    while row < count:
        k = rng.integers(1, task.longest + 1) if length is None else length
        sequence = rng.integers(FIRST_WORD, task.vocab, k)
        if is_held_out(sequence) != held_out:
            continue
        order = rng.choice((COPY, REVERSE))
        source[row, 0], source[row, 1 : k + 1] = order, sequence
        source_mask[row, : k + 1] = True
        target[row, :k] = sequence if order == COPY else sequence[::-1]
        row += 1
    return Sequences(source, source_mask, target)


@cache
def trained() -> tuple[dict[str, Any], dict[str, Any]]:
    """The trained model: its weights as nested dicts of float64 arrays, and the choices of its architecture."""
    parameters, choices = load(TRAINED)
    return mapped(as_float64, parameters), choices
