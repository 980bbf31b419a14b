"""Peers in processes of their own: nobody shares one, who dies stops nobody, and what one leaves running is waited for.

Each test forks from a fresh process, as a worker is: one that has had threads cannot be forked.
"""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from bench.runner.apart import POSSIBLE

if not POSSIBLE:
    pytest.skip("this system cannot fork, or does not show a process its threads", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
BEGIN = """
    import hashlib, os, threading, time
    import numpy as np
    from bench.peers.base import Built
    from bench.runner import settle
    from bench.runner.apart import Apart, NotBuilt
    from bench.runner.clock import ProcessorClock
    from bench.runner.timer import Entry, run_rounds

    pids = []

    def apart(call):
        entry = lambda: Entry(Built(call, [()], "said", "float64"), lambda _, output: np.array(output))
        return Apart(entry, ProcessorClock, pids)

    def rounds(least=4, **calls):
        entries = {name: apart(call) for name, call in calls.items()}
        run_rounds(entries, ProcessorClock(), np.random.default_rng(0), seconds=0.0, least=least)
        return {name: entry.finish(name, watch=False) for name, entry in entries.items()}
"""


def run(program: str) -> None:
    """A program that asserts what is said of it, in a process that has had no threads."""
    code = dedent(BEGIN) + dedent(program)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_peer_has_a_process_of_its_own():
    """Its samples, outputs and words come back, and the process ends."""
    run("""
        done = rounds(a=os.getpid, b=os.getpid)
        ran = {name: {int(kept.part) for kept in entry.kept.values()} for name, entry in done.items()}
        assert all(len(seen) == 1 for seen in ran.values())
        assert len(set.union(*ran.values(), {os.getpid()})) == 3
        assert {len(entry.samples) for entry in done.values()} == {4}
        assert {entry.built.dispatched for entry in done.values()} == {"said"}
        assert pids == []
    """)


def test_who_dies_or_raises_stops_nobody():
    """Its error is how its process ended, or what it raised; the others have all rounds."""
    run("""
        calls = []

        def dies():
            calls.append(1)
            if len(calls) > 5:
                os._exit(7)
            time.sleep(0.002)

        def raises():
            raise RuntimeError("not today")

        done = rounds(least=8, dies=dies, raises=raises, works=lambda: 1)
        assert done["dies"].error == "its process exited with code 7", done["dies"].error
        assert done["raises"].error == "RuntimeError: not today"
        assert len(done["works"].samples) == 8
        assert not done["works"].error
    """)


def test_who_cannot_be_built_says_why():
    """With the status that its line gets; and one that dies meanwhile has failed."""
    run("""
        def refuse():
            raise NotBuilt("not installed", "jax is not installed")

        refused, died = ("not installed", "jax is not installed"), ("failed", "its process exited with code 3")
        for make, expected in ((refuse, refused), (lambda: os._exit(3), died)):
            try:
                Apart(make, ProcessorClock, pids)
            except NotBuilt as why:
                assert (why.status, why.message) == expected, why
            else:
                raise AssertionError("it was built")
        assert pids == []
    """)


def test_what_one_leaves_running_is_waited_for_by_the_others():
    """A thread at work in one process, and a sample begun in another only when it has ended."""
    run("""
        def leaves():
            threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"x", b"", 30_000)).start()

        def follows():
            time.sleep(0.001)
            return settle.running(set(pids))

        done = rounds(least=6, leaves=leaves, follows=follows)
        assert {int(kept.part) for kept in done["follows"].kept.values()} == {0}
        assert not done["follows"].disturbed
    """)
