"""The properties of caches: they let a correct cache pass, and show each faulty one by a program of at most six operations."""

from functools import partial

import pytest

from properties.evaluation.detection.cache import FAULTS
from properties.evaluation.detection.catalogue import entry
from properties.implementations.impl import Impl
from properties.implementations.oracle import oracle
from properties.implementations.recomputed import Recomputed
from properties.test_cache import test_a_cache_answers_as_the_whole_model as drawn
from properties.test_cache import test_every_two_operations_on_a_cache as enumerated
from properties.verdict.judge import run_property
from reports.records import Verdict


class Adapter:
    """An implementation whose cache recomputes everything, or has the one fault of `kind`."""

    name, arrays, dtypes, steps, conventions = "recomputed", "numpy", ("float64",), frozenset({"kv_cache"}), None

    def __init__(self, kind: type[Recomputed] = Recomputed) -> None:
        self.kind = kind

    def kv_cache(self, source, source_mask=None, **model):
        return self.kind(partial(oracle, "transformer"), source, source_mask, **model)


class RollsBackTooFar(Recomputed):
    """One token too many is forgotten, though the length is told right."""

    shift = 0

    @property
    def length(self):
        return self.tokens.shape[1] + self.shift

    def rollback(self, length):
        self.shift += self.length - length and length > 0
        super().rollback(length - self.shift)


class ReordersWordsOnly(Recomputed):
    """The rows change places, their sources stay."""

    def reorder(self, rows):
        self.tokens, self.lengths = self.tokens[rows], self.lengths[rows]


class ResetsTheWordsOnly(Recomputed):
    """Used again, it still reads the first source."""

    def reset(self, source, source_mask=None):
        first = getattr(self, "source", source), getattr(self, "real", source_mask)
        super().reset(*(first if len(first[0]) == len(source) else (source, source_mask)))


class SharesWhatItCopies(Recomputed):
    """A copy is the same cache under another name."""

    def copy(self):
        return self


class TellsTheChunkForTheLength(Recomputed):
    """Its length is that of the last chunk."""

    length = 0

    def prefill(self, tokens):
        self.length = tokens.shape[1]
        return super().prefill(tokens)

    def rollback(self, length):
        self.length = length
        super().rollback(length)


def judged(implementation, dtype="float64", by=drawn, examples=60):
    """By one property, with the examples of the `ci` profile, as a run would judge it."""
    return run_property(by, Impl(implementation, dtype), seed=0, examples=examples)


@pytest.mark.parametrize("by", [drawn, enumerated])
def test_an_correct_cache_passes(by):
    """Recomputing is right, and something was compared."""
    judgement = judged(Adapter(Recomputed), by=by, examples=4)

    assert judgement.verdict is Verdict.PASS, judgement.message
    assert judgement.compared


@pytest.mark.parametrize(
    ("kind", "by"),
    [
        (RollsBackTooFar, drawn),
        (ReordersWordsOnly, enumerated),
        (ResetsTheWordsOnly, drawn),
        (SharesWhatItCopies, enumerated),
        (TellsTheChunkForTheLength, drawn),
    ],
)
def test_a_faulty_cache_is_shown_by_a_short_program(kind, by):
    """Each is caught, and its counterexample is a program of at most six operations."""
    assert_shown(judged(Adapter(kind), by=by))


OF_CACHES = [fault.id for fault in FAULTS if "kv_cache" in fault.steps]
OF_EVEN_ROWS = [fault.id for fault in FAULTS if "kv_cache" in fault.steps and fault.base != "uneven_cache"]
FEW = {*OF_EVEN_ROWS[::3]} - {"first-layer-alone-reordered"}  # which only models of two layers show
SAMPLE = [pytest.param(each, marks=() if each in FEW else pytest.mark.long) for each in OF_CACHES]


@pytest.mark.parametrize("identifier", SAMPLE)
def test_every_cache_that_failed_somebody_is_shown_by_a_short_program(identifier):
    """Those of the catalogue of faults too."""
    fault = entry(identifier)

    assert_shown(judged(fault.implementation(), fault.dtype))


def assert_shown(judgement):
    """By a program of at most six operations."""
    assert judgement.verdict in (Verdict.FAIL, Verdict.ERROR), judgement.message
    operations = judgement.counterexample.splitlines()
    assert 1 <= len(operations) <= 6, judgement.counterexample
    assert all(operation.startswith("[") for operation in operations), judgement.counterexample
