"""Writing token by token: the decoder with the keys and values of all earlier tokens kept."""

from typing import Any

import torch
from torch import Tensor

from properties.evaluation.correct.attention import attention
from properties.evaluation.correct.embedding import embedding, encoding_of
from properties.evaluation.correct.feed_forward import feed_forward
from properties.evaluation.correct.linear import linear
from properties.evaluation.correct.model import encode, output_projection
from properties.evaluation.correct.multi_head import concat_heads, split_heads
from properties.evaluation.correct.residual_norm import add_norm, layer_norm


class Growing:
    """The keys and values that one layer has seen, (b, h, length, d_k) each; never written in place, so copies may share them."""

    def __init__(self, K: Tensor, V: Tensor) -> None:
        self.K, self.V = K, V

    def append(self, K: Tensor, V: Tensor) -> None:
        """Those of some more tokens."""
        self.K, self.V = torch.cat([self.K, K], dim=2), torch.cat([self.V, V], dim=2)

    def read(self) -> tuple[Tensor, Tensor]:
        """All of them."""
        return self.K, self.V

    def cut(self, length: int) -> None:
        """Keep the first `length` tokens."""
        self.K, self.V = self.K[:, :, :length], self.V[:, :, :length]

    def pick(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self.K, self.V = self.K[rows], self.V[rows]

    def join(self, other: "Growing") -> None:
        """Put the rows of `other` behind one's own."""
        self.K, self.V = torch.cat([self.K, other.K]), torch.cat([self.V, other.V])

    def copy(self) -> "Growing":
        """The same in another object."""
        return Growing(self.K, self.V)


class KVCache:
    """One batch of sequences being written, and what every layer of the decoder remembers of them."""

    store: Any = Growing

    def __init__(self, parameters: dict[str, Any], scale_embedding: bool, choices: dict[str, Any]) -> None:
        self.parameters, self.scale, self.choices = parameters, scale_embedding, choices

    def reset(self, source: Tensor, source_mask: Tensor | None = None) -> None:
        """Start anew with these sources."""
        M = encode(source, source_mask, self.parameters, self.scale, **self.choices)
        self.real = torch.ones(source.shape, dtype=torch.bool) if source_mask is None else source_mask
        self.cross = [self._project(M, layer["cross_attention"]) for layer in self.parameters["decoder"]]
        self.own = [self.store(*self._project(M[:, :0], layer["self_attention"])) for layer in self.parameters["decoder"]]
        self.length = 0

    def prefill(self, tokens: Tensor) -> Tensor:
        """Read k more tokens in every row; the logits after each of them."""
        k = tokens.shape[1]
        table = self.parameters["target_embedding"]
        places = torch.arange(self.length, self.length + k)
        X = embedding(tokens, table=table, scale=self.scale)
        X = X + encoding_of(places, table.shape[-1]).to(X.dtype)
        for layer, own, cross in zip(self.parameters["decoder"], self.own, self.cross, strict=True):
            X = self._through(X, layer, own, cross)
        self.length += k
        final = self.parameters.get("decoder_norm")
        X = X if final is None else layer_norm(X, **final, eps=self.choices.get("eps", 1e-5))
        W = table.mT if self.parameters.get("W_out") is None else self.parameters["W_out"]
        return output_projection(X, W=W, b=self.parameters.get("b_out"))

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token in every row; the logits after it."""
        return self.prefill(tokens[:, None])[:, 0]

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        for own in self.own:
            own.cut(length)
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was."""
        for own in self.own:
            own.pick(rows)
        self.cross = [(K[rows], V[rows]) for K, V in self.cross]
        self.real = self.real[rows]

    def leave(self, rows: Tensor) -> None:
        """Let these rows go."""
        staying = [i for i in range(len(self.real)) if i not in set(rows.tolist())]
        self.reorder(torch.tensor(staying))

    def join(self, other: "KVCache") -> None:
        """Take over the rows of another cache of this model that has read as many tokens."""
        for own, theirs in zip(self.own, other.own, strict=True):
            own.join(theirs)
        self.cross = [
            (torch.cat([K, other_K]), torch.cat([V, other_V]))
            for (K, V), (other_K, other_V) in zip(self.cross, other.cross, strict=True)
        ]
        self.real = torch.cat([self.real, other.real])

    def copy(self) -> "KVCache":
        """A second cache in the same state."""
        other = type(self)(self.parameters, self.scale, self.choices)
        other.own = [own.copy() for own in self.own]
        other.cross, other.real, other.length = self.cross, self.real, self.length
        return other

    def _project(self, X: Tensor, heads: dict[str, Any]) -> tuple[Tensor, Tensor]:
        h = self.choices["h"]
        K = split_heads(linear(X, heads["W_K"], heads.get("b_K")), h)
        V = split_heads(linear(X, heads["W_V"], heads.get("b_V")), h)
        return K, V

    def _attend(self, X: Tensor, K: Tensor, V: Tensor, mask: Tensor | None, heads: dict[str, Any]) -> Tensor:
        Q = split_heads(linear(X, heads["W_Q"], heads.get("b_Q")), self.choices["h"])
        return linear(concat_heads(attention(Q, K, V, mask)), heads["W_O"], heads.get("b_O"))

    def _look_back(self, Z: Tensor, layer: dict[str, Any], own: Any) -> Tensor:
        own.append(*self._project(Z, layer["self_attention"]))
        K, V = own.read()
        places = torch.arange(self.length, self.length + Z.shape[1])
        past = torch.arange(K.shape[2])[None, :] <= places[:, None]
        return self._attend(Z, K, V, past, layer["self_attention"])

    def _through(self, X: Tensor, layer: dict[str, Any], own: Any, cross: tuple[Tensor, Tensor]) -> Tensor:
        norm, eps = self.choices.get("norm", "post"), self.choices.get("eps", 1e-5)

        def look_at_source(Z: Tensor) -> Tensor:
            return self._attend(Z, *cross, self.real[:, None, None, :], layer["cross_attention"])

        def consider(Z: Tensor) -> Tensor:
            return feed_forward(Z, activation=self.choices.get("activation", "relu"), **layer["feed_forward"])

        X = add_norm(X, lambda Z: self._look_back(Z, layer, own), layer["norm_1"], norm, eps)
        X = add_norm(X, look_at_source, layer["norm_2"], norm, eps)
        return add_norm(X, consider, layer["norm_3"], norm, eps)


def kv_cache(
    source: Tensor, source_mask: Tensor | None = None, *, parameters: dict[str, Any], scale_embedding: bool = True, **choices: Any
) -> KVCache:
    """An empty cache for these sources."""
    cache = KVCache(parameters, scale_embedding, choices)
    cache.reset(source, source_mask)
    return cache


def generation(
    source: Tensor, source_mask: Tensor | None = None, *, parameters: Any, bos: int, eos: int, length: int, **choices: Any
) -> Tensor:
    """Greedy tokens, each read by the cache once."""
    cache = kv_cache(source, source_mask, parameters=parameters, **choices)
    tokens, written = torch.full((len(source),), bos), []
    running = torch.ones(len(source), dtype=torch.bool)
    for _ in range(length):
        logits = cache.step(tokens)
        tokens = torch.where(running, logits.argmax(dim=-1), eos)
        running = running & (tokens != eos)
        written.append(tokens)
    return torch.stack(written, dim=1)
