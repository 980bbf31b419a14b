"""The oracle: the encoder-decoder Transformer written to be read beside the article that explains it.

NumPy, float64, one sequence at a time. There is no batch axis, heads are a Python loop, generation recomputes everything for
every word: nothing here is fast, so that every step can be seen. What is *not* here: dropout, training, batches, caches.

Follows Vaswani et al., "Attention Is All You Need" (2017), arXiv:1706.03762. Where article and paper differ, or the article
leaves something open, the paper's choice is the default and the other choice is an argument.

Legend of shapes, used in every signature:

    n        words of the sequence that asks (queries)      d_model  features of a word (512)
    m        words of the sequence that answers (keys)      d_k      features of a query or key inside one head (64)
    h        heads (8)                                      d_v      features of a value inside one head (64)
    vocab    words of the dictionary                        d_ff     hidden units of the feed-forward step (2048)

A capital letter is a whole sequence of vectors, a row a word. A mask is boolean and True means *may look*, everywhere.
"""

STEPS = (
    "embedding",
    "positional_encoding",
    "attention",
    "softmax",
    "mask",
    "multi_head",
    "residual_norm",
    "feed_forward",
    "encoder",
    "decoder",
    "output_projection",
    "transformer",
    "generation",
)
"""The steps in the article's order; each is a module of this package."""
