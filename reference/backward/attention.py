"""Attention backward: what each query, key and value contributed.

    P = softmax(S),  S = Q Kᵀ / √d_k,  O = P V

    O = P V           ⇒  dV = Pᵀ dO           dP = dO Vᵀ
    P = softmax(S)    ⇒  dS = P ∘ (dP − D)    D_i = Σ_j P_ij dP_ij
    S = Q Kᵀ / √d_k   ⇒  dQ = (dS / √d_k) K   dK = (dS / √d_k)ᵀ Q

Since Σ_j P_ij dP_ij = Σ_j P_ij Σ_c dO_ic V_jc = Σ_c dO_ic O_ic, the sums D can be had from the output alone (Dao et al. 2022,
"FlashAttention", appendix B.2). Over the reals that is the same; rounded it is not, so both are here.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from reference.backward.softmax import through_softmax
from reference.mask import apply_mask
from reference.softmax import softmax
from reference.trace import record


def attention_backward(
    dO: Float64[np.ndarray, "n d_v"],
    Q: Float64[np.ndarray, "n d_k"],
    K: Float64[np.ndarray, "m d_k"],
    V: Float64[np.ndarray, "m d_v"],
    mask: Bool[np.ndarray, "n m"] | None = None,
    row_sums: Literal["weights", "output"] = "weights",
) -> tuple[Float64[np.ndarray, "n d_k"], Float64[np.ndarray, "m d_k"], Float64[np.ndarray, "m d_v"]]:
    """dQ, dK and dV from the gradient of the output. `row_sums` says what D is summed over: P ∘ dP, or dO ∘ O.

    Where a query may not look, its weight is 0: it gives that key and value nothing, and a query that may look nowhere gives
    and gets 0.
    """
    root = np.sqrt(Q.shape[-1])
    products = record("products", Q @ K.T)
    scores = record("scores", products / root)
    masked_scores = record("masked_scores", apply_mask(scores, mask))
    P = record("weights", softmax(masked_scores))

    # back through O = P V
    dV = record("dV", P.T @ dO)
    dP = record("dP", dO @ V.T)

    # back through P = softmax(S)
    D = (dO * record("O", P @ V)).sum(axis=-1, keepdims=True) if row_sums == "output" else (P * dP).sum(axis=-1, keepdims=True)
    dS = record("dS", through_softmax(dP, P, D))

    # back through S = Q Kᵀ / √d_k
    dproducts = record("dproducts", dS / root)
    dQ = record("dQ", dproducts @ K)
    dK = record("dK", dproducts.T @ Q)
    return dQ, dK, dV
