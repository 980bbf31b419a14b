"""R3: "without the residual and the norm, rounds of attention drift apart and gradients explode". What happens over depth.

Layers of attention and feed-forward at initialisation (Xavier), with and without the sum, with and without LayerNorm. After
each number of layers, for n tokens drawn from N(0, 1):

    activation  the root mean square of all features
    tokens       how different the tokens still are: root mean square of X − (mean token), over that of X
    gradient    ‖∂L/∂input‖ / ‖∂L/∂output‖ for a random linear L
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from matplotlib.figure import Figure
from torch import Tensor

from optimized.feed_forward import feed_forward
from optimized.initialisation import initialise
from optimized.multi_head import attend, project
from optimized.parameters import EncoderLayerParameters
from optimized.residual_norm import layer_norm
from properties.studies.study import Row, Study, run, spread

DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
H = 4
QUANTITIES = ("activation", "tokens", "gradient")


def layer(X: Tensor, parameters: EncoderLayerParameters, *, residual: bool, norm: bool) -> Tensor:
    """Post-norm as in the article, less what is left out."""

    def add_norm(X: Tensor, sublayer: Callable[[Tensor], Tensor], number: str) -> Tensor:
        X = X + sublayer(X) if residual else sublayer(X)
        return layer_norm(X, getattr(parameters, f"norm_{number}")) if norm else X

    def look_around(X: Tensor) -> Tensor:
        return attend(*project(X, parameters.self_attention, H), parameters.self_attention)

    X = add_norm(X, look_around, "1")
    return add_norm(X, lambda X: feed_forward(X, parameters.feed_forward), "2")


def rms(X: Tensor) -> float:
    """Root mean square."""
    return float(X.square().mean().sqrt())


def one_run(depth: int, seed: int, *, tokens: int, d_model: int, residual: bool, norm: bool) -> dict[str, float]:
    """The three quantities after `depth` layers drawn from this seed."""
    stack = initialise(seed, vocab=1, d_model=d_model, d_ff=4 * d_model, layers=depth, dtype=torch.float64).encoder
    X, direction = torch.randn(2, tokens, d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    out = X.requires_grad_()
    for parameters in stack:
        out = layer(out, parameters, residual=residual, norm=norm)
    (gradient,) = torch.autograd.grad((out * direction).sum(), X)
    out = out.detach()
    spread_of_tokens = rms(out - out.mean(dim=0)) / rms(out)
    return {"activation": rms(out), "tokens": spread_of_tokens, "gradient": float(gradient.norm() / direction.norm())}


def measure(depths: Sequence[int] = DEPTHS, seeds: int = 5, tokens: int = 16, d_model: int = 64) -> list[Row]:
    """Every combination at every depth; median and range over the seeds."""
    rows = []
    for (residual, norm), depth in product(product((True, False), repeat=2), depths):
        runs = [one_run(depth, seed, tokens=tokens, d_model=d_model, residual=residual, norm=norm) for seed in range(seeds)]
        quantities = {key: value for name in QUANTITIES for key, value in spread([one[name] for one in runs], name).items()}
        rows.append({"layers": described(residual=residual, norm=norm), "depth": depth, **quantities})
    return rows


def described(*, residual: bool, norm: bool) -> str:
    """What the layers have."""
    return {(1, 1): "residual and norm", (1, 0): "residual alone", (0, 1): "norm alone", (0, 0): "neither"}[residual, norm]


def plot(figure: Figure, rows: list[Row]) -> None:
    """A panel for each quantity, a line for each kind of layer; the band is the range over the seeds."""
    for axes, name in zip(figure.subplots(1, 3), QUANTITIES, strict=True):
        for kind in dict.fromkeys(row["layers"] for row in rows):
            some = [row for row in rows if row["layers"] == kind]
            depths = [row["depth"] for row in some]
            axes.fill_between(
                depths, [row[f"{name} from"] for row in some], [row[f"{name} to"] for row in some], alpha=0.2, linewidth=0
            )
            axes.plot(depths, [row[name] for row in some], marker="o", markersize=3, label=kind)
        axes.set(yscale="log", xlabel="layers", title=name)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)


def finding(rows: list[Row]) -> str:
    """In one sentence."""
    deepest = max(row["depth"] for row in rows)
    said = [
        f"{row['layers']}: activations of {row['activation']:.1g}, tokens that differ by {row['tokens']:.0e} of their size, "
        f"gradients times {row['gradient']:.1g}"
        for row in rows
        if row["depth"] == deepest
    ]
    return f"after {deepest} layers at initialisation, with " + "; with ".join(said) + "."


STUDY = Study("growth", "R3", "what keeps activations and gradients gentle over depth?", measure, plot, finding)

if __name__ == "__main__":
    run(STUDY)
