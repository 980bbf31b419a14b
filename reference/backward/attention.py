"""Attention backward: what each query, key and value contributed.

    P = softmax(S),  S = Q Kᵀ / √d_k,  O = P V

    O = P V           ⇒  dV = Pᵀ dO           dP = dO Vᵀ
    P = softmax(S)    ⇒  dS = P ∘ (dP − D)    D_i = Σ_j P_ij dP_ij
    S = Q Kᵀ / √d_k   ⇒  dQ = (dS / √d_k) K   dK = (dS / √d_k)ᵀ Q

A kernel that does not keep P keeps O and the log-sums L_i = log Σ_j exp S_ij (Dao et al. 2022, "FlashAttention", appendix B.2):

    P_ij = exp(S_ij − L_i)                 D_i = Σ_j P_ij Σ_c dO_ic V_jc = Σ_c dO_ic O_ic

Over the reals that is the same; rounded it is not, so both are here.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from reference.backward.softmax import log_sums, through_softmax
from reference.mask import apply_mask
from reference.softmax import softmax
from reference.trace import record


def attention_backward(
    dO: Float64[np.ndarray, "n d_v"],
    Q: Float64[np.ndarray, "n d_k"],
    K: Float64[np.ndarray, "m d_k"],
    V: Float64[np.ndarray, "m d_v"],
    mask: Bool[np.ndarray, "n m"] | None = None,
    kept: Literal["weights", "log_sums"] = "weights",
) -> tuple[Float64[np.ndarray, "n d_k"], Float64[np.ndarray, "m d_k"], Float64[np.ndarray, "m d_v"]]:
    """dQ, dK and dV from the gradient of the output. `kept` says what the forward has kept: P, or O and the log-sums.

    Where a query may not look, its weight is 0: it gives that key and value nothing, and a query that may look nowhere gives
    and gets 0.
    """
    root = np.sqrt(Q.shape[-1])
    products = record("products", Q @ K.T)
    scores = record("scores", products / root)
    masked_scores = record("masked_scores", apply_mask(scores, mask))
    P = record("weights", softmax(masked_scores))
    O = record("O", P @ V)  # noqa: E741 (the paper's letter)
    if kept == "log_sums":
        P = record("weights", np.exp(masked_scores - log_sums(masked_scores)))

    # back through O = P V
    dV = record("dV", P.T @ dO)
    dP = record("dP", dO @ V.T)

    # back through P = softmax(S)
    D = (P * dP if kept == "weights" else dO * O).sum(axis=-1, keepdims=True)
    dS = record("dS", through_softmax(dP, P, D))

    # back through S = Q Kᵀ / √d_k
    dproducts = record("dproducts", dS / root)
    dQ = record("dQ", dproducts @ K)
    dK = record("dK", dproducts.T @ Q)
    return dQ, dK, dV
