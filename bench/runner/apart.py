"""A peer in a process of its own: its thread pools, its memory and its death are nobody else's.

Runtimes disturb one another in one process even while all of their threads sleep: beside CTranslate2, which brings an OpenMP of its
own, `optimized` generated more slowly. So each peer of a group is forked from the worker, which itself
starts no thread of torch's, and does what the worker tells it, one at a time.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from bench.peers.base import Built
from bench.peers.kernels import kernels
from bench.runner import settle
from bench.runner.clock import Clock, without_garbage_collection
from bench.runner.correctness import widened
from bench.runner.timer import Entry, Kept
from properties.run.subprocesses import ending

NOTHING = Built(print, [], "", "")
POSSIBLE = hasattr(os, "fork") and settle.TASKS.exists()


class NotBuilt(Exception):
    """The peer cannot be had; status and message as a line of `bench.jsonl` has them."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Apart:
    """The worker's side of such a process: what `run_rounds` asks of an entry, asked there.

    `make` builds the entry, in the new process. `pids` are those of all peers of the group: this one's is added, and before each
    of its samples all of them must be idle. Raises NotBuilt.
    """

    def __init__(self, make: Callable[[], Entry], clock: Callable[[], Clock], pids: list[int]) -> None:
        self.error, self.skipped_because, self.sample_ns, self.disturbed = "", "", 0.0, 0
        self._pipe, theirs = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._pipe.close()
            _serve(theirs, make, clock)
        theirs.close()
        self._pids = pids
        pids.append(self._pid)
        refusal = self._answer()
        if refusal:
            self._asked("end")
        if refusal or self.error:
            raise NotBuilt(*(refusal or ("failed", self.error)))

    def prepare(self, clock: Clock) -> None:  # noqa: ARG002 (it has a clock of its own)
        """As `Entry.prepare`."""
        settle.wait(self._pids)
        self._told("prepare")

    def sample(self, clock: Clock, place: int, started: float, *, keep_random: bool) -> None:  # noqa: ARG002 (as above)
        """As `Entry.sample`, once all processes of the group are idle."""
        self.disturbed += not settle.wait(self._pids)
        self._told("sample", place, started, keep_random)

    def finish(self, name: str, *, watch: bool) -> Entry:
        """See `finish`. The process ends."""
        entry = self._asked("finish", name, watch)
        if isinstance(entry, Entry):
            self._asked("end")
            return replace(entry, disturbed=entry.disturbed + self.disturbed, skipped_because=self.skipped_because)
        return Entry(NOTHING, max, error=self.error)

    def _told(self, *order: Any) -> None:
        """An order that is answered with how the entry is now."""
        state = self._asked(*order)
        if state is not None:
            self.error, self.sample_ns = state

    def _asked(self, *order: Any) -> Any:
        """The answer to an order, None from a process that has ended."""
        if self._pid not in self._pids:
            return None
        with suppress(BrokenPipeError):  # it has ended: the answer is that
            self._pipe.send(order)
        return self._answer()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            _, status = os.waitpid(self._pid, 0)
            self._pids.remove(self._pid)
            self.error = self.error or f"its process {ending(os.waitstatus_to_exitcode(status))}"
            return None


def finish(entry: Entry, name: str, *, watch: bool) -> Entry:
    """The same after its last sample, without what cannot be sent; with `watch` one more call shows which kernels run."""
    if entry.error:
        return Entry(NOTHING, max, error=entry.error)
    ran = kernels(entry.built, name) if watch else ""
    said = "; ".join(part for part in (entry.built.dispatched, ran) if part)
    kept = {when: Kept(each.variant, widened(each.part)) for when, each in entry.kept.items()}
    return replace(entry, built=replace(NOTHING, dispatched=said, dtype=entry.built.dtype), part=max, kept=kept)


def _serve(pipe: Connection, make: Callable[[], Entry], clock_of: Callable[[], Clock]) -> NoReturn:
    """Build, carry out orders until the last, and end without what the worker would do at its end."""
    code = 1
    try:
        clock, entry = clock_of(), make()
        pipe.send(None)
        with without_garbage_collection():
            while (order := pipe.recv())[0] != "end":
                match order:
                    case ("prepare",):
                        entry.prepare(clock)
                        pipe.send((entry.error, entry.sample_ns))
                    case ("sample", place, started, keep_random):
                        entry.sample(clock, place, started, keep_random=keep_random)
                        pipe.send((entry.error, entry.sample_ns))
                    case ("finish", name, watch):
                        pipe.send(finish(entry, name, watch=watch))
        code = 0
    except NotBuilt as why:
        pipe.send((why.status, why.message))
    except EOFError:  # the worker has ended
        code = 0
    finally:
        os._exit(code)
