"""How often localisation names the right step: single-step faults planted in one of six layers, and correct models of twelve.

    python -m properties.evaluation.localization [--seeds N]

Each fault is planted in a `torch.nn.Transformer` of 6 + 6 layers, at one place of one layer; what must be named is the first
matrix recorded after that place. A correct model must come out as "no step over budget".
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from rich.progress import track
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from properties.implementations.weights import as_float64, from_torch, mapped
from properties.localize.hooks import record_intermediates, torch_names
from properties.localize.localize import Case, Finding, localize
from properties.run.parallel import in_parallel, with_jobs
from properties.run.subprocesses import guarded
from reference.parameters import Architecture

D_MODEL, H, D_FF, LAYERS, N, M = 64, 4, 128, 6, 16, 20
DTYPES = (torch.float32, torch.bfloat16)

Plant = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class Planted:
    """A fault of one step: how it is planted in a layer, and the matrix that is wrong first (below the layer's name)."""

    name: str
    plant: Plant
    first: str
    stacks: tuple[str, ...] = ("encoder", "decoder")


def _input_of(module: Any, change: Callable[[Tensor], Tensor]) -> None:
    module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))


def _output_of(module: Any, change: Callable[[Tensor], Tensor]) -> None:
    module.register_forward_hook(
        lambda _, __, output: (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)
    )


def _scale(layer: Any) -> None:
    """√(d_k + 1) in place of √d_k, which is the same as a smaller W_Q and b_Q."""
    d_k = D_MODEL // H
    for packed in (layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias):
        packed.data[:D_MODEL] *= (d_k / (d_k + 1)) ** 0.5


def _one_head(layer: Any) -> None:
    layer.self_attn.out_proj.weight.data[:, : D_MODEL // H] *= 1.125


def _unmasked(layer: Any) -> None:
    """The masked attention sees one token too many."""
    attend = layer.self_attn.forward

    def forward(*args: Any, attn_mask: Tensor, **kwargs: Any) -> Any:
        shifted = torch.zeros_like(attn_mask, dtype=torch.bool) | (torch.triu(torch.ones(attn_mask.shape), diagonal=2) > 0)
        return attend(*args, **kwargs, attn_mask=shifted)

    layer.self_attn.forward = forward


def _lost_key(layer: Any) -> None:
    """Cross-attention overlooks the last token of the source."""
    attend = layer.multihead_attn.forward
    layer.multihead_attn.forward = lambda X, K, V, **kwargs: attend(X, K[:, :-1], V[:, :-1], **kwargs)


def _activation(wrong: Callable[[Tensor], Tensor]) -> Plant:
    def plant(layer: Any) -> None:
        layer.activation, layer.activation_relu_or_gelu = wrong, 0

    return plant


def _without_bias(layer: Any) -> None:
    layer.linear2.bias.data.zero_()


def _eps(layer: Any) -> None:
    layer.norm1.eps = 0.125


FAULTS = (
    Planted("attention scaled by √(d+1)", _scale, "self_attention.output"),
    Planted("one head × 1.125", _one_head, "self_attention.output"),
    Planted("mask shifted by one", _unmasked, "self_attention.output", ("decoder",)),
    Planted("last key overlooked", _lost_key, "cross_attention.output", ("decoder",)),
    Planted("residual left out", lambda layer: _input_of(layer.norm2, lambda X: 0.5 * X), "add_norm_2.residual"),
    Planted("LayerNorm's eps too large", _eps, "add_norm_1.norm"),
    Planted(
        "variance over d − 1", lambda layer: _output_of(layer.norm2, lambda Y: Y * (1 - 1 / D_MODEL) ** 0.5), "add_norm_2.norm"
    ),
    Planted("gain of the next feature", lambda layer: _output_of(layer.norm1, lambda Y: Y.roll(1, -1)), "add_norm_1.norm"),
    Planted("ReLU6 on ten-fold units", _activation(lambda x: F.relu6(10 * x) / 10), "feed_forward.hidden"),
    Planted("leaky ReLU", _activation(lambda x: F.leaky_relu(x, 2.0**-6)), "feed_forward.hidden"),
    Planted("bias left out", _without_bias, "feed_forward.output"),
)


def model(seed: int, dtype: torch.dtype, layers: int = LAYERS) -> nn.Transformer:
    """A Transformer none of whose gains and biases is special, with attentions that look somewhere: fresh ones only average."""
    torch.manual_seed(seed)
    made = nn.Transformer(D_MODEL, H, layers, layers, D_FF, dropout=0.0, batch_first=True)
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1:
            parameter.data += 0.25 * torch.randn_like(parameter)
        elif name.endswith("in_proj_weight"):
            parameter.data[:D_MODEL] *= 4.0
    return made.to(dtype).eval()


def found(made: nn.Transformer, parameters: dict[str, Any], seed: int, dtype: torch.dtype) -> Finding:
    """What localisation says of this model, one sequence of random features through it."""
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(1, tokens, D_MODEL, generator=generator).to(dtype) for tokens in (M, N))
    ahead = torch.triu(torch.ones(N, N, dtype=torch.bool), diagonal=1)
    intermediates = record_intermediates(made, lambda: made(source, target, tgt_mask=ahead), torch_names(made))
    return localize(Case(parameters, Architecture(h=H)), intermediates, dtype=str(dtype).removeprefix("torch."))


