"""Faults of caches of attention, and of attention in memory that an engine goes on with: a program of operations shows them."""

from properties.evaluation.detection.fault import Fault

_STEPS = ("attention_cache", "attention_cache.capacity", "attention_cache.window")


def _fault(
    identifier: str, fault_class: str, right: str, wrong: str, shows: str, *reports: str, breaks: tuple[str, ...] = ("Y8",)
) -> Fault:
    return Fault(identifier, fault_class, "attention_cache", _STEPS, right, wrong, shows, breaks, reports)


OWN = (
    _fault(
        "copied-cache-shares-its-slots",
        "cache-aliasing",
        "return copy.deepcopy(self)",
        "return copy.copy(self)",
        "a copy and its original, both of which go on: each writes over the other's last token",
        "https://github.com/Lackel/ALFAR/issues/3",
    ),
    _fault(
        "rows-move-without-their-slots",
        "cache-row-reorder",
        "self.K, self.V, self.lengths = self.K[rows], self.V[rows], self.lengths[rows]",
        "self.lengths = self.lengths[rows]; self.K, self.V = self.K[: len(rows)], self.V[: len(rows)]",
        "a row that takes the place of another, as when a finished one goes",
        "https://github.com/tenstorrent/tt-xla/issues/5778",
    ),
    _fault(
        "values-stay-when-rows-move",
        "cache-row-reorder",
        "self.K, self.V, self.lengths = self.K[rows], self.V[rows], self.lengths[rows]",
        "self.K, self.V, self.lengths = self.K[rows], self.V[: len(rows)], self.lengths[rows]",
        "rows that change places",
        "https://github.com/huggingface/transformers/issues/46612",
    ),
    _fault(
        "rollback-forgets-one-token-too-many",
        "cache-rollback",
        "self.lengths = self.lengths.clamp(max=length)",
        "self.lengths = self.lengths.clamp(max=max(length - 1, 0))",
        "any token behind a rollback that keeps some",
        "https://github.com/lablup/mlxcel/issues/994",
    ),
    _fault(
        "rollback-to-the-shortest-row",
        "cache-rollback",
        "self.lengths = self.lengths.clamp(max=length)",
        "self.lengths = torch.full_like(self.lengths, length)",
        "rows of different length, one of them shorter than what is kept",
        "https://github.com/jundot/omlx/issues/3245",
    ),
    _fault(
        "mask-of-the-longest-row",
        "static-cache-unwritten-slots",
        "held = min(int(self.lengths[r]), self.slots)",
        "held = min(int(self.lengths.max()), self.slots)",
        "rows of different length: a shorter one sees slots that it never wrote to",
        "https://github.com/huggingface/transformers/issues/30670",
    ),
    _fault(
        "slot-of-the-first-row-for-all",
        "cache-row-reorder",
        "slots = self.lengths % self.slots",
        "slots = self.lengths[:1].expand_as(self.lengths) % self.slots",
        "rows of different length: a token is written where the first row has room",
        "https://github.com/gittensor-ai-lab/sparkinfer/issues/289",
    ),
    _fault(
        "full-cache-writes-over-its-last-token",
        "corrupt-indices",
        "if self.window is None and bool((self.lengths[going] >= self.slots).any()):",
        "self.lengths = self.lengths if self.window else self.lengths.clamp(max=self.slots - 1)\n        if False:",
        "a token more than there is room for",
        "https://github.com/karpathy/nanochat/pull/627",
        breaks=("Y5",),
    ),
    _fault(
        "ring-forgets-the-token-it-begins-with",
        "ring-cache-wrap",
        "held = min(int(self.lengths[r]), self.slots)",
        "held = min(int(self.lengths[r]), self.slots - (self.window is not None and int(self.lengths[r]) > self.slots))",
        "a ring that has wrapped: its last slot is not read",
        "https://github.com/ollama/ollama/pull/15591",
    ),
)

OF_AN_ENGINE = (
    Fault(
        "pages-of-the-first-call-of-these-sizes",
        "cache-used-when-it-must-not",
        "paged_attention",
        ("paged_attention",),
        "blocks = block_table[r, :count]",
        "blocks = paged_attention.__dict__.setdefault((b, r, count), block_table[r, :count].clone())",
        "a second call of as many rows and pages, whose pages lie elsewhere",
        ("Y4", "Y8"),
        ("https://github.com/flashinfer-ai/flashinfer/pull/4015",),
    ),
    Fault(
        "keys-of-the-first-call-of-these-lengths",
        "cache-used-when-it-must-not",
        "cached_attention",
        ("cached_attention", "cached_attention.ring"),
        "k, v = wide(K_cache[r][:, slots]), wide(V_cache[r][:, slots])",
        "k, v = cached_attention.__dict__.setdefault((b, r, length, capacity), (K_cache[r][:, slots], V_cache[r][:, slots]))",
        "a second call of the same lengths, as after a rollback, in a copy, or once rows have changed places",
        ("Y6", "Y7", "Y8"),
        ("https://github.com/microsoft/onnxruntime/pull/28027",),
    ),
)

FAULTS = OWN + OF_AN_ENGINE
