"""Generation: take the likeliest next token, append it, go round again.

Greedy decoding with a K/V cache: each token is computed once. Beam search and sampling are not here, but a `Writer` has what
they would need: its rows can be taken back, copied and reordered.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optimized.cache import Cache
from optimized.decoder import continue_decoder
from optimized.embedding import embedding
from optimized.multi_head import keys_and_values
from optimized.parameters import PAPER, Architecture, TransformerParameters
from optimized.positional_encoding import add_positions
from optimized.transformer import encode, project_to_vocab


class Writer:
    """A batch of targets in the making: it reads tokens, remembers what it read, and scores the token that follows.

    Every row has its own source and all rows have read `length` tokens. The answers are those of
    `optimized.transformer.transformer` on the tokens of each row so far, but for rounding. No gradients: writing is not training.
    """

    def __init__(
        self,
        source: Int[Tensor, "b m"],
        parameters: TransformerParameters,
        architecture: Architecture = PAPER,
        source_mask: Bool[Tensor, "b m"] | None = None,
        capacity: int = 64,
    ) -> None:
        self.parameters, self.architecture, self.capacity = parameters, architecture, capacity
        self.reset(source, source_mask)

    @property
    def length(self) -> int:
        """How many tokens every row has read."""
        return self.cache.length

    @torch.no_grad()
    def reset(self, source: Int[Tensor, "b m"], source_mask: Bool[Tensor, "b m"] | None = None) -> None:
        """Start anew with other sources, as many and as wide as they may be."""
        M = encode(source, self.parameters, self.architecture, source_mask)
        offered = [keys_and_values(M, layer.cross_attention, self.architecture.h) for layer in self.parameters.decoder]
        memory = [(K.contiguous(), V.contiguous()) for K, V in offered]  # head by head, as every step will read them
        real = torch.ones_like(source, dtype=torch.bool) if source_mask is None else source_mask
        self.cache = Cache.of(memory, real, self.capacity)

    @torch.no_grad()
    def prefill(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n vocab"]:
        """Read n tokens more in every row at once, and score the token after each of them."""
        if tokens.shape[-1] == 0:
            raise ValueError("tokens: expected at least one token, got an empty sequence")
        if len(tokens) != len(self.cache.memory_mask):
            raise ValueError(f"tokens: expected a row for each of {len(self.cache.memory_mask)} sources, got {len(tokens)}")
        X = add_positions(embedding(tokens, self.parameters.target_embedding, self.architecture.scale_embedding), self.length)
        X = continue_decoder(X, self.cache, self.parameters.decoder, self.architecture, self.parameters.decoder_norm)
        return project_to_vocab(X, self.parameters)

    def step(self, tokens: Int[Tensor, " b"]) -> Float[Tensor, "b vocab"]:
        """Read one token more in every row, and score the token after it."""
        return self.prefill(tokens[:, None])[:, 0]

    def rollback(self, length: int) -> None:
        """Forget all tokens but the first `length` of every row."""
        self.cache.rollback(length)

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Let row i be what row rows[i] was, its source too; a row may come twice or not at all."""
        self.cache.take(rows)

    def leave(self, rows: Int[Tensor, " rows"]) -> None:
        """Let these rows go; the others close up in their order."""
        all_rows = torch.arange(len(self.cache.memory_mask), device=rows.device)
        self.cache.take(all_rows[~torch.isin(all_rows, rows)])

    def join(self, other: "Writer") -> None:
        """Take over the rows of `other`, as many tokens long and with sources as wide, behind one's own."""
        self.cache.join(other.cache)

    def copy(self) -> "Writer":
        """A second writer in the same state; neither knows what the other does from now on."""
        other = object.__new__(Writer)
        other.parameters, other.architecture, other.capacity = self.parameters, self.architecture, self.capacity
        other.cache = self.cache.copy()
        return other


@torch.no_grad()
def generate(
    source: Int[Tensor, "b m"],
    parameters: TransformerParameters,
    architecture: Architecture = PAPER,
    *,
    bos: int,
    eos: int,
    length: int,
    source_mask: Bool[Tensor, "b m"] | None = None,
) -> Int[Tensor, "b length"]:
    """All rows at once, with a cache: up to `length` tokens after `start`; a row that has written `end` is filled up with it.

    Of equal logits the first token wins. Nothing more is computed for rows that have ended once they are half of those left.
    """
    writer = Writer(source, parameters, architecture, source_mask, capacity=length)
    written = torch.full((len(source), length), eos, device=source.device)
    rows = torch.arange(len(source), device=source.device)  # of `written`, those that the writer still has
    tokens = torch.full_like(rows, bos)
    going, left = torch.ones_like(rows, dtype=torch.bool), len(rows)
    for i in range(length):
        likeliest = writer.step(tokens).argmax(dim=-1)
        tokens = likeliest if left == len(rows) else torch.where(going, likeliest, eos)
        written[:, i].index_copy_(0, rows, tokens)
        going = going & (tokens != eos)
        left = int(going.sum())
        if left == 0:
            break
        if 2 * left <= len(rows):  # a row that leaves has the others' cache copied: together no more than twice
            writer.leave((~going).nonzero()[:, 0])
            rows, tokens, going = rows[going], tokens[going], going[going]
    return written
