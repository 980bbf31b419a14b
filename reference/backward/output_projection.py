"""Output projection backward.

logits = X W + b   ⇒   dX = dlogits Wᵀ     dW = Xᵀ dlogits     db = Σ_rows dlogits
"""

import numpy as np
from jaxtyping import Float64

from reference.backward.multi_head import linear_backward
from reference.backward.softmax import softmax_backward


def output_projection_backward(
    dlogits: Float64[np.ndarray, "n vocab"],
    X: Float64[np.ndarray, "n d_model"],
    W: Float64[np.ndarray, "d_model vocab"],
    b: Float64[np.ndarray, " vocab"] | None = None,
) -> tuple[Float64[np.ndarray, "n d_model"], Float64[np.ndarray, "d_model vocab"], Float64[np.ndarray, " vocab"] | None]:
    """dX, dW and db, None where there is no b. Tied to the target embedding, W is tableᵀ: dWᵀ is one of the table's two parts."""
    return linear_backward(dlogits, X, W, b)


def next_token_backward(
    dP: Float64[np.ndarray, "n vocab"], logits: Float64[np.ndarray, "n vocab"]
) -> Float64[np.ndarray, "n vocab"]:
    """From the gradient of the probabilities to that of the logits: softmax's."""
    return softmax_backward(dP, logits)
