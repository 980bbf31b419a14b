"""Faults of caches of attention, and of attention in memory that an engine goes on with: a program of operations shows them."""

from properties.evaluation.detection.fault import Fault

_STEPS = ("attention_cache", "attention_cache.capacity", "attention_cache.window")


def _fault(
    identifier: str, fault_class: str, right: str, wrong: str, shows: str, *reports: str, breaks: tuple[str, ...] = ("Y8",)
) -> Fault:
    return Fault(identifier, fault_class, "attention_cache", _STEPS, right, wrong, shows, breaks, reports)


_FULL = "if self.window is None and bool((self.lengths + counts > self.slots).any()):"
_IS_FULL = 'raise ValueError(f"expected at most {self.slots} tokens in a row")'
_NEGATIVE = 'raise ValueError(f"length: expected at least 0, got {length}")'

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
        _FULL,
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
    _fault(
        "row-beyond-the-last-is-the-last",
        "corrupt-indices",
        "self.K, self.V, self.lengths = self.K[rows], self.V[rows], self.lengths[rows]",
        "rows = rows.clamp(0, len(self.K) - 1)\n"
        "        self.K, self.V, self.lengths = self.K[rows], self.V[rows], self.lengths[rows]",
        "rows that change places, one of them with a row that is not there",
        "https://github.com/NVIDIA/TensorRT-LLM/pull/18205",
        breaks=("Y5",),
    ),
    _fault(
        "length-below-zero-leaves-tokens",
        "corrupt-indices",
        _NEGATIVE,
        "length += int(self.lengths.max())",
        "a rollback by more tokens than there are, of which some stay",
        "https://github.com/huggingface/transformers/issues/47433",
        breaks=("Y5",),
    ),
    _fault(
        "count-of-minus-one-is-all-tokens",
        "corrupt-indices",
        "if bool((counts < 0).any()) or bool((counts > Q.shape[2]).any()):",
        "counts = counts % (Q.shape[2] + 1)\n        if False:",
        "a row that is told to read −1 tokens, and reads all",
        "https://github.com/vllm-project/vllm/issues/43810",
        breaks=("Y5",),
    ),
    _fault(
        "tokens-that-fit-stay-after-a-refusal",
        "corrupt-indices",
        _IS_FULL,
        "for i in range(self.slots - int(self.lengths.max())):\n"
        "                self.append(K[:, :, i], V[:, :, i], counts > i)\n"
        '            raise ValueError("full")',
        "more tokens than there is room for, of which the first ones have room",
        "https://github.com/ovg-project/kvcached/issues/364",
        breaks=("Y5",),
    ),
    _fault(
        "tokens-are-counted-before-a-refusal",
        "corrupt-indices",
        _IS_FULL,
        'self.lengths = (self.lengths + counts).clamp(max=self.slots)\n            raise ValueError("full")',
        "more tokens than there is room for, then anything that has room again",
        "https://github.com/panbanda/higgs/pull/18",
        "https://github.com/NVIDIA/TensorRT-LLM/pull/17512",
        breaks=("Y5",),
    ),
    _fault(
        "rollback-cuts-before-it-refuses",
        "corrupt-indices",
        _NEGATIVE,
        "self.lengths = self.lengths.clamp(max=0)\n            raise ValueError(length)",
        "a rollback to a length below 0",
        "https://github.com/ollama/ollama/pull/14912",
        breaks=("Y5",),
    ),
    _fault(
        "keys-move-before-a-row-is-refused",
        "corrupt-indices",
        "self.K, self.V, self.lengths = self.K[rows], self.V[rows], self.lengths[rows]",
        "old, self.K = self.K, self.K[: len(rows)].clone()\n"
        "        for i, r in enumerate(rows.tolist()):\n"
        "            self.K[i] = old[r]\n"
        "        self.V, self.lengths = self.V[rows], self.lengths[rows]",
        "rows that change places, the last of them with a row that is not there",
        "https://github.com/ggml-org/llama.cpp/pull/9525",
        breaks=("Y5",),
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
