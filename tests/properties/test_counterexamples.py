"""A broken claim leaves a script behind that stands alone, says 1 while the fault is there and 0 once it is gone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from properties import test_again
from properties.counterexample import corpus
from properties.counterexample.find import SURELY, fault, smallest
from properties.counterexample.minimise import minimised, numbers
from properties.counterexample.write import as_data, from_data, write
from properties.implementations.calls import Asked
from properties.implementations.conventions import Conventions
from properties.implementations.impl import Impl
from properties.verdicts import ClaimBroken
from veriformer.commands.repro import command
from veriformer.isolation.proxy import ImplementationProxy

RIGHT = """
import numpy as np

def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)

def attention(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1], dtype=Q.dtype)
    return softmax(scores if mask is None else np.where(mask, scores, -np.inf).astype(Q.dtype)) @ V

class Right:
    arrays, dtypes = "numpy", ("float64", "float32")
    softmax, attention = staticmethod(softmax), staticmethod(attention)
"""
WRONG_SCALE = RIGHT.replace("np.sqrt(Q.shape[-1], dtype=Q.dtype)", "np.sqrt(V.shape[-1], dtype=Q.dtype)")
REMEMBERS = RIGHT.replace(
    "    return e / e.sum", "    if scores.shape in MEMORY: return MEMORY[scores.shape]\n    return e / e.sum"
)
REMEMBERS = REMEMBERS.replace(
    "    return e / e.sum(", "    MEMORY[scores.shape] = e / e.sum(axis=-1, keepdims=True)\n    return e / e.sum("
)
REMEMBERS = REMEMBERS.replace("def softmax", "MEMORY = {}\n\ndef softmax", 1)
FLAT = RIGHT.replace("    e = np.exp", "    scores = scores.ravel(order='K').reshape(scores.shape)\n    e = np.exp", 1)
BY_IDENTITY = RIGHT.replace(
    "    return e / e.sum(axis=-1, keepdims=True)",
    "    weights = e / e.sum(axis=-1, keepdims=True)\n    return KEPT.setdefault(id(scores), (scores, weights))[1]",
)
BY_IDENTITY = BY_IDENTITY.replace("def softmax", "KEPT = {}\n\ndef softmax", 1)
MASK_KEPT = RIGHT.replace("    scores = Q @", "    mask = MASKS.setdefault((V.ndim, Q.shape), mask)\n    scores = Q @", 1)
MASK_KEPT = MASK_KEPT.replace("def attention", "MASKS = {}\n\ndef attention", 1)
RAISES = RIGHT.replace("    e = np.exp", "    if scores.shape[-1] % 2: raise ValueError('odd')\n    e = np.exp", 1)
STRIDES = """
import torch

def residual_norm(X, Y, *, gain, bias, eps=1e-5):
    return torch.nn.functional.layer_norm(X + {}, X.shape[-1:], gain, bias, eps)
"""


def question(seed: int = 0) -> Asked:
    """An attention of many numbers, none of them special."""
    rng = np.random.default_rng(seed)
    Q, K, V = (rng.integers(-64, 65, (2, 3, n, d)) / 64 for n, d in ((4, 2), (5, 2), (5, 6)))
    return Asked("attention", (Q, K, V, rng.random((2, 1, 4, 5)) < 0.8), {})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of the user's, with the right implementation and wrong ones."""
    wrong = {
        "scale": WRONG_SCALE,
        "remembers": REMEMBERS,
        "flat": FLAT,
        "raises": RAISES,
        "identity": BY_IDENTITY,
        "mask": MASK_KEPT,
    }
    for name, text in {"right": RIGHT, **wrong}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def candidate(name: str) -> Impl:
    """One of them, in a process of its own."""
    return Impl(ImplementationProxy(f"{name}.py:Right"), "float32")


def run(script: Path, *options: str, isolated: str = "-I") -> subprocess.CompletedProcess:
    """The script by a Python that sees neither this project nor the current folder, unless they are installed."""
    return subprocess.run([sys.executable, isolated, script, *options], capture_output=True, text=True, check=False)


def test_a_wrong_answer_becomes_a_script_of_few_numbers(place):
    """The fault shows and is numbered; on the right implementation it does not show."""
    found = smallest(candidate("scale"), "A2", "test_scale", [question()])

    assert found.numbers <= 16
    script = write(place / "runs" / "1" / "counterexamples", found, candidate="scale.py:Right")
    on_the_fault, once_fixed = run(script), run(script, "--candidate", "right.py:Right")
    assert (on_the_fault.returncode, once_fixed.returncode) == (1, 0), on_the_fault.stdout + once_fixed.stderr
    assert "expected" in on_the_fault.stdout
    assert "got" in on_the_fault.stdout
    assert not [line for line in script.read_text().splitlines() if line.startswith(("from properties", "import properties"))]


