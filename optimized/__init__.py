"""The fast one: the same steps, names and arguments as `reference`, in PyTorch, batched, in any dtype on any device.

Every function takes leading batch axes, float64, float32, bfloat16 or float16, on CPU or CUDA, and lets gradients through.
Each docstring opens with what the step does differently from the oracle. What is *not* here: dropout, beam search, sampling,
a training framework.

Legend of shapes, used in every signature:

    ...      batch axes, usually one                        d_model  features of a token (512)
    b        sequences of a batch, where there is just one   d_k      features of a query or key inside one head (64)
    n        tokens of the sequence that asks (queries)      d_v      features of a value inside one head (64)
    m        tokens of the sequence that answers (keys)      d_ff     hidden units of the feed-forward step (2048)
    h        heads (8)                                      vocab    tokens of the vocabulary

A mask is boolean, True means *attend*, and it need only be broadcastable to (b, h, n, m). A query that is fully masked
receives zeros.
"""
