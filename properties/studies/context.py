"""G2: "a longer prompt gives cross-attention more to go on, so predictions improve". What a trained model says to that.

The model that learned to copy and to reverse sequences of 1 to 8 tokens (`examples/train_copy_reverse.py`), asked sequences that
it never saw, with the right tokens before (teacher forcing):

    source shown   of sequences of 8 tokens the decoder may see the first 0 … 8 alone
    target given   of the same sequences 0 … 7 tokens are written already
    source length  sequences of 1 … 12 tokens, of which it was taught 8 at most
"""

from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.figure import Figure

from optimized.parameters import Architecture
from optimized.transformer import transformer
from properties.copy_reverse import Sequences, Task, draw, trained
from properties.implementations.weights import to_optimized
from properties.studies.study import Row, Study, run

TASK = Task()


def answered(asked: Sequences, shown: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """For every token of the targets: was it the likeliest, and how likely was it? Of the sources only `shown` tokens are seen."""
    parameters, choices = trained()
    seen = asked.source_mask & (np.arange(asked.source.shape[1]) <= (asked.source.shape[1] if shown is None else shown))
    source, given, real, target = (torch.from_numpy(X) for X in (asked.source, asked.given, seen, asked.target))
    logits = transformer(source, given, to_optimized(parameters), Architecture(**choices), real)
    likely = logits.softmax(dim=-1).gather(-1, target[..., None])[..., 0]
    return (logits.argmax(dim=-1) == target).numpy(), likely.numpy()


def row(against: str, amount: int, right: np.ndarray, likely: np.ndarray) -> Row:
    """One line of the table."""
    return {
        "against": against,
        "amount": amount,
        "right": float(right.mean()),
        "probability of the right token": float(likely.mean()),
    }


def measure(sequences: int = 400, seed: int = 3, longest: int = 12) -> list[Row]:
    """All three questions; the tokens of the sequences count, their ends do not."""
    return list(_measured(sequences, np.random.default_rng(seed), longest))


def _measured(sequences: int, rng: np.random.Generator, longest: int) -> Iterator[Row]:
    k = TASK.longest
    asked = draw(TASK, sequences, rng, held_out=True, length=k)
    for shown in range(k + 1):
        right, likely = answered(asked, shown)
        yield row("source shown", shown, right[:, :k], likely[:, :k])
    right, likely = answered(asked)
    for given in range(k):
        yield row("target given", given, right[:, given], likely[:, given])
    for length in range(1, longest + 1):
        right, likely = answered(draw(TASK, sequences, rng, held_out=True, length=length))
        yield row("source length", length, right[:, :length], likely[:, :length])


def plot(figure: Figure, rows: list[Row]) -> None:
    """A panel for each question."""
    questions = list(dict.fromkeys(row["against"] for row in rows))
    for axes, against in zip(figure.subplots(1, len(questions), sharey=True), questions, strict=True):
        some = [row for row in rows if row["against"] == against]
        for name, style in (("right", "-"), ("probability of the right token", "--")):
            axes.plot([row["amount"] for row in some], [row[name] for row in some], style, marker="o", markersize=3, label=name)
        axes.set(xlabel=f"{against}, tokens", ylim=(0, 1.05))
        if against == "source length":
            axes.axvline(TASK.longest, color="grey", linestyle=":", linewidth=1)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)


def finding(rows: list[Row]) -> str:
    """In one sentence."""
    right = {(row["against"], row["amount"]): f"{row['right']:.0%}" for row in rows}
    longest = max(row["amount"] for row in rows if row["against"] == "source length")
    k = TASK.longest
    none, half, whole = (right["source shown", shown] for shown in (0, k // 2, k))
    short, taught, beyond = (right["source length", length] for length in (1, k, longest))
    return (
        f"of the tokens of sequences of {k}, {none} are right when none of the source is shown, {half} when half of it is and "
        f"{whole} when all of it is, so context that holds the answer counts; length as such is another matter: {short} are "
        f"right in sequences of 1 token, {taught} in those of {k}, {beyond} in those of {longest}, "
        f"and the model was taught {k} at most."
    )


STUDY = Study("context", "G2", "do longer prompts improve predictions?", measure, plot, finding)

if __name__ == "__main__":
    run(STUDY)
