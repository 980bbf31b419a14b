"""Train the fast implementation to copy sequences and to write them backwards, in less than a minute; then ask the oracle.

    python examples/train_copy_reverse.py [--seed N] [--steps N] [--save FILE]

The model has 44,000 parameters: two layers a side, 32 features, 4 heads, everything else as in the paper (post-norm, label
smoothing, Adam with warm-up). It is asked 1000 sequences that it never saw. The oracle, given the same weights, writes 100 of
them itself, and must write the same words. Exits 1 if it does not, or if fewer than 99 % of the 1000 are exactly right.
"""

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from optimized.generation import generate
from optimized.initialisation import initialise
from optimized.parameters import Architecture, TransformerParameters, tensors
from optimized.training import label_smoothed_loss, trainable
from optimized.transformer import transformer
from properties.copy_reverse import BOS, EOS, Sequences, Task, draw
from properties.implementations.weights import save, to_reference
from reference.generation import generate as generate_step_by_step
from reference.parameters import Architecture as ReferenceArchitecture

TASK = Task()
ARCHITECTURE = Architecture(h=4)
BATCH, PEAK, WARM_UP = 64, 5e-3, 100
ASKED, ASKED_OF_THE_ORACLE = 1000, 100


def learning_rate(step: int, steps: int) -> float:
    """Up over the first steps, down to zero over the last half (the paper's schedule is for 100,000 steps)."""
    return PEAK * min((step + 1) / WARM_UP, 1.0, 2 * (steps - step) / steps)


def batches(seed: int, steps: int) -> Iterator[Sequences]:
    """What the model is taught with."""
    rng = np.random.default_rng(seed)
    return (draw(TASK, BATCH, rng) for _ in range(steps))


def loss_on(batch: Sequences, parameters: TransformerParameters) -> torch.Tensor:
    """How far the model's next tokens are from the right ones."""
    source, source_mask, given = (torch.from_numpy(X) for X in (batch.source, batch.source_mask, batch.given))
    logits = transformer(source, given, parameters, ARCHITECTURE, source_mask)
    return label_smoothed_loss(logits, torch.from_numpy(batch.target), torch.from_numpy(batch.target_mask))


def train(seed: int, steps: int) -> TransformerParameters:
    """The loop."""
    initial = initialise(seed, vocab=TASK.vocab, d_model=32, d_ff=64, layers=2)
    parameters = trainable(initial)
    optimizer = torch.optim.Adam(tensors(parameters), betas=(0.9, 0.98), eps=1e-9, fused=True)
    for step, batch in enumerate(batches(seed, steps)):
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps)
        loss = loss_on(batch, parameters)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1:4}  loss {loss.item():.3f}")
    return parameters


def write(asked: Sequences, parameters: TransformerParameters) -> np.ndarray:
    """What the model makes of these sources."""
    source, real = torch.from_numpy(asked.source), torch.from_numpy(asked.source_mask)
    length = asked.target.shape[1]
    return generate(source, parameters, ARCHITECTURE, bos=BOS, eos=EOS, length=length, source_mask=real).numpy()


def oracle_agrees(asked: Sequences, written: np.ndarray, parameters: TransformerParameters) -> int:
    """How many of these rows the oracle writes token by token like the fast implementation."""
    weights, architecture = to_reference(parameters), ReferenceArchitecture(h=ARCHITECTURE.h)
    agreeing = 0
    for source, real, tokens in zip(asked.source, asked.source_mask, written, strict=True):
        own = generate_step_by_step(source, weights, architecture, bos=BOS, eos=EOS, length=len(tokens), source_mask=real)
        agreeing += np.array_equal(own, tokens[: len(own)]) and bool((tokens[len(own) :] == EOS).all())
    return agreeing


def main(arguments: list[str]) -> int:
    """Train, ask, compare, save."""
    options = argparse.ArgumentParser(description="Train a small Transformer to copy and to reverse.")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--steps", type=int, default=900)
    options.add_argument("--save", metavar="FILE", help="write the weights to this safetensors file")
    chosen = options.parse_args(arguments)

    torch.set_num_threads(1)  # matrices this small gain nothing from more, and sums are taken in the same order everywhere
    begun = time.perf_counter()
    print(f"seed {chosen.seed}, {chosen.steps} steps of {BATCH} sequences")
    parameters = train(chosen.seed, chosen.steps)
    print(f"trained in {time.perf_counter() - begun:.0f} s")

    asked = draw(TASK, ASKED, np.random.default_rng([chosen.seed, 1]), held_out=True)
    seen = set().union(*(batch.questions() for batch in batches(chosen.seed, chosen.steps)))
    assert not seen & asked.questions(), "asked what was taught"
    written = write(asked, parameters)
    right = int(asked.written_exactly(written).sum())
    print(f"{right} of {ASKED} sequences it never saw are written exactly ({len(seen)} different ones were taught)")

    agreeing = oracle_agrees(asked.first(ASKED_OF_THE_ORACLE), written[:ASKED_OF_THE_ORACLE], parameters)
    print(f"the oracle writes {agreeing} of {ASKED_OF_THE_ORACLE} alike")
    if chosen.save:
        save(chosen.save, parameters, ARCHITECTURE)
        print(f"weights saved to {chosen.save}")
    return 0 if right >= 0.99 * ASKED and agreeing == ASKED_OF_THE_ORACLE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
