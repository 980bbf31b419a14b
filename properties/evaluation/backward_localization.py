"""How often localisation names the right gradient: faults of one layer's backward, and correct models of twelve layers.

    python -m properties.evaluation.backward_localization [--seeds N]

Forward such a model is right. What must be named is the first gradient that the fault makes wrong, on the way from the end to the
beginning. In float32: in narrower dtypes PyTorch's own LayerNorm is what is named, whose backward keeps means and 1/σ in the rows'
dtype on the CPU.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from properties.evaluation.localization import D_MODEL, LAYERS, H, M, N, Planted, Trial, main, model, weights
from properties.implementations.weights import as_float64, from_torch, mapped
from properties.localize.backward import Recorded, localize_backward
from properties.localize.hooks import record_gradients, torch_names
from properties.localize.localize import Finding
from properties.run.subprocesses import guarded
from reference.parameters import Architecture

DTYPE = torch.float32


class _Backward(torch.autograd.Function):
    """A function whose backward is another one's: `forward` and `backward` of a tensor, the latter with the gradient."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What `forward` gives."""
        ctx.save_for_backward(X)
        ctx.backward = backward
        return forward(X)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """What `backward` makes of the gradient and X."""
        (X,) = ctx.saved_tensors
        return ctx.backward(outputs[0], X), None, None


def _with_backward(X: Tensor, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return _Backward.apply(X, forward, backward)  # type: ignore[return-value]


def _unchanged(X: Tensor) -> Tensor:
    return X.clone()


def _into(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """The gradient that a module of the layer hands on is changed; the module's own input is not."""

    def plant(layer: nn.Module) -> None:
        module = layer.get_submodule(name)
        compute = module.forward

        def forward(X: Tensor) -> Tensor:
            return compute(_with_backward(X, _unchanged, lambda d_X, _: change(d_X)))

        module.forward = forward

    return plant


def _of_weight(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module], None]:
    """The gradient of a parameter of the layer is changed."""

    def plant(layer: nn.Module) -> None:
        layer.get_parameter(name).register_hook(change)

    return plant


def _slope(backward: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any], None]:
    def plant(layer: Any) -> None:
        layer.activation, layer.activation_relu_or_gelu = lambda x: _with_backward(x, F.relu, backward), 0

    return plant


def _without_mean(layer: Any) -> None:
    """dX = (dx̂ − x̂ · mean(x̂ ∘ dx̂)) / r."""
    norm = layer.norm2
    compute = norm.forward

    def forward(X: Tensor) -> Tensor:
        spread = torch.sqrt(X.var(-1, unbiased=False, keepdim=True) + norm.eps).detach()
        Y = compute(X)
        told: list[Tensor] = []
        Y.register_hook(lambda d_Y: told.append((d_Y * norm.weight).mean(-1, keepdim=True) / spread))
        X.register_hook(lambda d_X: d_X + told[0])
        return Y

    norm.forward = forward


def _keys_learn_nothing(layer: Any) -> None:
    """Self-attention's input is told what it asked, and not what it answered."""
    attend = layer.self_attn.forward
    layer.self_attn.forward = lambda X, K, V, **kwargs: attend(X, K.detach(), V, **kwargs)


def _memory_is_not_told(layer: Any) -> None:
    attend = layer.multihead_attn.forward
    layer.multihead_attn.forward = lambda X, K, V, **kwargs: attend(X, K.detach(), V.detach(), **kwargs)


def _last_row_lost(d_X: Tensor) -> Tensor:
    return torch.cat([d_X[:, :-1], torch.zeros_like(d_X[:, -1:])], dim=1)


def _values_too_much(d_packed: Tensor) -> Tensor:
    return torch.cat([d_packed[: 2 * D_MODEL], d_packed[2 * D_MODEL :] * (1 + 2.0**-10)])


