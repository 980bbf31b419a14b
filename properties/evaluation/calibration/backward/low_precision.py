"""A correct backward of single steps in a low precision, whose every arithmetic choice is a parameter.

As `properties.evaluation.calibration.low_precision`, which it starts from: written again from the derivations, in float32 with
casts to the storage dtype where the mode says so. What faults change are arguments whose default is the right value.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import erf

from properties.evaluation.calibration.low_precision import LowPrecision

Gradients = dict[str, np.ndarray]


@dataclass(frozen=True)
class LowPrecisionBackward(LowPrecision):
    """One set of choices; its methods are the backward steps, on float64 arrays that are representable in `dtype`."""

    kept: Literal["weights", "log_sums"] = "weights"  # what the forward has kept: P, or of each row log Σ exp S
    row_sums: Literal["weights", "output"] = "weights"  # D from P ∘ dP, or from dO ∘ O
    scale_last: bool = False  # whether dQ and dK are divided by √d_k, instead of dS

    # Steps on arrays of the computation's own dtype ---------------------------------------------------------------------

    def _recomputed(self, scores: np.ndarray) -> np.ndarray:
        """The weights as exp(S − L); a row of nothing but −∞ gets zeros."""
        largest = scores.max(axis=-1, keepdims=True)
        largest = np.where(np.isinf(largest), self.inside(0), largest)
        total = self.order(np.exp(scores - largest))
        return np.exp(scores - (largest + np.log(np.where(total == 0, self.inside(1), total))))

    def _rows(self, X: np.ndarray) -> np.ndarray:
        """The sums over all rows (rows, columns), summed in this order."""
        return self.order(np.ascontiguousarray(X.T))[:, 0]

    def _all_rows(self, X: np.ndarray) -> np.ndarray:
        return self.given(X).reshape(-1, X.shape[-1])

    def _slope(self, x: np.ndarray, activation: str) -> np.ndarray:
        one, half = self.inside(1), self.inside(0.5)
        if activation == "relu":
            return np.where(x > 0, one, self.inside(0))
        if activation == "gelu":
            density = np.exp(-half * x * x) * self.inside(1 / np.sqrt(2 * np.pi))
            return half * (one + erf(x * self.inside(np.sqrt(0.5)))) + x * density
        t = np.tanh(self.inside(np.sqrt(2 / np.pi)) * (x + self.inside(0.044715) * x * x * x))
        inner = self.inside(np.sqrt(2 / np.pi)) * (one + self.inside(3 * 0.044715) * x * x)
        return half * (one + t) + half * x * ((one - t * t) * inner)

    def _named_results(self, **gradients: np.ndarray) -> Gradients:
        return {name: self.result(array) for name, array in gradients.items()}

    # The face of `properties.steps` -------------------------------------------------------------------------------------

    def softmax_backward(self, dP: np.ndarray, scores: np.ndarray, *, row_sum: float = 1.0) -> Gradients:
        """dS, from the scores; D is taken `row_sum` times."""
        scores, dP = self.given(scores), self.given(dP)
        P = self._weights(scores) if self.kept == "weights" else self._recomputed(scores)
        P = self.named(P)
        return self._named_results(dS=P * (dP - self.inside(row_sum) * self.order(P * dP)))

    def attention_backward(
        self,
        dO: np.ndarray,
        Q: np.ndarray,
        K: np.ndarray,
        V: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        row_sum: float = 1.0,
        of_keys: float = 1.0,
        of_second_head: float = 1.0,
    ) -> Gradients:
        """All heads of all rows at once; D, dK and the second head's dS are taken so many times."""
        dO, Q, K, V = map(self.given, (dO, Q, K, V))
        root = self.inside(np.sqrt(Q.shape[-1]))
        if self.scale_queries:
            scores = self.named(self.product(self.named(Q / root), np.swapaxes(K, -1, -2)))
        else:
            scores = self.named(self.named(self.product(Q, np.swapaxes(K, -1, -2))) / root)
        scores = scores if mask is None else np.where(mask, scores, self.inside(-np.inf))
        P = self.named(self._weights(scores) if self.kept == "weights" else self._recomputed(scores))
        P_operand = self.stored(P) if self.cast_weights else P
        dV = self.product(np.swapaxes(P_operand, -1, -2), dO)
        dP = self.named(self.product(dO, np.swapaxes(V, -1, -2)))
        terms = P * dP if self.row_sums == "weights" else dO * self.stored(self.product(P_operand, V))
        D = self.order(terms)
        dS = P * (dP - self.inside(row_sum) * D)
        dS[:, 1:2] *= self.inside(of_second_head)
        dS = self.named(dS)
        if not self.scale_last:
            dS = self.named(dS / root)
        dS = self.stored(dS) if self.cast_weights else dS
        dQ, dK = self.product(dS, K), self.product(np.swapaxes(dS, -1, -2), Q) * self.inside(of_keys)
        if self.scale_last:
            dQ, dK = dQ / root, dK / root
        return self._named_results(dQ=dQ, dK=dK, dV=dV)

    def layer_norm_backward(
        self, dY: np.ndarray, X: np.ndarray, *, gain: np.ndarray, eps: float = 1e-5, mean_of_gradients: float = 1.0
    ) -> Gradients:
        """Each row by itself, gain and bias over all rows; the mean of dx̂ is taken so many times."""
        shape, X, dY = X.shape, self._all_rows(X), self._all_rows(dY)
        d = self.inside(X.shape[-1])
        mean = self.order(X) / d
        variance = self._welford(X) if self.norm_style == "Welford" else self.order(np.square(X - mean)) / d
        rstd = self.inside(1) / np.sqrt(variance + self.inside(eps))
        normalised = X * rstd + -mean * rstd if self.norm_style == "folded" else (X - mean) * rstd
        d_normalised = dY * self.given(gain)
        of_mean = self.order(d_normalised) / d * self.inside(mean_of_gradients)
        along = self.order(d_normalised * normalised) / d
        dX = (d_normalised - of_mean - normalised * along) * rstd
        return self._named_results(dX=dX.reshape(shape), dgain=self._rows(dY * normalised), dbias=self._rows(dY))

    def feed_forward_backward(
        self,
        dY: np.ndarray,
        X: np.ndarray,
        *,
        W_1: np.ndarray,
        b_1: np.ndarray,
        W_2: np.ndarray,
        activation: str = "relu",
        slope: float = 1.0,
    ) -> Gradients:
        """Through both maps; the activation's slope is taken so many times."""
        shape, X, dY, W_1, W_2 = X.shape, self._all_rows(X), self._all_rows(dY), self.given(W_1), self.given(W_2)
        before = self._linear(X, W_1, b_1)
        hidden = self.stored(self._activated(before, activation))
        d_hidden = self.named(self.product(dY, W_2.T))
        d_before = self.stored(d_hidden * self._slope(before, activation) * self.inside(slope))
        return self._named_results(
            dX=self.product(d_before, W_1.T).reshape(shape),
            dW_1=self.product(X.T, d_before),
            db_1=self._rows(d_before),
            dW_2=self.product(hidden.T, dY),
            db_2=self._rows(dY),
        )

    def run(self, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Gradients:
        """One step by its name."""
        with np.errstate(all="ignore"):
            return getattr(self, step)(*args, **kwargs)
