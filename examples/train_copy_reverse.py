"""Train the fast implementation to copy sequences and to write them backwards, in less than a minute; then ask the oracle.

    python examples/train_copy_reverse.py [--size small|base] [--seed N] [--steps N] [--save FILE]

The small model has 44,000 parameters: two layers a side, 32 features, 4 heads, everything else as in the paper (post-norm, label
smoothing, Adam with warm-up). It is asked 1000 sequences that it never saw. The oracle, given the same weights, writes 100 of
them itself, and must write the same words. Exits 1 if it does not, or if fewer than 99 % of the 1000 are exactly right.

The base model has the paper's size, 44 million parameters, and takes minutes; the oracle writes 20. It is taught short sequences
first, its branches begin small beside what they are added to, and what it computes while it learns is in bfloat16.
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from optimized.generation import generate
from optimized.initialisation import initialise
from optimized.parameters import Architecture, TransformerParameters, map_tensors, tensors
from optimized.training import label_smoothed_loss, trainable
from optimized.transformer import transformer
from properties.copy_reverse import BOS, EOS, Sequences, Task, draw
from properties.implementations.weights import flat, save, to_reference
from reference.generation import generate as generate_step_by_step
from reference.parameters import Architecture as ReferenceArchitecture

TASK = Task()
ASKED = 1000
LEARNED, UNKNOWN = 0.62, 1.0  # mean losses of the last steps; label smoothing leaves 0.53 where every token is right


@dataclass(frozen=True)
class Size:
    """How large a model is, and how it is taught."""

    d_model: int
    d_ff: int
    layers: int
    h: int
    steps: int
    batch: int
    peak: float
    warm_up: int
    asked_of_the_oracle: int
    longest: int = TASK.longest  # to begin with: when these are learned, sequences become one token longer
    branches: float = 1.0  # what is added to the residual is this small at first, so that gradients reach all layers of post-norm
    dtype: torch.dtype = torch.float32  # of what is computed; weights, gradients and Adam are in float32

    def learning_rate(self, step: int) -> float:
        """Up over the first steps, down to zero over the last half (the paper's schedule is for 100,000 steps)."""
        return self.peak * min((step + 1) / self.warm_up, 1.0, 2 * (self.steps - step) / self.steps)


SIZES = {
    "small": Size(32, 64, 2, 4, steps=900, batch=64, peak=5e-3, warm_up=100, asked_of_the_oracle=100),
    "base": Size(
        *(512, 2048, 6, 8),
        steps=900,
        batch=32,
        peak=3e-4,
        warm_up=100,
        asked_of_the_oracle=20,
        longest=2,
        branches=0.2,
        dtype=torch.bfloat16,
    ),
}


def initial(seed: int, size: Size) -> TransformerParameters:
    """Where the model begins."""
    parameters = initialise(seed, vocab=TASK.vocab, d_model=size.d_model, d_ff=size.d_ff, layers=size.layers)
    for name, W in flat(parameters).items():
        if name.endswith(("W_O", "W_2")):
            W.mul_(size.branches)
    return trainable(parameters)


def loss_on(batch: Sequences, parameters: TransformerParameters, size: Size) -> torch.Tensor:
    """How far the model's next tokens are from the right ones."""
    source, source_mask, given = (torch.from_numpy(X) for X in (batch.source, batch.source_mask, batch.given))
    rounded = map_tensors(lambda W: W.to(size.dtype), parameters)
    logits = transformer(source, given, rounded, Architecture(h=size.h), source_mask)
    return label_smoothed_loss(logits, torch.from_numpy(batch.target), torch.from_numpy(batch.target_mask))


def train(seed: int, size: Size) -> tuple[TransformerParameters, set[bytes]]:
    """The loop; and every question that was taught."""
    parameters, taught = initial(seed, size), set[bytes]()
    optimizer = torch.optim.Adam(tensors(parameters), betas=(0.9, 0.98), eps=1e-9, fused=True)
    rng, task, recent = np.random.default_rng(seed), replace(TASK, longest=size.longest), UNKNOWN
    for step in range(size.steps):
        batch = draw(task, size.batch, rng)
        taught |= batch.questions()
        optimizer.param_groups[0]["lr"] = size.learning_rate(step)
        loss = loss_on(batch, parameters, size)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recent += 0.2 * (loss.item() - recent)
        if (step + 1) % 100 == 0:
            print(f"step {step + 1:4}  loss {loss.item():.3f}", flush=True)
        if recent < LEARNED and task.longest < TASK.longest:
            task, recent = replace(task, longest=task.longest + 1), UNKNOWN
            print(f"step {step + 1:4}  up to {task.longest} tokens from here", flush=True)
    return parameters, taught


def write(asked: Sequences, parameters: TransformerParameters, h: int) -> np.ndarray:
    """What the model makes of these sources."""
    source, real = torch.from_numpy(asked.source), torch.from_numpy(asked.source_mask)
    length = asked.target.shape[1]
    return generate(source, parameters, Architecture(h=h), bos=BOS, eos=EOS, length=length, source_mask=real).numpy()


def oracle_agrees(asked: Sequences, written: np.ndarray, parameters: TransformerParameters, h: int) -> int:
    """How many of these rows the oracle writes token by token like the fast implementation."""
    weights, architecture = to_reference(parameters), ReferenceArchitecture(h=h)
    agreeing = 0
    for source, real, tokens in zip(asked.source, asked.source_mask, written, strict=True):
        own = generate_step_by_step(source, weights, architecture, bos=BOS, eos=EOS, length=len(tokens), source_mask=real)
        agreeing += np.array_equal(own, tokens[: len(own)]) and bool((tokens[len(own) :] == EOS).all())
    return agreeing


def main(arguments: list[str]) -> int:
    """Train, ask, compare, save."""
    options = argparse.ArgumentParser(description="Train a Transformer to copy and to reverse.")
    options.add_argument("--size", choices=SIZES, default="small", help="small (the default) takes a minute, base minutes")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--steps", type=int, help=", ".join(f"{size.steps} for {name}" for name, size in SIZES.items()))
    options.add_argument("--save", metavar="FILE", help="write the weights to this safetensors file")
    chosen = options.parse_args(arguments)
    size = SIZES[chosen.size]
    size = size if chosen.steps is None else replace(size, steps=chosen.steps)
    torch.set_num_threads(1)  # small matrices gain nothing from more, and sums are taken in the same order everywhere
    begun = time.perf_counter()
    print(f"seed {chosen.seed}, {size.steps} steps of {size.batch} sequences")
    parameters, taught = train(chosen.seed, size)
    print(f"trained in {time.perf_counter() - begun:.0f} s")

    asked = draw(TASK, ASKED, np.random.default_rng([chosen.seed, 1]), held_out=True)
    assert not taught & asked.questions(), "asked what was taught"
    written = write(asked, parameters, size.h)
    right = int(asked.written_exactly(written).sum())
    print(f"{right} of {ASKED} sequences it never saw are written exactly ({len(taught)} different ones were taught)")

    few = size.asked_of_the_oracle
    agreeing = oracle_agrees(asked.first(few), written[:few], parameters, size.h)
    print(f"the oracle writes {agreeing} of {few} alike")
    if chosen.save:
        save(chosen.save, parameters, Architecture(h=size.h))
        print(f"weights saved to {chosen.save}")
    return 0 if right >= 0.99 * ASKED and agreeing == few else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
