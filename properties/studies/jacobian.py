"""A11: "large scores are bad for learning". How much of a gradient a softmax lets through, as its scores grow.

    J = diag(p) − p pᵀ        p = softmax(scale · s),  s ~ N(0, 1) for each of n tokens

‖J‖ is the largest factor by which a gradient can arrive at the scores. It is 1/2 at most (p = ½, ½), and near 0 where one token
takes all.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from properties.studies.study import Row, Study, run, spread
from reference.softmax import softmax

UNSCALED = 512**0.5  # what scores of 512 features would be, were they not divided by √d_k
SCALES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, UNSCALED, 32.0, 64.0)


def jacobian_norm(scores: np.ndarray) -> float:
    """The largest singular value of softmax's Jacobian at one row of scores."""
    p = softmax(scores[None])[0]
    return float(np.linalg.norm(np.diag(p) - np.outer(p, p), 2))


def measure(scales: Sequence[float] = SCALES, tokens: int = 16, rows: int = 400, seed: int = 0) -> list[Row]:
    """For each scale, the norms over the same random rows, stretched."""
    scores = np.random.default_rng(seed).standard_normal((rows, tokens))
    return [{"scale": scale, **spread([jacobian_norm(scale * row) for row in scores], "norm")} for scale in scales]


def plot(figure: Figure, rows: list[Row]) -> None:
    """Median and range, both axes logarithmic."""
    axes = figure.subplots()
    scales = [row["scale"] for row in rows]
    axes.fill_between(scales, [row["norm from"] for row in rows], [row["norm to"] for row in rows], alpha=0.2, linewidth=0)
    axes.plot(scales, [row["norm"] for row in rows], marker="o", markersize=3)
    axes.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    axes.axvline(UNSCALED, color="grey", linestyle=":", linewidth=1)
    axes.annotate("1/2, the bound", (scales[0], 0.6), fontsize=8)
    axes.annotate(" √512", (UNSCALED, 1e-11), fontsize=8)
    axes.set(
        xscale="log", yscale="log", ylim=(1e-12, 10), xlabel="standard deviation of the scores", ylabel="‖J‖, median and range"
    )


def finding(rows: list[Row]) -> str:
    """In one sentence."""
    largest, best = max(row["norm to"] for row in rows), max(rows, key=lambda row: row["norm"])
    unscaled = min(rows, key=lambda row: abs(row["scale"] - UNSCALED))
    return (
        f"the median norm of the Jacobian is {best['norm']:.2g} at scale {best['scale']:.3g} and {unscaled['norm']:.2g} at "
        f"{unscaled['scale']:.3g}, where the weakest row lets {unscaled['norm from']:.0e} through; "
        f"the largest of all is {largest:.4g}."
    )


STUDY = Study("jacobian", "A11", "does a softmax of large scores still learn?", measure, plot, finding)

if __name__ == "__main__":
    run(STUDY)
