"""The figure of error-budgets.md: one attention in bfloat16, its budget, and what a fixed tolerance says of the same numbers.

The build calls `draw`. `python docs/figures/error_budget.py FILE.svg` writes the figure by itself.
"""

import contextlib
import io
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from veriformer.cli import main

mpl.use("svg")
from matplotlib import pyplot as plt

N, M, D_K, D_V = 8, 12, 8, 8
LOOK_AGAIN, FAIL = 6.0, 8.0  # σ; tests/docs hold them to the budget's own
RTOL, ATOL = 1.6e-2, 1e-5  # torch.testing.assert_close in bfloat16


def draw() -> str:
    """The figure as SVG; the same text every time."""
    Q, K, V = inputs()
    exact, scale, bound = budget(Q, K, V)
    correct, faulty = attention(Q, K, V, D_K), attention(Q, K, V, D_K + 1)
    order = np.argsort(scale, axis=None)
    x = np.arange(order.size)

    style = {"svg.hashsalt": "error_budget", "font.size": 9, "svg.fonttype": "path"}
    with mpl.rc_context(style):
        figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
        axes.fill_between(x, 1e-5, FAIL * scale.flat[order], color="tab:green", alpha=0.12, label="budget: up to 8 σ", linewidth=0)
        axes.plot(x, LOOK_AGAIN * scale.flat[order], color="tab:green", lw=0.8, ls="--", label="6 σ: judged again")
        axes.plot(x, bound.flat[order], color="black", lw=0.8, label="proven bound")
        tolerance = ATOL + RTOL * np.abs(exact)
        axes.plot(x, tolerance.flat[order], color="tab:orange", lw=0.8, label="assert_close, default tolerance")
        for values, marker, color, label in (
            (correct, "o", "tab:blue", "correct, in bfloat16"),
            (faulty, "x", "tab:red", "faulty: scale 1/√(d_k + 1)"),
        ):
            error = np.maximum(np.abs(values - exact), 1e-5)
            axes.scatter(x, error.flat[order], s=14, marker=marker, color=color, label=label, linewidths=0.9)
        axes.set(yscale="log", ylim=(1e-5, None), xlim=(-1, order.size), ylabel="|error|", xlabel="elements of the result, by σ")
        figure.legend(loc="outside right upper", frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()


def inputs() -> tuple[torch.Tensor, ...]:
    """Q, K and V of one head; scores spread enough for a wrong scale to show."""
    rng = np.random.default_rng(0)
    shapes = ((N, D_K), (M, D_K), (M, D_V))
    Q, K, V = (torch.from_numpy(rng.standard_normal((1, 1, *shape))).to(torch.bfloat16) for shape in shapes)
    return 2 * Q, K, V


def attention(Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, d_k: int) -> np.ndarray:
    """A chain of operators in bfloat16, as eager PyTorch runs it."""
    weights = torch.softmax(Q @ K.mT / math.sqrt(d_k), dim=-1)
    return (weights @ V).double().numpy()


def budget(Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor) -> tuple[Any, Any, Any]:
    """Exact result, σ and proven bound, from `veriformer budget`."""
    with tempfile.TemporaryDirectory() as folder:
        given, written = Path(folder) / "inputs.npz", Path(folder) / "budget.npz"
        np.savez(given, Q=Q.double().numpy(), K=K.double().numpy(), V=V.double().numpy())
        with contextlib.redirect_stdout(io.StringIO()):
            main(["budget", "attention", f"--inputs={given}", "--dtype=bfloat16", f"--write={written}"], standalone_mode=False)
        with np.load(written) as found:
            return found["exact"], found["scale"], found["bound"]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(), encoding="utf-8")
