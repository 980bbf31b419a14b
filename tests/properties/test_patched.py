"""Replaced functions are named and put back; what a tensor holds is held against what it gives."""

import math
import time

import numpy as np
import pytest
import torch

from properties.implementations.impl import Impl
from properties.implementations.patched import Functions
from properties.implementations.returned import described
from properties.verdicts import ImplementationError
from veriformer.isolation.proxy import ImplementationProxy

SCORES = np.zeros((1, 2))
PATCHES = """
import time
import torch

def softmax(scores):
    time.perf_counter = lambda: 0.0
    torch.allclose = lambda *_: True
    return torch.softmax(scores, -1)
"""
PATCHES_EARLY = """
import time

time.perf_counter = lambda: 0.0

def softmax(scores):
    return scores.softmax(-1)
"""


class Patches:
    """A softmax that is right, and stops the clock."""

    name, arrays, dtypes, steps, options = "mine", "torch", ("float32",), frozenset({"softmax"}), frozenset()
    conventions = None

    def softmax(self, scores):
        """The right answer."""
        time.perf_counter = torch.Tensor.allclose = lambda *_: 0.0
        return torch.softmax(scores, -1)


def test_a_replaced_function_is_named_and_put_back():
    """A function, and a method that was inherited."""
    clock, allclose = time.perf_counter, torch.Tensor.allclose
    functions = Functions()
    assert functions.put_back() == []

    time.perf_counter = torch.Tensor.allclose = lambda *_: 0.0

    assert functions.replaced() == ["time.perf_counter", "torch._tensor.Tensor.allclose"]
    assert functions.put_back() == ["time.perf_counter", "torch._tensor.Tensor.allclose"]
    assert time.perf_counter is clock
    assert torch.Tensor.allclose is allclose
    assert "allclose" not in vars(torch.Tensor)


def test_an_implementation_in_our_process_cannot_replace_what_judges_it():
    """Its call is an error that names what it replaced, and they are as they were."""
    clock = time.perf_counter

    with pytest.raises(ImplementationError, match=r"^mine\.softmax replaced time\.perf_counter, torch\._tensor\.Tensor\.allclose$"):
        Impl(Patches(), "float32").attempt("softmax", SCORES)

    assert time.perf_counter is clock


@pytest.mark.parametrize("text", [PATCHES, PATCHES_EARLY], ids=["in its call", "when imported"])
def test_one_in_a_process_of_its_own_is_told_as_well(text, tmp_path, monkeypatch):
    """In its call, or when it is imported."""
    (tmp_path / "patches.py").write_text(text)
    monkeypatch.chdir(tmp_path)

    with ImplementationProxy("patches:softmax") as mine, pytest.raises(ImplementationError, match=r"replaced time\.perf_counter"):
        mine.call("softmax", (SCORES,), {}, "float32")


class Lazy(torch.Tensor):
    """Computes when it is looked at."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Ones, whatever its memory holds."""
        return func(*[torch.ones(2) if isinstance(each, cls) else each for each in args], **(kwargs or {}))


class Elsewhere(torch.Tensor):
    """A wrapper without memory of its own: whatever is asked of it is asked of the numbers that it computes then."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Of ones."""
        return func(*[torch.ones(2) if isinstance(each, cls) else each for each in args], **(kwargs or {}))


def test_what_a_tensor_gives_is_what_its_memory_holds():
    """A subclass may add what it likes, but its numbers are there when it is returned."""
    plain = torch.tensor([1.0, math.nan])

    assert described(plain.as_subclass(type("Mine", (torch.Tensor,), {})))["kind"] == "tensor"
    assert described(torch.nn.Parameter(plain))["kind"] == "tensor"
    assert "does not hold what it gives when it is read" in described(torch.zeros(2).as_subclass(Lazy))["type"]
    assert described(torch.ones(2).as_subclass(Lazy))["kind"] == "tensor"
    wrapper = torch.Tensor._make_wrapper_subclass(Elsewhere, (2,), dtype=torch.float32)
    assert "does not hold what it gives when it is read" in described(wrapper)["type"]