def test_what_is_answered_from_memory_takes_two_calls_to_show(place):
    """The last answer kept by shape is right the first time: the script asks twice."""
    asked = [Asked("softmax", (np.array([[0.0, 1.0]]),), {}), Asked("softmax", (np.array([[3.0, 1.0]]),), {})]

    found = smallest(candidate("remembers"), "A5", "test_memory", asked)

    assert len(found.calls) == 2
    script = write(place, found, candidate="remembers.py:Right")
    assert (run(script).returncode, run(script, "--candidate", "right.py:Right").returncode) == (1, 0)


def test_an_exception_is_a_fault_with_a_script_too(place):
    """An odd number of keys is refused by this one: the smallest such question is one key."""
    found = smallest(candidate("raises"), "A5", "test_odd", [Asked("softmax", (np.arange(15.0).reshape(3, 5),), {})])

    assert found.calls[0].args[0].shape == (1, 1)
    script = write(place, found, candidate="raises.py:Right")
    broken = run(script)
    assert broken.returncode == 1
    assert "raised ValueError: odd" in broken.stdout
    assert run(script, "--candidate", "right.py:Right").returncode == 0


def test_nan_in_a_masked_key_has_a_script_where_it_is_to_be_blocked(place):
    """Masked for all, it has one right answer; where it leaks, or a query attends to it, it has more than one."""
    question = Asked("attention", (np.ones((1, 1, 1, 1)), np.array([[[[0.0], [np.nan]]]]), np.ones((1, 1, 2, 1))), {})
    masked = question._replace(args=(*question.args, np.array([[True, False]])))
    attended = question._replace(args=(*question.args, np.array([[True, True]])))
    (place / "added.py").write_text(RIGHT.replace("np.where(mask, scores, -np.inf)", "(scores + np.where(mask, 0.0, -np.inf))"))

    found = smallest(candidate("right"), "M3", "test_nan", [masked])
    with ImplementationProxy(f"{place / 'added.py'}:Right") as leaking:
        impl = Impl(leaking, "float32").under(Conventions(non_finite_masked_key="blocked", fully_masked_row="nan"))
        wrong = smallest(impl, "M3", "test_nan", [masked])
        beside = smallest(impl, "M3", "test_nan", [attended])
        leaks = smallest(impl.under(Conventions(non_finite_masked_key="leaks", fully_masked_row="nan")), "M3", "test_nan", [masked])

    assert found is beside is leaks is None
    assert wrong is not None
    script = write(place, wrong, candidate="added.py:Right")
    assert (run(script).returncode, run(script, "--candidate", "right.py:Right").returncode) == (1, 0)


def test_a_fault_of_one_memory_layout_has_a_script_that_lays_it_so(place):
    """Reading a transposed array as if it were not shows only where the array is transposed: the script carries the layout."""
    asked = Asked("softmax", (np.arange(12.0).reshape(3, 4),), {}, "transposed")

    found = smallest(candidate("flat"), "A5", "test_layout", [asked])

    script = write(place, found, candidate="flat.py:Right")
    assert (run(script).returncode, run(script, "--candidate", "right.py:Right").returncode) == (1, 0)
    assert found.given[0].layout == "transposed"


def test_a_fault_of_one_arrays_layout_has_a_script_that_lays_that_array_so(place):
    """Y is walked with X's strides: of four arrays the script lays one or two in another way, and the others as usual."""
    (place / "strides.py").write_text(STRIDES.format("Y.as_strided(Y.shape, X.stride())"), encoding="utf-8")
    (place / "own.py").write_text(STRIDES.format("Y"), encoding="utf-8")
    numbers = {"gain": np.ones(4), "bias": np.zeros(4)}
    rows = tuple(np.random.default_rng(0).integers(-8, 9, (2, 1, 4, 4)) / 8)
    asked = Asked("residual_norm", rows, numbers, "transposed+contiguous+strided+offset")

    with ImplementationProxy(f"{place / 'strides.py'}:residual_norm") as walking:
        found = smallest(Impl(walking, "float32"), "R1", "test_layouts", [asked])

    assert found.given[0].layout == "transposed+contiguous+contiguous+contiguous"
    script = write(place, found, candidate="strides.py:residual_norm")
    assert (run(script).returncode, run(script, "--candidate", "own.py:residual_norm").returncode) == (1, 0)