def weights(made: nn.Transformer) -> dict[str, Any]:
    """What the oracle is to compute with: the weights as they were before anything was planted."""
    return mapped(as_float64, from_torch(made.state_dict()))


@dataclass(frozen=True)
class Trial:
    """One model, and what was to be named in it; "" for a correct one."""

    fault: str
    dtype: str
    expected: str
    named: str

    @property
    def is_right(self) -> bool:
        """Whether the first divergence is where the fault is, or nowhere where there is none."""
        return self.named == self.expected


def trials(seeds: int) -> Iterator[Callable[[], Trial]]:
    """Every fault at a layer that differs from seed to seed, and as many correct models, at each dtype."""
    for seed, dtype in product(range(seeds), DTYPES):
        yield lambda seed=seed, dtype=dtype: _honest(seed, dtype)
        for k, fault in enumerate(FAULTS):
            for stack in fault.stacks:
                place = int(np.random.default_rng((seed, k)).integers(LAYERS))
                yield lambda f=fault, s=stack, p=place, seed=seed, dtype=dtype: _planted(f, s, p, seed, dtype)


def _honest(seed: int, dtype: torch.dtype) -> Trial:
    made = model(seed, dtype)
    culprit = found(made, weights(made), seed, dtype).culprit
    return Trial("none", str(dtype).removeprefix("torch."), "", "" if culprit is None else culprit.name)


def _planted(fault: Planted, stack: str, place: int, seed: int, dtype: torch.dtype) -> Trial:
    made = model(seed, dtype)
    before = weights(made)
    fault.plant(getattr(made, stack).layers[place])
    culprit = found(made, before, seed, dtype).culprit
    named = "" if culprit is None else culprit.name
    return Trial(fault.name, str(dtype).removeprefix("torch."), f"{stack}.{place}.{fault.first}", named)


def _alone(trial: Callable[[], Trial]) -> Trial:
    """One trial in a worker, which keeps to one core."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return trial()


def main(trials: Callable[[int], Iterator[Callable[[], Trial]]] = trials, description: str | None = __doc__) -> None:
    """Print, per dtype, how many faults were named rightly and how many correct models were left alone."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    given = with_jobs(parser)
    wanted = list(trials(given.seeds))
    work = in_parallel(_alone, ((trial,) for trial in wanted), given.jobs, ordered=True)
    made: list[Trial] = list(track(work, "localising", total=len(wanted)))
    for dtype in sorted({trial.dtype for trial in made}):
        own = [trial for trial in made if trial.dtype == dtype]
        planted, correct = [t for t in own if t.expected], [t for t in own if not t.expected]
        right, left = sum(t.is_right for t in planted), sum(t.is_right for t in correct)
        share = f"{right} of {len(planted)} faults ({right / len(planted):.1%})"
        print(f"{dtype}: right step named for {share}; no step for {left} of {len(correct)} correct models")
        for trial in own:
            if not trial.is_right:
                print(f"  {trial.fault}: expected {trial.expected or 'no step'}, named {trial.named or 'none'}")


if __name__ == "__main__":
    guarded(main)
