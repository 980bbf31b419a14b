"""Faults of the cache of keys and values; a program of operations shows them, or generation."""

from properties.evaluation.detection.fault import Fault

_PAST = "past = torch.arange(K.shape[2])[None, :] <= places[:, None]"
_PLACES = "places = torch.arange(self.length, self.length + k)"
_APPEND = 'own.append(*self._project(Z, layer["self_attention"]))'
_PICK = "own.pick(rows)"
_PICK_CROSS = "self.cross = [(K[rows], V[rows]) for K, V in self.cross]"
_MEMORY = "M = encode(source, source_mask, self.parameters, self.scale, **self.choices)"
_MEMORY_KEPT = (
    "M = self.parameters.setdefault("
    "f'memory {source.shape}', encode(source, source_mask, self.parameters, self.scale, **self.choices))"
)
_CUT = "self.K, self.V = self.K[:, :, :length], self.V[:, :, :length]"


def _fault(identifier: str, fault_class: str, right: str, wrong: str, shows: str, *reports: str, base: str = "cache") -> Fault:
    return Fault(identifier, fault_class, base, ("kv_cache",), right, wrong, shows, ("G1", "T3"), reports)


MASKS = (
    _fault(
        "causal-from-the-top-left",
        "causal-with-cache-offset",
        _PAST,
        "past = torch.arange(K.shape[2])[None, :] <= torch.arange(Z.shape[1])[:, None]",
        "any tokens read before",
        "https://github.com/pytorch/pytorch/issues/103082",
        "https://github.com/onnx/onnx/pull/8068",
        "https://github.com/google/flax/issues/5591",
    ),
    _fault(
        "second-chunk-from-the-top-left",
        "causal-with-cache-offset",
        _PAST,
        "past = torch.arange(K.shape[2])[None, :] <= (torch.arange(Z.shape[1]) if Z.shape[1] > 1 else places)[:, None]",
        "a chunk of several tokens behind others; token by token is right",
        "https://github.com/pytorch/executorch/pull/21749",
    ),
    _fault(
        "past-of-the-last-row-for-all",
        "causal-with-cache-offset",
        _PAST,
        "past = torch.arange(K.shape[2])[None, :] <= (places[-1:] if self.length else places)[:, None]",
        "a chunk of several tokens behind others",
        "https://github.com/pytorch/executorch/pull/21857",
    ),
    _fault(
        "no-mask-in-the-first-chunk",
        "causal-missing-in-prefill-with-cache",
        _PAST,
        "past = None if self.length == 0 else torch.arange(K.shape[2])[None, :] <= places[:, None]",
        "a first chunk of two tokens or more",
        "https://github.com/Mikyx-1/TinyLLM/pull/18",
    ),
    _fault(
        "unwritten-places-are-seen",
        "static-cache-unwritten-slots",
        _PAST,
        "past = None if Z.shape[1] == 1 else torch.arange(K.shape[2])[None, :] <= places[:, None]",
        "token by token, before the buffer is full: zero keys get weight",
        "https://github.com/huggingface/transformers/pull/45940",
        base="static_cache",
    ),
    _fault(
        "mask-as-long-as-the-buffer",
        "cache-not-used-or-misfed",
        _PAST,
        "past = torch.ones(1, 1, dtype=torch.bool) if self.length else torch.arange(K.shape[2])[None, :] <= places[:, None]",
        "any tokens read before: the mask of the update is not used",
        "https://github.com/huggingface/transformers/issues/26564",
        base="static_cache",
    ),
)

POSITIONS = (
    _fault(
        "positions-start-anew",
        "position-offset-in-cached-decode",
        _PLACES,
        "places = torch.arange(k)",
        "any tokens read before",
        "https://github.com/keras-team/keras-hub/pull/1209",
        "https://github.com/OpenNMT/OpenNMT-tf/pull/498",
        "https://github.com/tenstorrent/vllm/issues/415",
    ),
    _fault(
        "positions-one-off-after-a-prompt",
        "position-offset-in-cached-decode",
        _PLACES,
        "places = torch.arange(self.length, self.length + k) - int(self.length > 1)",
        "a token behind two others",
        "https://github.com/huggingface/peft/issues/1391",
    ),
)

ROLLBACKS = (
    _fault(
        "rollback-moves-the-length-alone",
        "cache-rollback",
        "own.cut(length)",
        "own.cut(self.length)",
        "any token after a rollback",
        "https://github.com/ml-explore/mlx-lm/pull/1427",
        "https://github.com/jundot/omlx/issues/3245",
        "https://github.com/ggml-org/llama.cpp/pull/14081",
    ),
    _fault(
        "rollback-to-nothing",
        "cache-rollback",
        "own.cut(length)",
        "own.cut(0)",
        "any token after a rollback that keeps some",
        "https://github.com/paiml/aprender/pull/2014",
    ),
    _fault(
        "rollback-one-too-many",
        "cache-rollback",
        _CUT,
        "self.K, self.V = self.K[:, :, : max(length - 1, 0)], self.V[:, :, : max(length - 1, 0)]",
        "any token after a rollback that keeps some",
        "https://github.com/lablup/mlxcel/issues/994",
    ),
)

