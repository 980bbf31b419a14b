"""An implementation in a process of its own: the parent gets an answer, or an exception that says what happened."""

import textwrap
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from properties.implementations.layouts import Handed
from properties.verdicts import ImplementationCrash, ImplementationError, ImplementationTimeout, record
from veriformer.isolation import wire
from veriformer.isolation.proxy import LAYOUTS, ImplementationProxy, TargetError

SCORES = np.array([[0.0, 1.0], [2.0, -1.0]])
CORRECT = """
    import numpy as np
    def softmax(scores):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)
"""


@pytest.fixture
def candidate(tmp_path, monkeypatch):
    """Write a module `mine` and open an attribute of it as an implementation; all are closed at the end."""
    monkeypatch.chdir(tmp_path)
    opened = []

    def write(source: str, target: str = "mine:softmax", **options) -> ImplementationProxy:
        (tmp_path / "mine.py").write_text(textwrap.dedent(source))
        opened.append(ImplementationProxy(target, arrays=options.pop("arrays", "numpy"), **options))
        return opened[-1]

    yield write
    for proxy in opened:
        proxy.close()


def softmax(proxy: ImplementationProxy, scores: np.ndarray = SCORES, **options) -> np.ndarray:
    """One call."""
    return proxy.call("softmax", [scores], {}, "float32", **options)


# ---- what is found ----


@pytest.mark.parametrize("target", ["mine:softmax", "mine.py:softmax", "mine.softmax", "mine"])
def test_a_function_is_found_by_module_by_file_and_as_an_attribute(candidate, target):
    """All the ways of naming it lead to the same answer, widened to float64."""
    answer = softmax(candidate(CORRECT, target))

    assert answer.dtype == np.float64
    assert np.array_equal(answer, answer.astype(np.float32))
    assert answer.argmax(axis=-1).tolist() == [1, 0]


def test_a_class_is_made_once_and_offers_its_methods(candidate):
    """One object lives through all calls, so that state shows; it says itself what it takes and supports."""
    source = """
        class Mine:
            arrays, dtypes, conventions = "numpy", ("float32",), {}
            def __init__(self): self.calls = 0
            def softmax(self, scores): self.calls += 1; return scores * 0 + self.calls
            def mask(self, n, m): return [[True] * m] * n
    """
    proxy = candidate(source, "mine:Mine")

    assert proxy.steps == {"softmax", "mask"}
    assert proxy.dtypes == ("float32",)
    assert [softmax(proxy)[0, 0] for _ in range(3)] == [1, 2, 3]


def test_torch_tensors_are_handed_to_a_implementation_that_takes_them(candidate):
    """In the dtype asked for, bfloat16 too."""
    proxy = candidate("import torch\ndef softmax(scores): return torch.softmax(scores, dim=-1)", arrays="torch")

    answer = proxy.call("softmax", [np.zeros((1, 3))], {}, "bfloat16")

    assert answer.tolist() == [[0.333984375] * 3]  # 1/3 to eight bits


