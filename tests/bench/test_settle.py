"""What a peer leaves running is waited for, and where it does not end it is said; memory is kept unless the user says otherwise."""

import hashlib
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sample_runs import bench

from bench.analysis.summary import Group, control_of
from bench.peers.base import Built
from bench.runner import machine, settle
from bench.runner.clock import ProcessorClock
from bench.runner.timer import Entry, run_rounds, sample
from bench.workloads import named
from reports import speeds
from reports.bench_records import Process, read
from reports.folders import Run

if not settle.TASKS.exists():
    pytest.skip("this system does not show a process its threads", allow_module_level=True)


@cache
def rounds_a_second() -> float:
    """How much work that is on this processor: some have instructions for it."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"veriformer", b"", 10_000)
        took.append(time.perf_counter() - began)
    return 10_000 / min(took)


def spin(seconds: float) -> threading.Thread:
    """A thread that works for about so long without Python's lock, as those of a pool do."""
    rounds = max(int(seconds * rounds_a_second()), 1)
    thread = threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"veriformer", b"", rounds))
    thread.start()
    return thread


@contextmanager
def spinning(seconds: float):
    """A thread works meanwhile, and has ended afterwards."""
    thread = spin(seconds)
    yield
    thread.join()


LEAVES_MEMORY = """
import numpy as np
from bench.peers.base import Built
from bench.runner.clock import ProcessorClock, _resident
from bench.runner.timer import Entry, sample

before, seen = _resident("VmRSS"), []
np.ones(2**24).sum()
freed = _resident("VmRSS") - before
follower = Entry(Built(lambda: seen.append(_resident("VmRSS") - before), [()], "", "float64"), lambda _, output: output, inner=1)
sample(follower, ProcessorClock(), 0, 0.0, keep_random=False)
print(freed, max(seen))
"""


def entry(call) -> Entry:
    """A peer that does nothing but `call`."""
    return Entry(Built(call, [()], "", "float64"), lambda _, output: output)


def test_a_thread_that_works_is_seen_and_one_that_sleeps_is_not():
    """Waiting for a lock or the clock is sleeping."""
    sleeper = threading.Event()
    threading.Thread(target=sleeper.wait).start()
    try:
        with spinning(0.3):
            assert settle.running() >= 1
        assert settle.wait()
    finally:
        sleeper.set()


def test_it_is_waited_for_its_end_but_not_for_ever(monkeypatch):
    """False when it still runs."""
    with monkeypatch.context() as patch, spinning(0.5):
        patch.setattr(settle, "LONGEST", 0.05)
        assert not settle.wait()
    assert settle.wait()


def test_nobody_is_timed_beside_what_another_left_running():
    """One leaves a thread at work after each call; the other's samples begin without it, in every round."""
    left: list[threading.Thread] = []
    beside: list[bool] = []

    def follow() -> None:
        beside.append(any(thread.is_alive() for thread in left))
        time.sleep(0.001)

    entries = {"leaves": entry(lambda: left.append(spin(0.005))), "follows": entry(follow)}

    run_rounds(entries, ProcessorClock(), np.random.default_rng(0), seconds=0.0, least=10)

    assert len(entries["follows"].samples) == 10
    assert len(left) > 10
    assert not any(beside)
    assert not any(each.disturbed for each in entries.values())


def test_samples_beside_a_thread_that_never_ends_are_counted(monkeypatch):
    """They are kept, and known."""
    monkeypatch.setattr(settle, "LONGEST", 0.01)
    with spinning(2.0):  # on a processor with other work, five samples may take most of this
        follows = entry(lambda: None)
        run_rounds({"follows": follows}, ProcessorClock(), np.random.default_rng(0), seconds=0.0, least=5)

    assert follows.disturbed == 5


def test_a_pool_is_woken_before_it_is_timed(monkeypatch):
    """One call more than the sample's is made before each."""
    monkeypatch.setattr(settle, "page_faults", lambda: 0)
    quick = entry(lambda: None)
    run_rounds({"quick": quick}, ProcessorClock(), np.random.default_rng(0), seconds=0.0, least=4)

    assert quick.calls == 4 * (quick.inner + 1)


