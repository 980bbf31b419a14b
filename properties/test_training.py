"""Learning: that a few steps of training end where the oracle's end, and that a small model learns to copy and to reverse.

The latter is claim T2's second half, and asked twice: an implementation's own gradients teach a tiny model from random weights;
and a model that was trained beforehand (`examples/train_copy_reverse.py`) is run on every implementation, with sequences that it
never saw.
"""

from functools import cache
from typing import Any

import numpy as np

from properties.assertions import assert_at_most, assert_identical, assert_within
from properties.claims import claim
from properties.copy_reverse import BOS, EOS, Sequences, Task, draw, trained
from properties.error_budget.budgets import sum_bound
from properties.error_budget.descent import Batch, Optimizer, Training
from properties.implementations.contract import in_force
from properties.implementations.oracle import oracle
from properties.implementations.weights import mapped, nested
from properties.inputs.parameters import Nested, dyadic
from properties.test_sizes import ids, model
from properties.test_transformer import PRECISE
from reference.initialisation import initialise

ASKED = 100
WRONG = 0.01  # the share of sequences a trained model may get wrong

TINY = Task(tokens=5, longest=3)  # 155 sequences; an eighth of them is held out
SEED, STEPS, BATCH, SMOOTHING = 0, 350, 64, 0.1
PEAK, WARM_UP, MEAN, SQUARES = 1e-2, 20, 0.9, 0.98  # Adam (Kingma & Ba 2015) with the paper's second decay


@cache
def asked() -> Sequences:
    """Sequences that the trained model never saw."""
    return draw(Task(), ASKED, np.random.default_rng(2), held_out=True)


def written_by(write: Any, parameters: Nested, sequences: Sequences, *, padded: bool = True, **choices: Any) -> np.ndarray:
    """What a step `generation` makes of these sources; it is told which tokens only fill them up, unless they are not `padded`."""
    length = sequences.target.shape[1]
    arguments = {"parameters": parameters, "bos": BOS, "eos": EOS, "length": length, **choices}
    return write(sequences.source, sequences.source_mask if padded else None, **arguments)


@cache
def written_by_the_oracle() -> np.ndarray:
    """The oracle recomputes everything for every token: once is enough."""
    parameters, choices = trained()
    return written_by(lambda *args, **kwargs: oracle("generation", *args, **kwargs), parameters, asked(), **choices)


@cache
def smallest_lead() -> tuple[float, float]:
    """By how much the best logit leads, at the least, wherever a token of the answers is chosen; and the largest logit."""
    parameters, choices = trained()
    real = asked().target_mask
    logits = oracle("transformer", asked().source, asked().given, asked().source_mask, parameters=parameters, **choices)[real]
    best = np.sort(logits, axis=-1)
    return float((best[:, -1] - best[:, -2]).min()), float(np.abs(logits).max())


@claim("T2", needs="generation")
def test_a_trained_model_copies_and_reverses_what_it_never_saw(impl):
    """With the trained weights, rounded to the dtype, at least 99 % of the held-out sequences are written exactly right.

    In float64 and float32 no lead is within a thousand roundings of a tie, so there the tokens are the oracle's, all of them.
    """
    parameters, choices = trained()

    written = written_by(impl.generation, mapped(impl.representable, parameters), asked(), **choices)

    assert_at_most(1 - asked().written_exactly(written).mean(), WRONG, "share of sequences not written exactly")
    if impl.dtype in ("float64", "float32") and impl.name != "reference":
        lead, largest = smallest_lead()
        assert_at_most(sum_bound(1000, impl, largest), lead, "rounding, as against the smallest lead")
        assert_identical(written, written_by_the_oracle(), "tokens written")


# A few steps ----------------------------------------------------------------------------------------------------------

FEW = 3
RATES: dict[Optimizer, float] = {"SGD": 2.0**-5, "Adam": 2.0**-6}


def training(optimizer: Optimizer) -> Training:
    """A model of one layer a side on one batch, another, and the first one again; tied for Adam."""
    vocab = 5
    parameters = model(4, 6, vocab, 1) | ({"W_out": None, "b_out": None} if optimizer == "Adam" else {})
    first, other = (Batch(ids(vocab, 2, 4), (ids(vocab, 2, 3) + t) % vocab, dyadic(2 + t, (2, 3, vocab))) for t in range(2))
    choices = {"h": 2, "activation": "gelu"}
    return Training(parameters, choices, ((first, other) * FEW)[:FEW], optimizer, RATES[optimizer])


