"""Ask a trained model in fewer bits: of the tokens that float64 writes, how many does it still write?

    python examples/int8_words.py                 the trained model of the suite: 32 features, two layers a side
    python examples/int8_words.py --weights FILE  one that `train_copy_reverse.py --save FILE` wrote

The model copies and reverses sequences; 1024 that it never saw are asked, 32 in a call. It is packed in each tier, in float32,
bfloat16 and int8: every matrix is rounded with a scale for each column, and the rows that it is multiplied with, with a scale for
each. The time is the least of the calls, since other work only adds to it. Exits 1 if anywhere fewer than 99 % of the
tokens are the same, and 2 for a file that is no such model.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optimized.generation import generate
from optimized.packing import Tier, pack
from optimized.parameters import Architecture, TransformerParameters, map_tensors
from properties.copy_reverse import BOS, EOS, TRAINED, Sequences, Task, draw
from properties.implementations.weights import load, to_optimized

TASK = Task()
ASKED, AT_ONCE, KEPT = 1024, 32, 0.99
SOURCE_ROWS = AT_ONCE * (1 + TASK.longest)
DTYPES = ("float32", "bfloat16", "int8")
TIERS: tuple[Tier, ...] = ("plain", "fastest")


def read(path: Path) -> tuple[TransformerParameters, Architecture]:
    """A model of the task, in float64. Raises ValueError, in one line, for anything else."""
    if not path.is_file():
        raise ValueError(f"expected a file that train_copy_reverse.py saved, got {path}, which is none")
    parts, choices = load(path)
    if (vocab := len(parts["source_embedding"])) != TASK.vocab:
        raise ValueError(f"{path}: expected a vocabulary of {TASK.vocab} tokens, got one of {vocab}")
    return to_optimized(parts), Architecture(**choices)


def packed(parameters: TransformerParameters) -> Iterator[tuple[str, TransformerParameters]]:
    """The same model in every dtype and tier."""
    for dtype, tier in product(DTYPES, TIERS):
        rounded = map_tensors(torch.Tensor.bfloat16 if dtype == "bfloat16" else torch.Tensor.float, parameters)
        yield f"{dtype}, {tier}", pack(rounded, AT_ONCE, SOURCE_ROWS, tier=tier, int8=dtype == "int8")


def write(asked: Sequences, parameters: TransformerParameters, architecture: Architecture) -> tuple[Tensor, float]:
    """What the model makes of these sources, and the least time of a call."""
    length = asked.target.shape[1]
    written, seconds = [], []
    for source, source_mask in zip(*(torch.from_numpy(X).split(AT_ONCE) for X in (asked.source, asked.source_mask)), strict=True):
        began = time.perf_counter()
        written.append(generate(source, parameters, architecture, bos=BOS, eos=EOS, length=length, source_mask=source_mask))
        seconds.append(time.perf_counter() - began)
    return torch.cat(written), min(seconds)


def main(arguments: list[str]) -> int:
    """Write in float64 and as packed, and count."""
    options = argparse.ArgumentParser(description="How many tokens a trained model still writes in fewer bits.")
    options.add_argument("--weights", metavar="FILE", type=Path, default=TRAINED, help="a model that train_copy_reverse.py saved")
    chosen = options.parse_args(arguments)
    try:
        parameters, architecture = read(chosen.weights)
    except ValueError as error:
        print(f"--weights: {error}", file=sys.stderr)
        return 2

    asked = draw(TASK, ASKED, np.random.default_rng([1, 1]), held_out=True)
    expected, seconds = write(asked, parameters, architecture)
    if (expected == EOS).all():
        print(f"--weights: {chosen.weights}: expected a model that writes tokens, got one that writes none", file=sys.stderr)
        return 2
    right = int(asked.written_exactly(expected.numpy()).sum())
    print(f"float64: {right} of {ASKED} sequences are written exactly, {1000 * seconds:.1f} ms a call", flush=True)
    worst = 1.0
    for what, others in packed(parameters):
        written, seconds = write(asked, others, architecture)
        counted = (expected != EOS) | (written != EOS)
        same, tokens = int((written == expected)[counted].sum()), int(counted.sum())
        worst = min(worst, same / tokens)
        kept = f"{same} of {tokens} tokens as in float64 ({100 * same / tokens:.2f} %)"
        print(f"{what}: {kept}, {1000 * seconds:.1f} ms a call", flush=True)
    return 0 if worst >= KEPT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