ROWS = (
    _fault(
        "keys-reordered-without-values",
        "cache-row-reorder",
        "self.K, self.V = self.K[rows], self.V[rows]",
        "self.K, self.V = self.K[rows], self.V[: len(rows)]",
        "rows that really change places",
        "https://github.com/huggingface/transformers/issues/46612",
    ),
    _fault(
        "first-layer-alone-reordered",
        "cache-row-reorder",
        _PICK,
        "own.pick(rows if own is self.own[0] else torch.arange(len(rows)))",
        "two layers, and rows that change places",
        "https://github.com/huggingface/transformers/issues/46612",
    ),
    _fault(
        "rows-close-up-without-their-cache",
        "cache-row-reorder",
        _PICK,
        "own.pick(torch.arange(len(rows)) if len(rows) < len(self.real) else rows)",
        "a row that leaves, in front of one that stays",
        "https://github.com/tenstorrent/tt-xla/issues/5778",
        "https://github.com/gittensor-ai-lab/sparkinfer/issues/289",
        "https://github.com/vllm-project/vllm/pull/7018",
    ),
    _fault(
        "memory-not-reordered",
        "cross-cache-state",
        _PICK_CROSS,
        "self.cross = [(K[rows], V[rows]) if len(rows) != len(K) else (K, V) for K, V in self.cross]",
        "rows of different sources that change places",
        "https://github.com/facebookresearch/fairseq2/issues/307",
        "https://github.com/guandeh17/Self-Forcing/pull/78",
    ),
    _fault(
        "padding-not-reordered",
        "cross-cache-state",
        "self.real = self.real[rows]",
        "self.real = self.real[: len(rows)] if len(rows) <= len(self.real) else self.real[rows]",
        "sources with different filling that change places",
        "https://github.com/facebookresearch/fairseq2/issues/307",
        "https://github.com/huggingface/transformers/issues/30670",
    ),
    _fault(
        "copy-shares-its-buffers",
        "cache-aliasing",
        "other.K, other.V, other.length = self.K.clone(), self.V.clone(), self.length",
        "other.K, other.V, other.length = self.K, self.V, self.length",
        "a copy, and both go on with different words",
        "https://github.com/Lackel/ALFAR/issues/3",
        base="static_cache",
    ),
)

FEEDS = (
    _fault(
        "earlier-words-forgotten",
        "cache-not-used-or-misfed",
        "K, V = own.read()",
        "K, V = own.read() if Z.shape[1] > 1 else [x[:, :, -1:].expand_as(x) for x in own.read()]",
        "token by token: only the current one is seen",
        "https://github.com/huggingface/transformers/pull/42188",
        "https://github.com/deepspeedai/DeepSpeed/pull/7428",
    ),
    Fault(
        "last-word-fed-twice",
        "cache-not-used-or-misfed",
        "cache",
        ("generation",),
        "logits = cache.step(tokens)",
        "logits = cache.prefill(torch.stack([tokens, tokens], dim=1) if cache.length == 1 else tokens[:, None])[:, -1]",
        "from the second token: the first one written enters the cache twice",
        ("G1",),
        ("https://github.com/ml-explore/mlx-lm/pull/1039",),
    ),
    _fault(
        "first-step-starts-a-new-cache",
        "cache-not-used-or-misfed",
        _APPEND,
        'own.cut(self.length * (Z.shape[1] > 1)) or own.append(*self._project(Z, layer["self_attention"]))',
        "a single token behind others",
        "https://github.com/alex-hh/profam/pull/168",
    ),
    _fault(
        "reset-keeps-the-words",
        "cache-used-when-it-must-not",
        "self.own = [self.store(",
        'self.own = getattr(self, "own", None) or [self.store(',
        "a reset, and then any token",
        "https://github.com/microsoft/onnxruntime/pull/28027",
    ),
)

STALE = (
    Fault(
        "cache-of-the-call-before",
        "cache-used-when-it-must-not",
        "cache",
        ("generation",),
        "cache = kv_cache(source, source_mask, parameters=parameters, **choices)",
        'cache = generation.__dict__.setdefault("cache", kv_cache(source, source_mask, parameters=parameters, **choices))',
        "a second call",
        ("G1", "T3"),
        ("https://github.com/microsoft/onnxruntime/pull/28027",),
    ),
)

