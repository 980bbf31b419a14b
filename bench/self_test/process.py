"""One process of `bench.self_test.trials`: `python -m bench.self_test.process SEED ROUNDS` prints its samples as JSON.

Apart from that module because it must start quickly, hundreds of times: it imports neither scipy nor torch.
"""

import json
import sys
from collections.abc import Callable

import numpy as np

from bench.peers.base import Built
from bench.runner.clock import ProcessorClock, without_garbage_collection
from bench.runner.timer import Entry, run_rounds

UNITS, MORE = 20, 21  # 5 % more work
ENTRIES = {"work": UNITS, "again": UNITS, "more": MORE}


def work(units: int) -> Callable[[], np.ndarray]:
    """So many units, a unit being an attention of 32 tokens in NumPy: some ten microseconds."""
    rng = np.random.default_rng(0)
    Q, K, V = (rng.standard_normal((32, 32)) for _ in range(3))

    def run() -> np.ndarray:
        mixed = V
        for _ in range(units):
            scores = Q @ K.T
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = weights / weights.sum(axis=-1, keepdims=True) @ V
        return mixed

    return run


def one_process(seed: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Both designs in this process: name of design → entry → ns of each sample."""
    clock, rng = ProcessorClock(), np.random.default_rng(seed)
    entries = {
        str(name): Entry(Built(work(ENTRIES[name]), [()], "", "float64"), lambda _, output: output)
        for name in rng.permutation(list(ENTRIES))  # where an entry's arrays lie is a matter of who came first
    }
    run_rounds(entries, clock, rng, seconds=0.0, least=rounds)
    blocks: dict[str, list[float]] = {}
    with without_garbage_collection():
        for name in ENTRIES:
            entry = entries[name]
            blocks[name] = [clock.time(entry.built.call, [()] * entry.inner)[0] for _ in range(rounds)]
    return {"pairs": {name: entry.samples for name, entry in entries.items()}, "blocks": blocks}


if __name__ == "__main__":
    json.dump(one_process(int(sys.argv[1]), int(sys.argv[2])), sys.stdout)
