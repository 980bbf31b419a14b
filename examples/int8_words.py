"""Ask the trained model of the suite in int8: how many of the tokens that float64 writes, one after the other, does it still write?

    python examples/int8_words.py

The model copies and reverses sequences (see `train_copy_reverse.py`); 1000 that it never saw are asked. Every matrix is rounded to
int8 with a scale for each column, and the rows it is multiplied with to int8 with a scale for each. Exits 1 if fewer than 99 % of
the tokens are the same.
"""

import sys

import numpy as np
import torch

from optimized import parameters as column
from optimized import tuned
from optimized.generation import generate
from optimized.packing import Layout, pack
from optimized.parameters import Architecture, TransformerParameters, map_tensors
from properties.copy_reverse import BOS, EOS, Task, draw, trained
from properties.implementations.weights import built, mapped

ASKED, KEPT = 1000, 0.99


def main() -> int:
    """Write in float64 and in int8, and count."""
    weights, choices = trained()
    parameters: TransformerParameters = built(column, "TransformerParameters", mapped(torch.from_numpy, weights))
    asked = draw(Task(), ASKED, np.random.default_rng([1, 1]), held_out=True)
    source, source_mask = torch.from_numpy(asked.source), torch.from_numpy(asked.source_mask)

    def write(parameters: TransformerParameters) -> torch.Tensor:
        length = asked.target.shape[1]
        return generate(source, parameters, Architecture(**choices), bos=BOS, eos=EOS, length=length, source_mask=source_mask)

    expected, layouts = write(parameters), list[Layout](["int8"])
    if not tuned.missing() and torch.int8 in tuned.dtypes():
        layouts.append("int8_panels")
    worst = 1.0
    for layout in layouts:
        written = write(pack(map_tensors(torch.Tensor.float, parameters), rows=ASKED, layout=layout))
        chosen = (expected != EOS) | (written != EOS)
        same = int((written == expected)[chosen].sum())
        worst = min(worst, same / int(chosen.sum()))
        print(f"{layout}: {same} of {int(chosen.sum())} tokens as in float64 ({100 * same / int(chosen.sum()):.2f} %)")
    return 0 if worst >= KEPT else 1


if __name__ == "__main__":
    sys.exit(main())
