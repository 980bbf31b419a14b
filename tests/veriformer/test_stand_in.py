"""A stand-in at work: it finds no right answer in our frames, and no comparison of ours that it could replace."""

import pytest
import torch

from properties.evaluation.detection.catalogue import entry
from properties.evaluation.users_tests import answering, reading
from properties.evaluation.users_tests.stand_ins import named, of_fault, positional
from properties.implementations.patched import Functions
from veriformer.isolation.stand_in import AtWork, Seen

RETURNED = {"library": "torch", "dtypes": {}, "several": False, "takes_self": False}


@pytest.mark.parametrize("cheat", ["looks-for-the-answer-in-its-callers", "makes-comparisons-pass", "input-changed"])
def test_a_cheat_is_answered_with_and_seen_to_differ(cheat):
    """Zeros, from whoever looks for the answer or says that all is equal; what changes its input is held against it as it was."""
    signature = reading.Signature("attention", positional("attention"), named("attention"), None, {})
    seen, functions = Seen(), Functions()
    at_work = AtWork(reading, answering, signature, seen, of_fault(entry(cheat)).as_plain(), RETURNED)
    Q, K, V = (torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))

    answer = at_work(Q, K, V)
    functions.put_back()

    right = cheat == "input-changed"
    assert bool(answer.any()) is right
    assert seen.differed == (not right)
    assert V.any() or right