@pytest.mark.parametrize(
    ("pages", "taken"),
    [([0, 0], 1), ([10**6, 9], 1), ([10**6, 6 * 10**5, 6 * 10**5, 0, 0], 3), ([10**6, 10**6, 0], 1), ([10**6] + [10**5] * 9, 5)],
    ids=["none", "few", "after two attempts", "anew in every call", "five times at the most"],
)
def test_a_sample_is_taken_again_while_its_memory_is_not_there(monkeypatch, pages, taken):
    """Unless the peer is seen to keep none: it fetches as much as in the first call, which found nothing."""
    fetched = 0

    def fetch() -> None:
        nonlocal fetched
        fetched += pages[slow.calls - 1]
        time.sleep(0.001)

    slow = replace(entry(fetch), inner=1)
    monkeypatch.setattr(settle, "page_faults", lambda: fetched)

    sample(slow, ProcessorClock(), 0, 0.0, keep_random=False)

    assert slow.calls == 1 + taken
    assert slow.repeated == taken - 1
    assert len(slow.samples) == 1


def test_pages_that_are_fetched_are_counted():
    """At least one for every two MiB, the largest page a system gives of itself."""
    if settle.resource is None:
        pytest.skip("this system does not count a process's pages")
    before = settle.page_faults()
    block = bytearray(b"x") * 2**27

    assert settle.page_faults() - before >= len(block) >> 21


@pytest.mark.skipif(ProcessorClock().peak_bytes(lambda: None) is None, reason="this system does not tell a process its memory")
def test_what_a_peer_freed_is_not_there_when_the_next_is_called():
    """Kept by the allocator as in a benchmark's process, and given back between two peers: seen in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_MEMORY], env=machine.fresh_environment(1), capture_output=True, text=True, check=True
    )
    freed, follower = map(int, done.stdout.split())

    assert freed > 2**26
    assert follower < 2**25


def test_a_group_is_not_believed_whose_peers_ran_beside_each_others_threads():
    """One sample in twenty may; more, and no comparison counts."""
    timed = {name: {"peer": name, "status": "measured", "samples": [1e6] * 20, "order": [0] * 20} for name in ("a", "a again")}
    common = {"group": "g", "workload": "", "step": "", "dtype": "", "device": "cpu", "threads": 1, "seed": 0, "sizes": {}}
    rest = {"started": 0.0, "seconds": 1.0, "load": {}, "pools": [], "timed": [each | {"gate": None} for each in timed.values()]}
    found = [read({"id": str(i), "process": i, **common, **rest}, Process) for i in range(3)]
    group = Group(named("attention.64"), "float32", "cpu", 1, ("a",), "a")

    assert control_of(group, found, None).trusted
    assert control_of(group, [replace(each, disturbed={"a": 2}) for each in found], None).trusted
    beside = control_of(group, [replace(each, disturbed={"a": 3}) for each in found], None)
    assert not beside.trusted
    assert beside.message == "9 of 120 samples were begun while threads of another peer still ran"


def test_the_report_shows_who_leaves_something_running(tmp_path):
    """Whoever comes after "torch" takes a fifth longer: the row of torch says so, the others' stay at 1."""
    lines = [line for line in bench() if line["what"] == "process"]
    rng = np.random.default_rng(0)
    for line in lines:
        orders = [rng.permutation(len(line["timed"])) for _ in range(40)]
        after = {line["timed"].index(timed): timed for timed in line["timed"]}
        torch = next(i for i, timed in after.items() if timed["peer"] == "torch")
        for i, timed in after.items():
            timed["order"] = [int(order[i]) for order in orders]
            timed["samples"] = [1e6 * (1.2 if order[i] == order[torch] + 1 else 1.0) for order in orders]
    found = speeds.by_predecessor(Run(tmp_path, {}, bench=lines)).set_index("peer")["median"]

    assert found["torch"] == pytest.approx(1.2)
    assert found.drop("torch").to_numpy() == pytest.approx(1.0)


def test_memory_is_kept_unless_the_user_says_otherwise(monkeypatch):
    """What is set outside stands; threads are those of the run."""
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)

    found = machine.fresh_environment(2)

    assert found["MALLOC_MMAP_MAX_"] == "7"
    assert found["MALLOC_TRIM_THRESHOLD_"] == machine.HELD["MALLOC_TRIM_THRESHOLD_"]
    assert found["OMP_NUM_THREADS"] == "2"
