"""The least that a cache has: it reads a prompt, then token by token. Nothing is forgotten, reordered or copied."""

from typing import Any

from torch import Tensor

from properties.evaluation.correct.cache import KVCache


class BareCache:
    """What a cache must have, and no more."""

    def __init__(self, cache: KVCache) -> None:
        self.inner = cache

    def prefill(self, tokens: Tensor) -> Tensor:
        """Read k more tokens in every row; the logits after each of them."""
        return self.inner.prefill(tokens)

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token in every row; the logits after it."""
        return self.inner.step(tokens)


def kv_cache(
    source: Tensor, source_mask: Tensor | None = None, *, parameters: dict[str, Any], scale_embedding: bool = True, **choices: Any
) -> BareCache:
    """An empty cache for these sources."""
    cache = KVCache(parameters, scale_embedding, choices)
    cache.reset(source, source_mask)
    return BareCache(cache)
