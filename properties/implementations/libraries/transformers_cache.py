"""transformers' caches of keys and values, with the mask and the attention that its models use beside them."""

# A machine without it has nothing to look up.
# pyright: reportMissingImports=false

import copy
from types import SimpleNamespace
from typing import Any

from torch import Tensor


class Dynamic:
    """`Cache` of one `DynamicLayer`: it grows."""

    dtypes = ("float64", "float32", "bfloat16", "float16")
    options: tuple[str, ...] = ()
    kind, mask = "DynamicLayer", "create_causal_mask"

    def __init__(self) -> None:
        import transformers
        from transformers import cache_utils, masking_utils
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self.cache, self.layer = cache_utils.Cache, getattr(cache_utils, self.kind)
        self.config: Any = transformers.MistralConfig(attn_implementation="sdpa")
        self.masks, self.function = getattr(masking_utils, self.mask), ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention_cache(self, K: Tensor, V: Tensor) -> "Held":
        """Without a limit."""
        return Held(self, self.layer(), self.config, K, V)


class Static(Dynamic):
    """`Cache` of one `StaticLayer`: slots for `capacity` tokens."""

    kind, options = "StaticLayer", ("attention_cache.capacity",)

    def attention_cache(self, K: Tensor, V: Tensor, *, capacity: int = 64) -> "Held":  # type: ignore[override]
        """With so many slots."""
        return Held(self, self.layer(capacity), self.config, K, V)


class Sliding(Dynamic):
    """`Cache` of one `DynamicSlidingWindowLayer`; without a window the one that grows."""

    options = ("attention_cache.window",)
    kind, mask = "DynamicSlidingWindowLayer", "create_sliding_window_causal_mask"

    def attention_cache(self, K: Tensor, V: Tensor, *, window: int = 64) -> "Held":  # type: ignore[override]
        """With a mask of the same window."""
        config = copy.deepcopy(self.config)
        config.sliding_window = window
        return Held(self, self._made(window), config, K, V)

    def _made(self, window: int) -> Any:
        return self.layer(window)


class StaticSliding(Sliding):
    """`Cache` of one `StaticSlidingWindowLayer`."""

    kind = "StaticSlidingWindowLayer"

    def _made(self, window: int) -> Any:
        return self.layer(max_cache_len=64, sliding_window=window)


class Held:
    """One cache, and what a model does around it. It begins with keys and values that another call has left there."""

    def __init__(self, made: Dynamic, layer: Any, config: Any, K: Tensor, V: Tensor) -> None:
        self.made, self.cache, self.config = made, made.cache(layers=[layer]), config
        if K.shape[2]:
            self.cache.update(K, V, 0)

    def attend(self, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """The mask, then the update, then the attention: in a model's order."""
        asked = {"inputs_embeds": Q[:, 0], "attention_mask": None, "cache": self.cache, "layer_idx": 0}
        mask = self.made.masks(self.config, **asked)
        K, V = self.cache.update(K, V, 0)
        module = SimpleNamespace(num_key_value_groups=1, training=False, is_causal=True)
        return self.made.function(module, Q, K, V, mask, scaling=Q.shape[-1] ** -0.5, dropout=0.0)[0].transpose(1, 2)

    def rollback(self, length: int) -> None:
        """`crop` is told how many tokens go."""
        self.cache.crop(length - int(self.cache.get_seq_length()))

    def reorder(self, rows: Tensor) -> None:
        """As beam search does."""
        self.cache.reorder_cache(rows)

    def copy(self) -> "Held":
        """As its assisted generation does."""
        other = copy.copy(self)
        other.cache = copy.deepcopy(self.cache)
        return other
