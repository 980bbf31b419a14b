"""Output projection: from features to a score for every token of the vocabulary, and from scores to probabilities.

    logits = X W + b        next token ~ softmax(logits)

Vaswani et al. (2017), section 3.4; tied to the target embedding W is tableᵀ.
"""

from jaxtyping import Float
from torch import Tensor

from optimized.multi_head import linear
from optimized.softmax import softmax


def output_projection(
    X: Float[Tensor, "... n d_model"], W: Float[Tensor, "d_model vocab"], b: Float[Tensor, " vocab"] | None = None
) -> Float[Tensor, "... n vocab"]:
    """The rows of the whole batch in one product: a score (logit) for every token of the vocabulary."""
    return linear(X, W, b)


def next_token(logits: Float[Tensor, "... n vocab"]) -> Float[Tensor, "... n vocab"]:
    """All rows at once: row i is the distribution of token i + 1."""
    return softmax(logits)