FAULTS = (
    Planted("hidden units × (1 + 2⁻¹⁰)", _into("linear2", lambda d: d * (1 + 2.0**-10)), "feed_forward.hidden"),
    Planted("last row of hidden units lost", _into("linear2", _last_row_lost), "feed_forward.hidden"),
    Planted("leaky slope", _slope(lambda d, x: torch.where(x > 0, d, d * 2.0**-6)), "feed_forward.preactivation"),
    Planted("slope of the hidden units above 1", _slope(lambda d, x: torch.where(x > 1, d, 0.0)), "feed_forward.preactivation"),
    Planted("W_1 learns half", _of_weight("linear1.weight", lambda d: d / 2), "feed_forward.W_1"),
    Planted("W_2 learns from the next feature", _of_weight("linear2.weight", lambda d: d.roll(1, 0)), "feed_forward.W_2"),
    Planted("b_2 learns from another feature", _of_weight("linear2.bias", lambda d: d.roll(1)), "feed_forward.b_2"),
    Planted("a norm keeps the mean of its gradients", _without_mean, "add_norm_2.residual"),
    Planted("a gain learns nothing", _of_weight("norm1.weight", torch.zeros_like), "norm_1.gain"),
    Planted("W_V × (1 + 2⁻¹⁰)", _of_weight("self_attn.in_proj_weight", _values_too_much), "self_attention.W_V"),
    Planted(
        "W_O learns from the next head", _of_weight("self_attn.out_proj.weight", lambda d: d.roll(16, 1)), "self_attention.W_O"
    ),
    Planted("keys tell their words nothing", _keys_learn_nothing, "input"),
    Planted("memory is not told by one layer", _memory_is_not_told, "memory", ("decoder",)),
)
"""`first` is the gradient that is wrong first: below the layer's name, what the layer reads, "input", or the decoder, "memory"."""


def first(fault: Planted, stack: str, place: int) -> str:
    """The name of the gradient that is to be named."""
    if fault.first == "memory":
        return "gradient of encoder.final_norm"
    if fault.first != "input":
        return f"gradient of {stack}.{place}.{fault.first}"
    if place == 0:
        return f"gradient of {'source' if stack == 'encoder' else 'target'}.input"
    return f"gradient of {stack}.{place - 1}.add_norm_{3 if stack == 'decoder' else 2}.norm"


def found(made: nn.Transformer, seed: int) -> Finding:
    """What localisation says of this model's backward, one sequence of random features through it."""
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.randn(1, tokens, D_MODEL, generator=generator).requires_grad_() for tokens in (M, N))
    ahead = torch.triu(torch.ones(N, N, dtype=torch.bool), diagonal=1)
    values, gradients = record_gradients(made, lambda: made(source, target, tgt_mask=ahead), torch_names(made), seed=seed)
    of_weights = {name: torch.zeros_like(W) if W.grad is None else W.grad for name, W in made.named_parameters()}
    recorded = Recorded(values, gradients, mapped(as_float64, from_torch(of_weights)))
    return localize_backward(recorded, weights(made), Architecture(h=H))


def _named(made: nn.Transformer, seed: int) -> str:
    culprit = found(made, seed).culprit
    return "" if culprit is None else culprit.name


def _correct(seed: int) -> Trial:
    return Trial("none", "float32", "", _named(model(seed, DTYPE), seed))


def _planted(fault: Planted, stack: str, place: int, seed: int) -> Trial:
    made = model(seed, DTYPE)
    fault.plant(getattr(made, stack).layers[place])
    return Trial(fault.name, "float32", first(fault, stack, place), _named(made, seed))


def trials(seeds: int) -> Iterator[Callable[[], Trial]]:
    """Every fault at a layer that differs from seed to seed, and as many correct models."""
    for seed in range(seeds):
        yield partial(_correct, seed)
        for k, fault in enumerate(FAULTS):
            for stack in fault.stacks:
                place = int(np.random.default_rng((seed, k)).integers(LAYERS))
                yield partial(_planted, fault, stack, place, seed)


if __name__ == "__main__":
    guarded(partial(main, trials, __doc__))
