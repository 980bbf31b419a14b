"""The backward of a torch implementation that offers only the forward: by autograd of what that returns.

dO goes into autograd as it was handed over, in whatever layout; the inputs that a gradient is asked of require one, the others do
not; several passes go through one graph. Where the result of the forward carries no gradient it is not taken
(NotImplementedError).

Stands alone (standard library, torch where it is imported): an implementation's process loads this file by its path.
"""

import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

FORWARD = {
    "softmax_backward": "softmax",
    "attention_backward": "attention",
    "attention_gradient": "attention",
    "layer_norm_backward": "layer_norm",
    "feed_forward_backward": "feed_forward",
}
"""Of each backward step the forward step that it can be had from."""


def derivable(steps: Collection[str]) -> list[str]:
    """The backward steps that these steps do not hold, but can be differentiated to."""
    return [step for step, forward in FORWARD.items() if forward in steps and step not in steps]


def backward_of(step: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """The backward `step`, given its forward."""
    return partial(BACKWARD[step], forward)


def attention_backward(forward: Callable[..., Any], dO: Any, Q: Any, K: Any, V: Any, *mask: Any) -> tuple[Any, ...]:
    """dQ, dK and dV."""
    return _gradients(lambda Q, K, V: forward(Q, K, V, *mask), (Q, K, V), dO)


def attention_gradient(forward: Callable[..., Any], dO: Any, Q: Any, K: Any, V: Any, *mask: Any, of: str, passes: int = 1) -> Any:
    """The gradient of one input, when no other requires one; from the last of so many passes."""
    inputs = {"Q": Q, "K": K, "V": V}

    def alone(leaf: Any) -> Any:
        return forward(*{**inputs, of: leaf}.values(), *mask)

    return _gradients(alone, (inputs[of],), dO, passes)[0]


def softmax_backward(forward: Callable[..., Any], dP: Any, scores: Any) -> Any:
    """The gradient of the scores."""
    return _gradients(forward, (scores,), dP)[0]


def layer_norm_backward(forward: Callable[..., Any], dY: Any, X: Any, *, gain: Any, eps: float = 1e-5) -> tuple[Any, ...]:
    """dX, dgain and dbias; the bias itself makes no difference, so it is 0."""
    bias = gain.detach() * 0
    return _gradients(lambda X, gain, bias: forward(X, gain=gain, bias=bias, eps=eps), (X, gain, bias), dY)


def feed_forward_backward(
    forward: Callable[..., Any], dY: Any, X: Any, *, W_1: Any, b_1: Any, W_2: Any, activation: str = "relu"
) -> tuple[Any, ...]:
    """dX and those of both maps; b_2 itself makes no difference, so it is 0."""

    def maps(X: Any, W_1: Any, b_1: Any, W_2: Any, b_2: Any) -> Any:
        return forward(X, W_1=W_1, b_1=b_1, W_2=W_2, b_2=b_2, activation=activation)

    return _gradients(maps, (X, W_1, b_1, W_2, W_2.new_zeros(W_2.shape[-1:])), dY)


BACKWARD: dict[str, Callable[..., Any]] = {
    "softmax_backward": softmax_backward,
    "attention_backward": attention_backward,
    "attention_gradient": attention_gradient,
    "layer_norm_backward": layer_norm_backward,
    "feed_forward_backward": feed_forward_backward,
}


def _gradients(forward: Callable[..., Any], inputs: tuple[Any, ...], dY: Any, passes: int = 1) -> tuple[Any, ...]:
    """Those of all inputs; zeros for one that the result does not depend on."""
    torch, found = sys.modules["torch"], ()
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in inputs]
        result = forward(*leaves)
        if isinstance(result, torch.Tensor) and not result.requires_grad:
            raise NotImplementedError("its result carries no gradient")
        for _ in range(passes):
            found = torch.autograd.grad(result, leaves, dY, retain_graph=True, allow_unused=True, materialize_grads=True)
    return found


class Differentiated:
    """For an adapter whose forward steps are torch's: its backward steps, by autograd."""

    def __getattr__(self, step: str) -> Callable[..., Any]:
        """The backward of that name. Raises AttributeError for anything else."""
        if step not in FORWARD:
            raise AttributeError(step)
        return backward_of(step, getattr(self, FORWARD[step]))
