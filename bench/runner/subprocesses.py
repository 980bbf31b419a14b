"""A fresh process of a benchmark, from outside: an order goes in, lines come out, and a death names the peer at work."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from bench.runner.machine import fresh_environment
from properties.run.subprocesses import end, ending, start

SILENCE = 600.0  # seconds without a line after which a call counts as hanging, or the oracle that judges it


class Died(Exception):
    """The process ended in the middle of a peer's work."""

    def __init__(self, group: str, peer: str, message: str) -> None:
        super().__init__(message)
        self.group, self.peer, self.message = group, peer, message


class Silent(Died):
    """It was ended, since nothing had come from it for too long."""


class NotJudged(Died):
    """It was ended, since the oracle took too long to judge what a peer gave."""


def lines_of(order: dict[str, Any], silence: float = SILENCE, module: str = "bench.runner.worker") -> Iterator[dict[str, Any]]:
    """Run `python -m module` on this order and yield its lines. Raises Died if it ends badly, Silent after `silence` seconds.

    While the oracle judges, as a line with "judging" says, it may be silent for SILENCE seconds, since that is not the peer's time;
    raises NotJudged after them. Closing the iterator ends the process, and what it started (valgrind, compilers).
    """
    process = start(
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=fresh_environment(order["threads"]),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    complaints: list[bytes] = []
    incoming: queue.Queue[bytes | None] = queue.Queue()
    readers = (
        threading.Thread(target=_forward, args=(process.stdout, incoming), daemon=True),
        threading.Thread(target=_keep_last, args=(process.stderr, complaints), daemon=True),
    )
    for reader in readers:
        reader.start()
    at, judging = ("", ""), False
    try:
        with suppress(BrokenPipeError), process.stdin as pipe:  # one that is dead already is reported below
            pipe.write(json.dumps(order).encode())
        while (raw := _next(incoming, SILENCE if judging else silence, at, judging=judging)) is not None:
            line = json.loads(raw)
            judging = "judging" in line
            at = (line["at"][0], line["at"][1]) if "at" in line else at
            yield line
        if process.wait() != 0:
            readers[1].join(timeout=5)
            raise Died(*at, _how(process.returncode, complaints))
    finally:
        end(process)


def _next(incoming: "queue.Queue[bytes | None]", silence: float, at: tuple[str, str], *, judging: bool) -> bytes | None:
    try:
        return incoming.get(timeout=silence)
    except queue.Empty:
        if judging:
            raise NotJudged(*at, f"the oracle did not judge what it gave within {silence:.0f} s") from None
        raise Silent(*at, f"no answer within {silence:.0f} s") from None


def _forward(stream: IO[bytes], incoming: "queue.Queue[bytes | None]") -> None:
    for line in stream:
        incoming.put(line)
    incoming.put(None)


def _keep_last(stream: IO[bytes], kept: list[bytes]) -> None:
    for line in stream:
        kept.append(line)
        del kept[:-20]


def _how(code: int, complaints: list[bytes]) -> str:
    last = next((line.decode(errors="replace").strip() for line in reversed(complaints) if line.strip()), "")
    return f"its process {ending(code)}" + (f": {last[:200]}" if last and code >= 0 else "")
