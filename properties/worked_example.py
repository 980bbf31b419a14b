"""The article's example, matrix by matrix: 16 tokens, 512 features, 8 heads of 64.

A sequence of 16 tokens in which one token stands twice, and 16 tokens of its translation so far. The weights are random (a seed,
nothing learned): what each matrix *is* can be seen, what the model thinks of cats cannot.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from reference.initialisation import initialise
from reference.output_projection import next_token
from reference.parameters import Architecture, TransformerParameters
from reference.trace import Trace
from reference.transformer import transformer

SENTENCE = "the cat that chased the small grey mouse all morning finally slept beside its warm stove"
TRANSLATION = "<start> die Katze die den ganzen Morgen die kleine graue Maus jagte schlief endlich am warmen"
STILL_TO_COME = "Ofen . <end>"

SEED = 2017
D_MODEL, H, D_FF = 512, 8, 2048

DESCRIPTIONS = {
    "embedding": "the meaning of each token: a row a token, a column a feature",
    "positional_encoding": "the place of each token, as sines and cosines",
    "input": "meaning plus place: the input matrix",
    "Q": "what each token asks, all heads side by side",
    "K": "what each token answers to, all heads side by side",
    "V": "what each token has to say, all heads side by side",
    "products": "each token's question times each token's key: Q·Kᵀ",
    "scores": "the products divided by √64",
    "masked_scores": "−∞ in place of what a token may not look at",
    "weights": "softmax of the scores: each row sums to 1",
    "context": "each token's weighted average of the values",
    "concat": "the 8 heads side by side again",
    "self_attention.output": "the heads mixed by W_O",
    "cross_attention.output": "the heads mixed by W_O",
    "residual": "what came in added to what came out",
    "norm": "every row brought to mean 0 and mean square 1, then gain and bias",
    "final_norm": "the norm after the last layer",
    "preactivation": "each token's features mixed into 2048 hidden units",
    "hidden": "the units below 0 cut off",
    "feed_forward.output": "the hidden units mixed back into 512 features",
    "logits": "a score for every token of the vocabulary",
    "probabilities": "softmax of the logits: the distribution of the next token",
}
"""What a matrix is, by the end of its name (the longest that fits)."""

PLACES = {"encoder": "encoder layer", "decoder": "decoder layer"}
ATTENTIONS = {"self_attention": "self-attention", "cross_attention": "cross-attention to the source"}


def vocabulary(*texts: str) -> dict[str, int]:
    """Every token of the texts with its number, in the order of appearance."""
    tokens = dict.fromkeys(token for text in texts for token in text.split())
    return {token: number for number, token in enumerate(tokens)}


def parameters(layers: int = 1) -> TransformerParameters:
    """Random weights of the article's sizes for these dictionaries."""
    vocab, source_vocab = len(vocabulary(TRANSLATION, STILL_TO_COME)), len(vocabulary(SENTENCE))
    return initialise(SEED, vocab=vocab, source_vocab=source_vocab, d_model=D_MODEL, d_ff=D_FF, layers=layers)


def run(layers: int = 1) -> tuple[Sequence[str], Trace]:
    """The sequence's tokens, and every matrix on the way from them to the next token of the translation."""
    source_tokens, target_tokens = vocabulary(SENTENCE), vocabulary(TRANSLATION, STILL_TO_COME)
    source = np.array([source_tokens[token] for token in SENTENCE.split()])
    target = np.array([target_tokens[token] for token in TRANSLATION.split()])
    with Trace() as trace:
        next_token(transformer(source, target, parameters(layers), Architecture(h=H)))
    return SENTENCE.split(), trace


def describe(trace: Trace) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Every matrix of the trace as (name, shape, what it is in the article's terms), in the order computed.

    Raises KeyError for a matrix that has no description.
    """
    for name, matrix in trace.items():
        yield name, matrix.shape, f"{_where(name)}{_what(name)}"


def _what(name: str) -> str:
    parts = name.split(".")
    return DESCRIPTIONS[".".join(parts[-2:])] if ".".join(parts[-2:]) in DESCRIPTIONS else DESCRIPTIONS[parts[-1]]


def _where(name: str) -> str:
    """The layer, attention and head a matrix belongs to, counted from 1 as the article counts."""
    first, *rest = name.split(".")
    if first not in PLACES:
        return f"{first}: " if rest else ""
    if rest[0] == "final_norm":
        return f"{first}: "
    places = [f"{PLACES[first]} {int(rest[0]) + 1}", *(ATTENTIONS[part] for part in rest if part in ATTENTIONS)]
    places += [f"head {int(rest[i + 1]) + 1}" for i, part in enumerate(rest) if part == "head"]
    return ", ".join(places) + ": "
