"""Intermediates of an implementation that offers single steps: a whole model run from its own steps, every result recorded.

For implementations that are no `torch.nn.Module` and have no `intermediate(name)`. What is judged is each step on the values
the chain gives it, not how the implementation wires them together: its own whole `transformer` is another property's affair.
"""

from typing import Any

import numpy as np

from properties.implementations.impl import Impl
from properties.localize.hooks import Intermediates
from properties.localize.localize import Case

NEEDED = ("embedding", "positional_encoding", "multi_head", "layer_norm", "feed_forward", "output_projection", "mask")


def chained(impl: Impl, case: Case) -> Intermediates:
    """Run `case` (with token ids) from the implementation's own steps. Raises ValueError naming the steps that are not offered."""
    if missing := [step for step in NEEDED if not impl.offers(step)]:
        raise ValueError(
            f"{impl.name}: expected the steps {', '.join(NEEDED)} to run a whole model from; {', '.join(missing)} missing"
        )
    assert case.source is not None
    assert case.target is not None
    return _Chain(impl, case).run(case.source, case.target)


class _Chain:
    def __init__(self, impl: Impl, case: Case) -> None:
        self.impl, self.case, self.intermediates = impl, case, Intermediates()

    def run(self, source: np.ndarray, target: np.ndarray) -> Intermediates:
        parameters = self.case.parameters
        M = self.stack("encoder", self.enter("source", source), None)
        X = self.stack("decoder", self.enter("target", target), M)
        W = parameters["target_embedding"].T.copy() if parameters.get("W_out") is None else parameters["W_out"]
        self.keep("logits", self.impl.output_projection(X, W=W, b=parameters.get("b_out")))
        return self.intermediates

    def keep(self, name: str, result: np.ndarray) -> np.ndarray:
        self.intermediates[name] = result[0]
        return result

    def enter(self, side: str, tokens: np.ndarray) -> np.ndarray:
        table, scale = self.case.parameters[f"{side}_embedding"], self.case.architecture.scale_embedding
        X = self.keep(f"{side}.embedding", self.impl.embedding(tokens[None], table=table, scale=scale))
        PE = self.impl.positional_encoding(len(tokens), table.shape[1])
        self.intermediates[f"{side}.positional_encoding"] = PE
        return self.keep(f"{side}.input", self.impl.representable(X + PE))

    def stack(self, name: str, X: np.ndarray, M: np.ndarray | None) -> np.ndarray:
        for i, layer in enumerate(self.case.parameters[name]):
            X = self.layer(f"{name}.{i}", X, M, layer)
        final = self.case.parameters.get(f"{name}_norm")
        return X if final is None else self.keep(f"{name}.final_norm", self.norm(X, final))

    def layer(self, here: str, X: np.ndarray, M: np.ndarray | None, layer: dict[str, Any]) -> np.ndarray:
        h, n = self.case.architecture.h, X.shape[1]
        past = None if M is None else self.impl.mask(n, n)
        sublayers = {"self_attention": lambda X: self.impl.multi_head(X, X, past, h=h, **layer["self_attention"])}
        if M is not None:
            sublayers["cross_attention"] = lambda X: self.impl.multi_head(X, M, None, h=h, **layer["cross_attention"])
        activation = self.case.architecture.activation
        sublayers["feed_forward"] = lambda X: self.impl.feed_forward(X, **layer["feed_forward"], activation=activation)
        for k, (part, sublayer) in enumerate(sublayers.items(), start=1):
            at, norm = f"{here}.add_norm_{k}", layer[f"norm_{k}"]
            pre = self.case.architecture.norm == "pre"
            given = self.keep(f"{at}.norm", self.norm(X, norm)) if pre else X
            output = self.keep(f"{here}.{part}.output", sublayer(given))
            X = self.keep(f"{at}.residual", self.impl.representable(X + output))
            X = X if pre else self.keep(f"{at}.norm", self.norm(X, norm))
        return X

    def norm(self, X: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
        return self.impl.layer_norm(X, **weights, eps=self.case.architecture.eps)