@pytest.mark.parametrize(
    ("source", "target", "options", "complaint"),
    [
        (CORRECT, "nowhere:softmax", {}, "no module named 'nowhere'"),
        (CORRECT, "nowhere.py:softmax", {}, "no file 'nowhere.py'"),
        (CORRECT, "mine:softmaxx", {}, "mine has no attribute 'softmaxx'"),
        (CORRECT, "mine:", {}, "expected module:attribute or path/to/file.py:attribute, got 'mine:'"),
        (CORRECT, "mine:softmax", {"step": "soft"}, "step: expected one of embedding"),
        (CORRECT, "mine:softmax", {"arrays": "jax"}, "arrays: expected torch or numpy, got 'jax'"),
        (CORRECT, "mine:softmax", {"max_time": 0}, "max_time: expected a number of seconds above 0, got 0"),
        (
            "import nonsense\n",
            "mine:softmax",
            {},
            "mine does not import: ModuleNotFoundError: No module named 'nonsense' (mine.py:1",
        ),
        ("def softmax(:\n", "mine:softmax", {}, "SyntaxError"),
        ("1 / 0\n", "mine:softmax", {}, "ZeroDivisionError: division by zero (mine.py:1"),
        ("mine = 3\n", "mine:mine", {}, "is not callable"),
        ("def mine(x): return x\n", "mine:mine", {}, "say which one it is with --as STEP"),
        ("class Mine:\n  def __init__(self, d): pass\n", "mine:Mine", {}, "cannot be made without arguments"),
        ("class Mine:\n  dtypes=('int8',)\n  def softmax(self, s): pass\n", "mine:Mine", {}, "dtypes: expected some of float64"),
    ],
)
def test_a_target_that_cannot_be_tested_is_a_usage_error_in_one_line(candidate, source, target, options, complaint):
    """Nothing about the implementation is judged, and the line says what was expected."""
    with pytest.raises(TargetError) as caught:
        candidate(source, target, **options)

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- what may go wrong in a call ----


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("return scores.tolist()", "expected a numpy.ndarray of dtype float32, got list"),
        ("return scores.astype('float64')", "expected a result of dtype float32, got float64"),
        ("return scores > 0", "expected a result of dtype float32, got bool"),
        ("scores += 1; return scores", "changed its input scores in place"),
        ("raise KeyError('temperature')", "raised KeyError: 'temperature' (mine.py:2 in softmax)"),
    ],
)
def test_a_wrong_answer_is_an_error_that_names_what_came(candidate, body, complaint):
    """Wrong type, wrong dtype, a changed input, an exception with the user's own line."""
    proxy = candidate(f"def softmax(scores):\n    {body}\n")

    with pytest.raises(ImplementationError) as caught:
        softmax(proxy)

    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("os._exit(0)", "exited with code 0 during the call"),
        ("sys.exit('no licence')", "exited with code 1 during the call"),
        ("ctypes.string_at(0)", "was killed by SIGSEGV during the call (mine.py:4 in softmax)"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL (out of memory?) during the call"),
    ],
)
def test_a_death_is_an_exception_and_the_next_call_gets_a_new_process(candidate, body, complaint):
    """The run goes on; the same input fails again in the same words without costing another process."""
    proxy = candidate(
        f"import ctypes, os, sys\ndef softmax(scores):\n    if scores.max() > 1:\n        {body}\n    return scores\n"
    )

    for _ in range(2):
        with pytest.raises(ImplementationCrash) as caught:
            softmax(proxy)
        assert complaint in str(caught.value)

    assert softmax(proxy, np.zeros((1, 1))).tolist() == [[0.0]]


def test_a_hang_is_a_timeout_that_names_the_line(candidate):
    """After `max_time`; the process is ended."""
    proxy = candidate("import time\ndef softmax(scores):\n    time.sleep(1000)\n", max_time=0.5)

    with pytest.raises(ImplementationTimeout, match=r"did not answer within 0\.5 s \(mine\.py:3 in softmax\)"):
        softmax(proxy)


@pytest.mark.parametrize(
    ("source", "options", "kind", "complaint"),
    [
        ("import os\nos._exit(0)\n", {}, ImplementationCrash, "exited with code 0 while it was imported"),
        (
            "import time\ntime.sleep(1000)\n",
            {"import_time": 0.5, "max_time": 0.5},
            ImplementationTimeout,
            "was not imported within 0.5 s",
        ),
    ],
)
def test_a_target_that_does_not_survive_its_import_fails_every_call(candidate, source, options, kind, complaint):
    """It is a verdict about the implementation, on each of its claims, and no usage error."""
    proxy = candidate(source, **options)

    assert proxy.steps == {"softmax"}
    with pytest.raises(kind) as caught:
        softmax(proxy)
    assert complaint in str(caught.value)


def test_what_a_implementation_prints_does_not_disturb_its_answer(candidate):
    """More than a pipe holds, on both streams, and a closed stdout."""
    source = """
        import os, sys
        def softmax(scores):
            print("x" * 300_000); print("y" * 300_000, file=sys.stderr)
            os.close(1)
            return scores
    """

    assert np.array_equal(softmax(candidate(source)), SCORES)