def weights_after(case: Training, impl: Any) -> dict[str, np.ndarray]:
    """Where an implementation's own gradients lead, by name; between steps weights are stored in its dtype."""

    def gradients(parameters: Nested, batch: Batch) -> Nested:
        return impl.gradients(batch.source, batch.target, parameters=parameters, direction=batch.direction, **case.choices)

    return case.run(case.parameters, gradients, impl.representable)


@claim("B7", needs="gradients", dtypes=PRECISE)
def test_training_ends_where_the_oracles_ends(impl):
    """After three steps of SGD, and of Adam with tied weights, no weight is further from the oracle's than rounding takes it."""
    for optimizer in RATES:
        case = training(optimizer)
        weights = weights_after(case, impl)
        for name, allowed in case.budgets(in_force(impl)).items():
            assert_within(f"{name} after {FEW} steps of {optimizer}", weights[name], allowed)


# Learning with an implementation's own gradients ----------------------------------------------------------------------


def direction_of(logits: np.ndarray, batch: Sequences) -> np.ndarray:
    """The gradient of the label-smoothed loss (section 5.4) by the logits: softmax(logits) − q, over the tokens that count."""
    q = np.full(logits.shape, SMOOTHING / logits.shape[-1])
    np.put_along_axis(q, batch.target[..., None], 1 - SMOOTHING + SMOOTHING / logits.shape[-1], axis=-1)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return (p - q) * batch.target_mask[..., None] / batch.target_mask.sum()


class Adam:
    """Kingma & Ba (2015), algorithm 1, on one array."""

    def __init__(self) -> None:
        self.mean, self.squares, self.step = 0.0, 0.0, 0

    def move(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        """What is to be added to the array."""
        self.step += 1
        self.mean = MEAN * self.mean + (1 - MEAN) * gradient
        self.squares = SQUARES * self.squares + (1 - SQUARES) * gradient**2
        mean, squares = self.mean / (1 - MEAN**self.step), self.squares / (1 - SQUARES**self.step)
        return -rate * mean / (np.sqrt(squares) + 1e-9)


def improved(weights: Any, gradients: Any, states: dict[str, Adam], rate: float, path: str = "") -> Any:
    """The weights after one step of Adam, nested as they were."""
    if isinstance(weights, dict):
        return {key: improved(part, gradients[key], states, rate, f"{path}.{key}") for key, part in weights.items()}
    if isinstance(weights, list):
        return [improved(part, gradients[i], states, rate, f"{path}.{i}") for i, part in enumerate(weights)]
    return None if weights is None else weights + states.setdefault(path, Adam()).move(gradients, rate)


@claim("T2", needs=("transformer", "gradients", "generation"), dtypes=("float32",))
def test_a_small_model_learns_to_copy_and_to_reverse(impl):
    """From random weights, by nothing but the implementation's own gradients: every held-out sequence is written right.

    The matrices are random at first (a third of the answers at most is right) and are learned.
    """
    rng = np.random.default_rng(SEED)
    weights = nested(initialise(SEED, vocab=TINY.vocab, d_model=16, d_ff=32, layers=1))
    never_seen, states = draw(TINY, 40, rng, held_out=True), {}
    untaught = written_by(impl.generation, mapped(impl.representable, weights), never_seen, padded=False, h=2)

    for step in range(STEPS):
        batch = draw(TINY, BATCH, rng)
        rounded = {"parameters": mapped(impl.representable, weights), "h": 2}
        logits = impl.transformer(batch.source, batch.given, **rounded)
        direction = impl.representable(direction_of(logits, batch))
        gradients = impl.gradients(batch.source, batch.given, **rounded, direction=direction)
        weights = improved(weights, gradients, states, PEAK * min((step + 1) / WARM_UP, 1, 2 * (STEPS - step) / STEPS))

    written = written_by(impl.generation, mapped(impl.representable, weights), never_seen, padded=False, h=2)
    assert_at_most(never_seen.written_exactly(untaught).mean(), 1 / 3, "share written exactly before learning")
    assert_at_most(1 - never_seen.written_exactly(written).mean(), WRONG, "share not written exactly after learning")