PAGES = (
    _fault(
        "page-of-the-boundary-is-empty",
        "paged-cache-boundary",
        "used = self.length - PAGE * (len(self.pages) - 1)",
        "used = self.length % PAGE",
        "a whole number of pages",
        "https://github.com/Wenyueh/MinivLLM/pull/83",
        base="paged_cache",
    ),
    _fault(
        "one-page-too-many",
        "paged-cache-boundary",
        "kept = -(-length // PAGE)",
        "kept = length // PAGE + 1",
        "a rollback to a whole number of pages",
        "https://github.com/pegainfer-project/pegainfer/issues/291",
        "https://github.com/vllm-project/flash-attention/pull/42",
        base="paged_cache",
    ),
    _fault(
        "tail-page-dropped",
        "paged-cache-boundary",
        "kept = -(-length // PAGE)",
        "kept = length // PAGE",
        "a rollback that is no whole number of pages",
        "https://github.com/AI-Hypercomputer/maxtext/pull/1777",
        base="paged_cache",
    ),
    _fault(
        "pages-read-in-another-order",
        "paged-cache-boundary",
        "self.pages, self.length = self.pages[:kept], length",
        "self.pages, self.length = self.pages[len(self.pages) - kept :], length",
        "a rollback by a page or more: the wrong pages are kept",
        "https://github.com/golang-design/accel/issues/10",
        "https://github.com/LMCache/LMCache/issues/2206",
        base="paged_cache",
    ),
)

REQUESTS = (
    _fault(
        "memory-of-the-first-request",
        "cross-cache-state",
        _MEMORY,
        _MEMORY_KEPT,
        "a second cache of the same model, for sources of the same shape",
        "https://github.com/sgl-project/sglang/pull/29755",
        "https://github.com/sgl-project/sglang-omni/pull/1265",
        base="bare_cache",
    ),
    _fault(
        "padding-of-the-first-request",
        "cross-cache-state",
        "self.real = torch.ones(source.shape, dtype=torch.bool) if source_mask is None else source_mask",
        "self.real = self.parameters.setdefault("
        "f'real {source.shape}', torch.ones(source.shape, dtype=torch.bool) if source_mask is None else source_mask)",
        "a second cache of the same model, for sources of the same shape with other padding",
        "https://github.com/unslothai/unsloth-zoo/pull/861",
        base="bare_cache",
    ),
    _fault(
        "one-store-for-all-requests",
        "cache-aliasing",
        "self.own = [self.store(",
        "KVCache.own = [self.store(",
        "two caches in use by turns; one after the other is right",
        "https://github.com/ml-explore/mlx-lm/issues/965",
        "https://github.com/madroidmaq/mlx-omni-server/issues/108",
        base="bare_cache",
    ),
    Fault(
        "generation-from-the-first-source",
        "cross-cache-state",
        "cache",
        ("generation",),
        _MEMORY,
        _MEMORY_KEPT,
        "a second request to the same model, for sources of the same shape",
        ("G1", "T3"),
        ("https://github.com/sgl-project/sglang-omni/pull/1265",),
    ),
    Fault(
        "mask-of-the-first-request",
        "cache-used-when-it-must-not",
        "layers",
        ("encoder_layer",),
        'return multi_head(Z, Z, mask, h=h, **layer["self_attention"])',
        "return multi_head(Z, Z, layer.setdefault(f'mask {X.shape}', mask), h=h, **layer[\"self_attention\"])",
        "a second request to the same layer, of the same shape with another mask",
        ("L1",),
        ("https://github.com/unslothai/unsloth-zoo/pull/861", "https://github.com/NVIDIA/Model-Optimizer/pull/1343"),
    ),
)

UNEVEN = tuple(
    _fault(*rest, base="uneven_cache")
    for rest in (
        (
            "one-position-for-rows-of-all-lengths",
            "left-pad-positions",
            "X = X + encoding_of(places.flatten(), table.shape[-1]).to(X.dtype).unflatten(0, places.shape)",
            "X = X + encoding_of(places.amax(dim=0), table.shape[-1]).to(X.dtype)",
            "rows of different length: a shorter one counts on from the longest",
            "https://github.com/unslothai/unsloth/issues/3699",
        ),
        (
            "rows-see-as-far-as-the-longest",
            "static-cache-unwritten-slots",
            "past = torch.arange(own.slots) <= places[:, None, :, None]",
            "past = torch.arange(own.slots) <= places.amax(dim=0)[None, None, :, None]",
            "rows of different length: a shorter one sees slots that it never wrote to",
            "https://github.com/huggingface/transformers/issues/30670",
        ),
        (
            "lengths-stay-when-rows-move",
            "cache-row-reorder",
            "self.lengths = self.lengths[rows]",
            "self.lengths = self.lengths[: len(rows)]",
            "rows of different length that change places, or of which one goes",
            "https://github.com/tenstorrent/tt-xla/issues/5778",
        ),
        (
            "what-fills-up-a-row-counts",
            "last-token-index",
            "self.lengths = self.lengths + counts",
            "self.lengths = self.lengths + tokens.shape[1]",
            "a token behind a prompt of which some rows had less",
            "https://github.com/huggingface/transformers/issues/14521",
        ),
    )
)

FAULTS = MASKS + POSITIONS + ROLLBACKS + ROWS + FEEDS + STALE + PAGES + REQUESTS + UNEVEN