def test_what_a_implementation_does_to_global_state_stays_with_it(candidate):
    """Its random state and error handling are not ours."""
    np.random.seed(7)  # noqa: NPY002 (the global state is what this is about)
    expected = np.random.RandomState(7).random()
    proxy = candidate("import numpy as np\ndef softmax(scores):\n    np.random.seed(1); np.seterr(all='raise'); return scores\n")

    softmax(proxy)

    assert np.random.random() == expected  # noqa: NPY002
    assert np.geterr()["over"] != "raise"


# ---- under Hypothesis ----


def smallest_failing(proxy: ImplementationProxy, kind: type[Exception]) -> np.ndarray:
    """The input Hypothesis shrinks to."""
    seen = []

    @hypothesis.settings(database=None, deadline=None, max_examples=200)
    @hypothesis.seed(0)
    @given(arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.integers(-8, 8).map(float)))
    def holds(scores):
        try:
            softmax(proxy, scores)
        except kind:
            seen.append(scores)
            raise

    record.start()
    with pytest.raises(kind):
        holds()
    return seen[-1]


def test_a_crash_shrinks_like_any_other_failure(candidate):
    """To one number, the smallest that crashes."""
    proxy = candidate("import os\ndef softmax(scores):\n    if scores.max() > 2: os._exit(0)\n    return scores\n")

    assert smallest_failing(proxy, ImplementationCrash).tolist() == [[3.0]]


def test_a_hang_shrinks_within_its_ration_of_time(candidate):
    """The first hang takes `max_time`, the following ones little: the search for a smaller input ends."""
    proxy = candidate(
        "import time\ndef softmax(scores):\n    if scores.max() > 2: time.sleep(1000)\n    return scores\n", max_time=2.0
    )
    began = time.monotonic()

    smallest = smallest_failing(proxy, ImplementationTimeout)

    assert smallest.size <= 2
    assert smallest.max() > 2
    assert time.monotonic() - began < 40


# ---- layouts and messages ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_memory_layout_holds_the_same_numbers(candidate, layout):
    """Transposed, strided, offset and expanded inputs are the same matrix."""
    same = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])

    assert np.array_equal(softmax(candidate("def softmax(scores):\n    return scores.copy()\n"), same, layout=layout), same)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_write_into_any_layout_is_seen(layout):
    """Even where it leaves the numbers as they were but touches the gap between them."""
    handed = Handed("scores", np.ones((2, 3)), "float32", None, layout)
    assert not handed.changed()

    handed.memory.reshape(-1)[-1] = 5.0

    assert handed.changed()


def test_each_array_may_have_a_layout_of_its_own(candidate):
    """Two arrays of a call, of which one is transposed; what is no layout is refused by name."""
    source = """
        def residual_norm(X, Y, *, gain, bias):
            return X * 0 + X.flags.c_contiguous + 2 * Y.flags.c_contiguous
    """
    proxy = candidate(source, "mine:residual_norm")
    X, vector = np.arange(6.0).reshape(1, 2, 3), np.ones(3)

    def asked(layout: str) -> float:
        return proxy.call("residual_norm", (X, X), {"gain": vector, "bias": vector}, "float64", layout=layout)[0, 0, 0]

    assert (asked("transposed+contiguous"), asked("contiguous+transposed"), asked("contiguous")) == (2.0, 1.0, 3.0)
    with pytest.raises(ValueError, match=r"layout: expected one of .*, got 'transposed\+sideways'"):
        asked("transposed+sideways")


PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
ARRAYS = st.sampled_from([np.float64, np.bool_, np.int64]).flatmap(
    lambda dtype: arrays(dtype, st.lists(st.integers(0, 3), max_size=3).map(tuple))
)
MESSAGES = st.recursive(
    PLAIN | ARRAYS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
)


def same(left, right) -> bool:
    """Equal in structure and bit for bit in every array."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and left == right


@given(MESSAGES)
def test_a_message_arrives_as_it_was_sent(body):
    """Nested values and arrays of every shape, empty ones too, NaN payloads and −0 included."""
    sent = memoryview(wire.encode(body))
    read = iter(range(len(sent)))

    def take(count: int) -> bytearray:
        return bytearray(sent[next(read)] for _ in range(count))

    assert same(wire.receive(take), body)