def test_a_fault_of_arrays_used_twice_has_a_script_that_uses_them_twice(place):
    """The answer kept for an array, whatever it holds by now: the script asks, refills the same memory and asks again."""
    asked = Asked("softmax", (np.arange(12.0).reshape(3, 4),), {}, "refilled")

    found = smallest(candidate("identity"), "A5", "test_layout", [asked])

    script = write(place, found, candidate="identity.py:Right")
    assert (run(script).returncode, run(script, "--candidate", "right.py:Right").returncode) == (1, 0)
    assert found.numbers <= 2


def test_a_fault_of_a_second_request_has_a_script_that_asks_two(place):
    """The mask kept for a shape is seen by asking with another one first: the script asks so, then judges."""
    asked = question()._replace(layout="asked before")

    found = smallest(candidate("mask"), "A2", "test_second", [asked])

    script = write(place, found, candidate="mask.py:Right")
    assert (run(script).returncode, run(script, "--candidate", "right.py:Right").returncode) == (1, 0)
    assert found.given[0].layout == "asked before"
    assert found.numbers <= 4


def test_wrong_usage_of_a_script_is_exit_code_2(place):
    """An implementation that does not exist is not mistaken for one that is right or wrong."""
    script = write(place, smallest(candidate("scale"), "A2", "test_scale", [question()]), candidate="scale.py:Right")

    for target in ("nowhere:at_all", "right.py:left", "missing.py:Right"):
        refused = run(script, "--candidate", target)
        assert refused.returncode == 2, refused.stdout
        assert target in refused.stderr


def test_a_right_implementation_has_no_counterexample(place):
    """Nothing is written where no answer is out of bounds."""
    assert smallest(candidate("right"), "A2", "test_scale", [question()]) is None


def test_minimising_keeps_what_the_fault_needs():
    """Only what matters is left: here a key that is not zero, in a place that may be looked at."""
    asked = question()
    smaller = minimised(asked, lambda call: bool(call.args[1].any()))

    assert numbers(smaller) == 1
    assert smaller.args[1].shape == (1, 1, 1, 1)


def test_repro_runs_the_script_of_an_id(place):
    """By its whole name or its beginning; on another implementation; and a wrong name is one line."""
    found = smallest(candidate("scale"), "A2", "test_scale", [question()])
    write(place / "runs" / "1" / "counterexamples", found, candidate="scale.py:Right")

    def repro(*options):
        return CliRunner().invoke(command, options)

    assert found.id in repro().output
    assert repro(found.id).exit_code == 1
    assert repro(found.id[:8], "--candidate", "right.py:Right").exit_code == 0
    assert repro(found.id, "--run", "runs/1").exit_code == 1
    wrong = repro("Z9")
    assert wrong.exit_code == 2
    assert "no counterexample 'Z9'" in wrong.output
    assert repro("A2", "--run", "runs/2").exit_code == 2


def test_a_counterexample_is_asked_again_next_time(place):
    """It joins the corpus: the same fault is found without a search, and the right implementation passes."""
    found = smallest(candidate("scale"), "A2", "test_scale", [question()])
    write(place / "runs" / "1" / "counterexamples", found, candidate="scale.py:Right")

    (stored,) = corpus.stored(place)
    again = test_again.asking_again(stored.claim, stored.steps, [stored])

    again(impl=candidate("right"))
    with pytest.raises(ClaimBroken, match=found.id):
        again(impl=candidate("scale"))


def test_the_base_loses_no_bit():
    """What JSON cannot hold by itself comes back all the same: bits, shapes without numbers, NaN and infinity."""
    values = {"a": np.array([0.1, -0.0, np.nan, np.inf]), "b": np.zeros((0, 3), dtype=np.int64), "c": [np.inf, True, None, "x", 2]}

    back = from_data(json.loads(json.dumps(as_data(values))))

    assert back["a"].tobytes() == values["a"].tobytes()
    assert back["b"].shape == (0, 3)
    assert back["b"].dtype == np.int64
    assert back["c"] == values["c"]


def test_a_question_that_cannot_be_asked_is_no_fault(place):
    """Minimising may try nonsense; that nonsense is refused says nothing about the implementation."""
    assert (
        fault(candidate("right"), [Asked("attention", (np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 3)), np.ones((1, 1, 1, 1))), {})])
        is None
    )
    assert fault(candidate("scale"), [question()]) == SURELY
