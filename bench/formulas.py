"""What a workload must compute and move, whoever does it: multiplications and additions of its products, and numbers touched.

`flops` counts matrix products only, 2 n m k for (n, k) @ (k, m), as `torch.utils.flop_counter` does (a test holds them together);
a causal product counts in full. `elements` counts every number of inputs, weights and result once: what no implementation can
avoid to read or write. Times itemsize it is the least traffic, so a share of the memory's speed made from it is a lower bound.
Sizes are the paper's letters: b sequences, n tokens, m tokens of the source, h heads, d_model, d_ff, layers, vocab, length.
"""

from collections.abc import Callable

Sizes = dict[str, int]
Formula = Callable[[Sizes], float]


def linear(rows: int, inputs: int, outputs: int) -> int:
    """The flops of X W for X (rows, inputs)."""
    return 2 * rows * inputs * outputs


# Flops ----------------------------------------------------------------------------------------------------------------


def no_products(_: Sizes) -> int:
    """A step without a matrix product."""
    return 0


def attention_flops(s: Sizes) -> int:
    """Q Kᵀ and P V, for every head."""
    return s["b"] * s["h"] * (linear(s["n"], s["d_k"], s["m"]) + linear(s["n"], s["m"], s["d_k"]))


def multi_head_flops(s: Sizes) -> int:
    """Queries and outputs of n tokens, keys and values of m tokens, and the heads between."""
    d = s["d_model"]
    heads = attention_flops({**s, "d_k": d // s["h"]})
    return s["b"] * (2 * linear(s["n"], d, d) + 2 * linear(s["m"], d, d)) + heads


def feed_forward_flops(s: Sizes) -> int:
    """In and out of the hidden units."""
    return 2 * linear(s["b"] * s["n"], s["d_model"], s["d_ff"])


def encoder_layer_flops(s: Sizes) -> int:
    """Self-attention and feed-forward."""
    return multi_head_flops({**s, "m": s["n"]}) + feed_forward_flops(s)


def decoder_layer_flops(s: Sizes) -> int:
    """Self-attention, cross-attention and feed-forward."""
    return encoder_layer_flops(s) + multi_head_flops(s)


def output_projection_flops(s: Sizes) -> int:
    """From features to the vocabulary."""
    return linear(s["b"] * s["n"], s["d_model"], s["vocab"])


def encoding_flops(s: Sizes) -> int:
    """The whole encoder, on the m tokens of the source."""
    return s["layers"] * encoder_layer_flops({**s, "n": s["m"]})


def transformer_flops(s: Sizes) -> int:
    """Both stacks and the output projection."""
    return encoding_flops(s) + s["layers"] * decoder_layer_flops(s) + output_projection_flops(s)


def generation_flops(s: Sizes) -> int:
    """Encode once; then for each token one row through the decoder, keys and values of all earlier tokens being kept."""
    d, b, length = s["d_model"], s["b"], s["length"]
    source_keys = 2 * linear(b * s["m"], d, d)
    word = 6 * linear(b, d, d) + 2 * linear(b, d, s["d_ff"])  # Q K V O of the tokens, Q O of the source
    looks = sum(4 * b * d * (i + s["m"]) for i in range(1, length + 1))
    return encoding_flops(s) + s["layers"] * (source_keys + length * word + looks) + length * linear(b, d, s["vocab"])


def training_flops(s: Sizes) -> int:
    """Forward, and two products backward for each one forward."""
    return 3 * transformer_flops(s)


# Numbers touched ------------------------------------------------------------------------------------------------------


def embedding_elements(s: Sizes) -> int:
    """Ids in; the rows looked up and the rows given."""
    return s["b"] * s["n"] * (1 + 2 * s["d_model"])


def positional_encoding_elements(s: Sizes) -> int:
    """The result: nothing is read."""
    return s["n"] * s["d_model"]


def mask_elements(s: Sizes) -> int:
    """The result: nothing is read."""
    return s["n"] * s["m"]


def softmax_elements(s: Sizes) -> int:
    """Scores in, weights out."""
    return 2 * s["b"] * s["h"] * s["n"] * s["m"]


def attention_elements(s: Sizes) -> int:
    """Q and the result, K and V; the scores need not be written anywhere."""
    return 2 * s["b"] * s["h"] * s["d_k"] * (s["n"] + s["m"])


def rows(s: Sizes) -> int:
    """One matrix of n tokens' features, for every sequence."""
    return s["b"] * s["n"] * s["d_model"]


def multi_head_weights(s: Sizes) -> int:
    """Four matrices and their biases."""
    return 4 * (s["d_model"] + 1) * s["d_model"]


def multi_head_elements(s: Sizes) -> int:
    """X, M, the result and the weights."""
    return 2 * rows(s) + s["b"] * s["m"] * s["d_model"] + multi_head_weights(s)


def residual_norm_elements(s: Sizes) -> int:
    """X, Y and the result; gain and bias."""
    return 3 * rows(s) + 2 * s["d_model"]


def feed_forward_weights(s: Sizes) -> int:
    """Two matrices and their biases."""
    return 2 * s["d_model"] * s["d_ff"] + s["d_model"] + s["d_ff"]


def feed_forward_elements(s: Sizes) -> int:
    """X, the result and the weights."""
    return 2 * rows(s) + feed_forward_weights(s)


def encoder_layer_weights(s: Sizes) -> int:
    """One attention, one feed-forward, two norms."""
    return multi_head_weights(s) + feed_forward_weights(s) + 4 * s["d_model"]


def decoder_layer_weights(s: Sizes) -> int:
    """Two attentions, one feed-forward, three norms."""
    return 2 * multi_head_weights(s) + feed_forward_weights(s) + 6 * s["d_model"]


def encoder_layer_elements(s: Sizes) -> int:
    """X, the result and the weights."""
    return 2 * rows(s) + encoder_layer_weights(s)


def decoder_layer_elements(s: Sizes) -> int:
    """X, M, the result and the weights."""
    return 2 * rows(s) + s["b"] * s["m"] * s["d_model"] + decoder_layer_weights(s)


def output_projection_elements(s: Sizes) -> int:
    """X, the logits, W and b."""
    return rows(s) + s["b"] * s["n"] * s["vocab"] + (s["d_model"] + 1) * s["vocab"]


def stack_weights(s: Sizes) -> int:
    """All layers of both sides."""
    return s["layers"] * (encoder_layer_weights(s) + decoder_layer_weights(s))


def words(s: Sizes) -> int:
    """The ids of source and target, and the rows of the tables they look up."""
    return s["b"] * (s["m"] + s["n"]) * (1 + s["d_model"])


def transformer_elements(s: Sizes) -> int:
    """Ids, their rows, the weights of the stacks, the output matrix with its bias, and the logits."""
    return words(s) + stack_weights(s) + (s["d_model"] + 1) * s["vocab"] + s["b"] * s["n"] * s["vocab"]


def generation_elements(s: Sizes) -> int:
    """The encoder's weights once; the decoder's and the output matrix for every token: they outgrow the caches."""
    decoding = s["layers"] * decoder_layer_weights(s) + (s["d_model"] + 1) * s["vocab"]
    return words({**s, "n": s["length"]}) + s["layers"] * encoder_layer_weights(s) + s["length"] * decoding


def training_elements(s: Sizes) -> int:
    """Every weight read forward; then weight, mean and mean square of Adam each read and written."""
    weights = stack_weights(s) + s["vocab"] * (3 * s["d_model"] + 1)  # two tables and the output matrix with its bias
    return words(s) + 7 * weights
