"""What `within_rounding` costs: asked first, asked again about the same inputs, and of a wrong result; and the pytest plugin.

Processor time, median of a few: neighbours on the machine make a call longer, but do not add to it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from veriformer import oracle, within_rounding

DTYPE, SEEDS = "bfloat16", 3
Case = tuple[str, tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]]

CASES: tuple[Case, ...] = (
    ("softmax", ((1, 8, 64, 64),), {}),
    ("layer_norm", ((1, 64, 512),), {"gain": (512,), "bias": (512,)}),
    ("feed_forward", ((1, 16, 512),), {"W_1": (512, 2048), "b_1": (2048,), "W_2": (2048, 512), "b_2": (512,)}),
    ("attention", ((1, 2, 8, 16),) * 3, {}),
    ("attention", ((1, 8, 64, 64),) * 3, {}),
    ("attention", ((1, 2, 128, 64),) * 3, {}),
)
"""Steps, and the shapes of their inputs and of their keyword arguments."""


def measured() -> Iterator[dict[str, Any]]:
    """A line for each case: milliseconds of the oracle alone, of a first and of a repeated call, and of a wrong result."""
    oracle("softmax", np.zeros((1, 1)))  # what is imported belongs to no case
    for step, shapes, named in CASES:
        found: dict[str, list[float]] = {"oracle": [], "first": [], "again": [], "wrong": []}
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            inputs = [_numbers(rng, shape) for shape in shapes]
            options: dict[str, Any] = {name: _numbers(rng, shape) for name, shape in named.items()}
            exact, spent = _timed(lambda inputs=inputs, options=options, step=step: oracle(step, *inputs, **options))
            found["oracle"].append(spent)
            for name, got in (("first", exact), ("again", exact), ("wrong", exact * 1.25)):
                right, spent = _timed(
                    lambda got=got, inputs=inputs, options=options, step=step: within_rounding(
                        step, _rounded(got), *inputs, dtype=DTYPE, **options
                    )
                )
                if bool(right) == (name == "wrong"):
                    raise RuntimeError(f"{step}: expected a {'wrong' if right else 'right'} result, got {right!r}")
                found[name].append(spent)
        yield {"step": step, "shape": list(shapes[0]), **{name: 1000 * statistics.median(of) for name, of in found.items()}}


def of_the_import() -> float:
    """Milliseconds of the first call in a process over those of the next: it imports the oracle, the simulator and torch."""
    call = "oracle('softmax', zeros((1, 1)))"
    text = f"import time; from numpy import zeros; from veriformer import oracle; a = time.process_time(); {call}\n"
    text += f"b = time.process_time(); {call}; print(2 * b - a - time.process_time())"
    told = subprocess.run([sys.executable, "-P", "-c", text], capture_output=True, check=True, text=True)
    return 1000 * float(told.stdout)


def of_the_plugin() -> float:
    """How many milliseconds more pytest needs to collect a suite of one file without tests where our plugin is loaded.

    What it imports, and the difference of runs with it and without, each the least of a few: neighbours make the others longer.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_nothing.py").touch()
        command = [sys.executable, "-P", "-c", PLUGIN]
        compiled = {"PYTHONPYCACHEPREFIX": str(Path(folder) / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
        alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
        told = [
            subprocess.run(
                command, cwd=folder, capture_output=True, check=True, text=True, env=os.environ | compiled | alone
            ).stdout.splitlines()[-1]
            for _ in range(1 + SEEDS)  # the first compiles
        ]
    imported, loaded, without = (min(column) for column in zip(*(map(float, line.split()) for line in told), strict=True))
    return 1000 * (imported + loaded - without)


PLUGIN = """
import contextlib, io, time
import pytest

def spent(*options):
    before = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *options])
    return time.process_time() - before

before = time.process_time()
import veriformer.pytest_plugin
imported = time.process_time() - before
runs = [(spent("-p", "veriformer.pytest_plugin"), spent()) for _ in range(8)]
print(imported, *map(min, zip(*runs)))
"""


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    before = time.process_time()
    return call(), time.process_time() - before


def _numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of the size that Xavier's rule gives; anything else of the size of 1."""
    values = rng.standard_normal(shape)
    return _rounded(values / np.sqrt(shape[0]) if len(shape) == 2 else values)


def _rounded(values: np.ndarray) -> np.ndarray:
    """To bfloat16, as float64."""
    from properties.implementations.formats import FORMATS

    return FORMATS[DTYPE].to_nearest(values)


def lines(found: list[dict[str, Any]], imported: float, plugin: float) -> Iterator[str]:
    """For a reader."""
    yield f"{DTYPE + ', milliseconds':<34} {'oracle':>8} {'first':>8} {'again':>8} {'wrong':>8}"
    for line in found:
        name = f"{line['step']} {'×'.join(map(str, line['shape']))}"
        yield f"{name:<34} " + " ".join(f"{line[each]:>8.3g}" for each in ("oracle", "first", "again", "wrong"))
    yield f"the first call of a process imports for {imported:.0f} ms"
    yield f"pytest's collection of an empty suite: {plugin:+.0f} ms with the plugin"
