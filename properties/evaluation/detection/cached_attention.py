"""Faults of attention over a static cache and over a ring: whose length, where queries stand, which slots are read."""

from properties.evaluation.detection.fault import Fault

_LENGTH = "length = int(lengths[r])"
_HELD = "held = torch.arange(max(length - capacity, 0), length, device=Q.device)"
_SLOTS = "slots = held % capacity"
_SEEN = "seen = held <= torch.arange(length - n, length, device=Q.device)[:, None]"


def _fault(identifier: str, fault_class: str, right: str, wrong: str, shows: str, breaks: tuple[str, ...], *reports: str) -> Fault:
    steps = ("cached_attention", "cached_attention.ring")
    return Fault(identifier, fault_class, "cached_attention", steps, right, wrong, shows, breaks, reports)


STATIC = (
    _fault(
        "cache-length-of-the-longest-row",
        "static-cache-unwritten-slots",
        _LENGTH,
        "length = int(lengths.max())",
        "rows of different length: a shorter one reads slots that nobody wrote to",
        ("Y6",),
        "https://github.com/Blaizzy/mlx-vlm/pull/1946",
    ),
    _fault(
        "cached-queries-stand-at-the-beginning",
        "causal-with-cache-offset",
        _SEEN,
        "seen = held <= torch.arange(n, device=Q.device)[:, None]",
        "a cache that holds more than the queries' own positions",
        ("Y6",),
        "https://github.com/onnx/onnx/pull/8068",
        "https://github.com/pytorch/pytorch/issues/144858",
    ),
    _fault(
        "cache-length-before-the-tokens-are-written",
        "static-cache-unwritten-slots",
        _HELD,
        "held = torch.arange(max(length - capacity, 0), length - 1, device=Q.device)",
        "every query: its own token is not among the keys",
        ("Y6",),
        "https://github.com/onnxruntime/mobius/pull/365",
    ),
    _fault(
        "cache-length-not-checked",
        "corrupt-indices",
        "if length < 0 or (length > capacity and not ring):",
        "if length < 0:",
        "a length beyond the last slot: the cache is read as if it were a ring",
        ("Y5",),
        "https://github.com/Dao-AILab/flash-attention/pull/2711",
        "https://github.com/karpathy/nanochat/pull/627",
    ),
)

RING = (
    _fault(
        "ring-positions-by-slot",
        "ring-cache-wrap",
        _SLOTS,
        "slots = held - held[0]",
        "several queries of a ring that has wrapped: the first slot is taken for the oldest position",
        ("Y7",),
        "https://github.com/huggingface/transformers/pull/47708",
        "https://github.com/Lightning-AI/litgpt/pull/2215",
    ),
    _fault(
        "ring-drops-what-is-behind-the-next-slot",
        "ring-cache-wrap",
        _SLOTS,
        "slots = (held := held[held % capacity < ((length - 1) % capacity) + 1]) % capacity",
        "a ring that has wrapped: older tokens, which lie behind the newest, are not read",
        ("Y7",),
        "https://github.com/ollama/ollama/pull/15591",
    ),
    _fault(
        "ring-holds-one-token-less",
        "ring-cache-wrap",
        _HELD,
        "held = torch.arange(max(length - capacity + 1, 0), length, device=Q.device)",
        "a full ring: the oldest of its tokens is not seen",
        ("Y6", "Y7"),
        "https://github.com/sgl-project/sglang/issues/8649",
    ),
    _fault(
        "ring-that-is-full-does-not-wrap",
        "ring-cache-wrap",
        _SLOTS,
        "slots = held.clamp(max=capacity - 1)",
        "a ring that has wrapped: what is beyond its last slot is the last slot",
        ("Y7",),
        "https://github.com/huggingface/transformers/issues/37574",
    ),
)

FAULTS = STATIC + RING
