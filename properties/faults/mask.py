"""Faults of masks: the causal mask itself, how a mask reaches the scores, and what it looks like when it does."""

from properties.faults.fault import Fault

_CAUSAL = "return key <= query"
_HIDE = "scores = scores.masked_fill(~mask, -math.inf)"
_PAST = "past = both(causal(X.shape[1], X.shape[1]), mask)"
_PADDING = "return real[:, None, None, :]"
_BOTH_MASKS = "mask, memory_mask = of_padding(target_real), of_padding(source_real)"


def _causal(identifier: str, fault_class: str, wrong: str, shows: str, *reports: str) -> Fault:
    """A wrong causal mask, offered as the step `mask`."""
    return Fault(identifier, fault_class, "mask", ("mask",), _CAUSAL, wrong, shows, ("M1",), reports)


def _hidden(identifier: str, fault_class: str, wrong: str, shows: str, *reports: str, dtype: str = "float32") -> Fault:
    """A mask that reaches the scores in a wrong way, offered as attention."""
    return Fault(identifier, fault_class, "attention", ("attention",), _HIDE, wrong, shows, ("M1", "M2", "M3"), reports, dtype)


def _inside(identifier: str, fault_class: str, step: str, right: str, wrong: str, shows: str, *reports: str) -> Fault:
    """A wrong mask inside a layer or a model."""
    twin = "layers" if step.endswith("coder_layer") else "model"
    return Fault(identifier, fault_class, twin, (step,), right, wrong, shows, ("L3", "M3", "C1", "T1", "T3"), reports)


CAUSAL = (
    _causal(
        "causal-without-diagonal",
        "causal-off-by-one-or-flipped",
        "return key < query",
        "any length",
        "https://github.com/RVC-Boss/GPT-SoVITS/issues/965",
    ),
    _causal(
        "causal-sees-one-ahead",
        "causal-off-by-one-or-flipped",
        "return key <= query + 1",
        "two words or more",
        "https://github.com/RVC-Boss/GPT-SoVITS/issues/965",
    ),
    _causal(
        "causal-flipped",
        "causal-off-by-one-or-flipped",
        "return key >= query",
        "two words or more",
        "https://github.com/pytorch/examples/issues/649",
    ),
    _causal(
        "causal-rows-all-alike",
        "causal-off-by-one-or-flipped",
        "return (key <= query[:1]).expand(n, m)",
        "two words or more",
        "https://github.com/OpenNMT/OpenNMT-py/issues/294",
    ),
    _inside(
        "causal-flag-without-effect",
        "causal-off-by-one-or-flipped",
        "decoder_layer",
        _PAST,
        "past = mask",
        "two words or more",
        "https://github.com/pytorch/pytorch/issues/96941",
        "https://github.com/huggingface/transformers/issues/48745",
    ),
    _causal(
        "causal-in-groups-of-four",
        "causal-block-granular",
        "return key <= query // 4 * 4 + 3",
        "two words or more; the last row of every group is right",
        "https://github.com/pytorch/pytorch/issues/195910",
    ),
    _causal(
        "causal-last-row-short",
        "causal-block-granular",
        "return (key <= query) & ((query < n - 1) | (key < n - 1) | (n < 4))",
        "four words or more, the last row alone",
        "https://github.com/pytorch/executorch/pull/13332",
    ),
    _causal(
        "causal-buffer-of-16",
        "causal-buffer-size",
        "return (key <= query) | (query >= 16) | (key >= 16)",
        "more than 16 words: what lies outside the buffer is not masked",
        "https://github.com/tatp22/linformer-pytorch/issues/16",
        "https://github.com/karpathy/nanoGPT/issues/473",
        "https://github.com/huggingface/transformers/pull/13735",
    ),
    _causal(
        "causal-cropped-from-the-wrong-corner",
        "causal-buffer-size",
        "return key - m <= query - n",
        "n ≠ m",
        "https://github.com/facebookresearch/xformers/pull/66",
    ),
    _causal(
        "causal-of-one-word-broadcast",
        "causal-buffer-size",
        "return torch.ones(1, 1, dtype=torch.bool).expand(n, m)",
        "two words or more",
        "https://github.com/huggingface/transformers/issues/28215",
    ),
)

REACHING = (
    _hidden(
        "mask-added-as-numbers",
        "mask-dtype-bool-vs-float",
        "scores = scores + mask",
        "any hidden word: seen words get a score more by 1",
        "https://github.com/huggingface/transformers/pull/48363",
        "https://github.com/huggingface/transformers/pull/41443",
        "https://github.com/ml-explore/mlx-swift/issues/275",
        "https://github.com/microsoft/onnxscript/pull/656",
    ),
    _hidden(
        "mask-inverted-as-integers",
        "mask-dtype-bool-vs-float",
        "scores = scores.masked_fill(~(~mask.int()).bool(), -math.inf)",
        "any hidden word: ~0 and ~1 are both true",
        "https://github.com/microsoft/onnxscript/pull/442",
        "https://github.com/deepspeedai/DeepSpeed/issues/3319",
    ),
    Fault(
        id="mask-after-softmax",
        fault_class="mask-dtype-bool-vs-float",
        twin="attention",
        steps=("attention",),
        right="weights = softmax(scores)",
        wrong="weights = softmax(wide(Q) @ wide(K).mT * scale) * (1.0 if mask is None else mask)",
        shows="any hidden word: rows of weights no longer sum to 1",
        breaks=("M2", "A6"),
        reports=("https://github.com/pytorch/pytorch/issues/136816",),
    ),
    _hidden(
        "mask-swallows-the-scores",
        "mask-dtype-bool-vs-float",
        "scores = scores.where(mask, -math.inf) + (1.0 - (~mask).float()) * -1e9",
        "float32: the scores of seen words are lost beside −1e9",
        "https://github.com/harvard-edge/cs249r_book/pull/1785",
    ),
    _hidden(
        "mask-result-dropped",
        "padding-mask-not-applied",
        "scores.masked_fill(~mask, -math.inf)",
        "any hidden word",
        "https://github.com/opendilab/DI-engine/issues/333",
        "https://github.com/OpenNMT/OpenNMT-py/issues/272",
    ),
    _hidden(
        "mask-dropped-on-the-fast-path",
        "padding-mask-not-applied",
        "scores = scores.masked_fill(~mask, -math.inf) if mask.shape[-2] > 1 or mask.ndim < 4 else scores",
        "a mask of padding, (b, 1, 1, m)",
        "https://github.com/AnswerDotAI/ModernBERT/pull/40",
        "https://github.com/torch-spyre/torch-spyre/issues/4526",
    ),
    _inside(
        "padding-dropped-from-the-encoder",
        "padding-mask-not-applied",
        "transformer",
        'return encoder(X, of_padding(source_real), layers=parameters["encoder"]',
        'return encoder(X, None, layers=parameters["encoder"]',
        "a source with filling words",
        "https://github.com/jingyaogong/minimind-v/issues/76",
        "https://github.com/AI4Bharat/IndicBERT/issues/20",
    ),
    _inside(
        "padding-given-to-the-wrong-attention",
        "padding-mask-not-applied",
        "transformer",
        _BOTH_MASKS,
        "mask, memory_mask = None, of_padding(source_real)",
        "filling words in a target, in front of real ones",
        "https://github.com/lucidrains/x-transformers/issues/187",
    ),
    _hidden(
        "mask-filled-with-the-smallest-number",
        "fully-masked-row",
        "scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)",
        "a row that may look nowhere gets the mean of all values",
        "https://github.com/ml-explore/mlx/issues/2395",
        "https://github.com/lucidrains/flamingo-pytorch/issues/10",
    ),
    Fault(
        id="blind-rows-of-padding-are-nan",
        fault_class="fully-masked-row",
        twin="model",
        steps=("encoder", "transformer"),
        right="largest = s.amax(dim=-1, keepdim=True).clamp(min=torch.finfo(s.dtype).min)",
        wrong="largest = s.amax(dim=-1, keepdim=True)",
        shows="a word that may look nowhere is NaN after one layer, and 0 · NaN reaches the others in the next",
        breaks=("T3", "L1", "L2"),
        reports=("https://github.com/pytorch/pytorch/issues/103749",),
    ),
    _hidden(
        "mask-of-minus-10000",
        "finite-mask-value-leaks",
        "scores = scores.where(mask, -1e4)",
        "seen scores that all lie near or below −10000, and blind rows",
        "https://github.com/karpathy/minGPT/issues/75",
        "https://github.com/huggingface/transformers/pull/17306",
        "https://github.com/huggingface/transformers/issues/9860",
        "https://github.com/huggingface/transformers/issues/17121",
    ),
    _hidden(
        "mask-adds-minus-10000",
        "finite-mask-value-leaks",
        "scores = scores + (~mask) * -1e4",
        "a hidden score above the seen ones by nearly 10000 or more, and blind rows",
        "https://github.com/microsoft/onnxruntime/pull/8549",
    ),
    Fault(
        id="future-leaks-into-blind-rows",
        fault_class="finite-mask-value-leaks",
        twin="layers",
        steps=("decoder_layer",),
        right=_HIDE,
        wrong="scores = scores + (~mask) * -1e4",
        shows="a word all of whose past is hidden: it sees its hidden past and its future",
        breaks=("L3", "M3"),
        reports=("https://github.com/microsoft/onnxruntime/issues/14363",),
    ),
    _hidden(
        "smallest-number-added",
        "additive-mask-overflow",
        "scores = scores + (~mask) * torch.finfo(scores.dtype).min",
        "a blind row is no longer one; a hidden score of 1e31 or more below 0 overflows",
        "https://github.com/pytorch/pytorch/issues/110213",
        "https://github.com/huggingface/transformers/pull/27114",
        "https://github.com/NVIDIA-NeMo/Automodel/pull/2658",
        "https://github.com/huggingface/transformers/pull/28533",
    ),
    _hidden(
        "mask-times-minus-billion-in-half",
        "additive-mask-overflow",
        "scores = scores + (~mask).half() * torch.tensor(-1e9).half()",
        "float16: the constant is −inf, and 0 · −inf is NaN",
        "https://github.com/ahrefs/ocannl/issues/548",
        dtype="float16",
    ),
    _hidden(
        "mask-before-clipping",
        "mask-then-squash",
        "scores = scores.masked_fill(~mask, -math.inf).clamp(-1e4, 1e4)",
        "blind rows, and seen scores near or below −10000: a hidden score is no longer −inf",
        "https://github.com/onnx/onnx/pull/7867",
        "https://github.com/microsoft/onnxruntime/pull/28379",
    ),
    _hidden(
        "mask-of-the-first-sentence",
        "mask-broadcast-coincidence",
        "scores = scores.masked_fill(~(mask[:1] if mask.ndim == 4 else mask), -math.inf)",
        "masks that differ between sentences",
        "https://github.com/meta-pytorch/attention-gym/issues/98",
    ),
    _hidden(
        "mask-of-one-row-for-row-0",
        "mask-broadcast-coincidence",
        "scores[..., : mask.shape[-2], :] = scores[..., : mask.shape[-2], :].masked_fill(~mask, -math.inf)",
        "a mask with one row for all queries",
        "https://github.com/jax-ml/jax/issues/28974",
    ),
    _hidden(
        "mask-per-sentence-taken-per-head",
        "mask-broadcast-coincidence",
        "scores = scores.masked_fill(~(mask[:, 0] if mask.ndim == 4 and mask.shape[1] == 1 and len(mask) == Q.shape[1] else mask), -math.inf)",
        "as many sentences as heads: each head gets the mask of a sentence",
        "https://github.com/lucidrains/vit-pytorch/issues/71",
        "https://github.com/hyunwoongko/transformer/issues/32",
    ),
    _inside(
        "padding-taken-per-word",
        "mask-broadcast-coincidence",
        "transformer",
        _PADDING,
        "return real[None, None] if len(real) == real.shape[1] else real[:, None, None, :]",
        "as many sentences as words: row i of the mask is sentence i's",
        "https://github.com/huggingface/candle/pull/1920",
        "https://github.com/idiap/fast-transformers/issues/101",
    ),
    _inside(
        "padding-of-the-query",
        "query-row-padding-mask",
        "transformer",
        _BOTH_MASKS,
        "mask, memory_mask = None if target_real is None else target_real[:, None, None, :] & target_real[:, None, :, None], of_padding(source_real)",
        "the rows of filling words alone",
        "https://github.com/zai-org/GLM-4-Voice/issues/182",
    ),
    _inside(
        "cross-mask-from-the-target",
        "cross-mask-source",
        "transformer",
        _BOTH_MASKS,
        "mask, memory_mask = of_padding(target_real), of_padding(target_real if M.shape[1] == target.shape[1] else source_real)",
        "source and target of the same length with different filling",
        "https://github.com/keras-team/keras-io/pull/1046",
        "https://github.com/Kamichanw/SeekDeeper/issues/3",
    ),
    _inside(
        "cross-attention-causal",
        "cross-causal",
        "decoder_layer",
        "return multi_head(Z, M, memory_mask, h=h, **layer",
        "return multi_head(Z, M, both(causal(Z.shape[1], M.shape[1]), memory_mask), h=h, **layer",
        "a memory of two words or more",
        "https://github.com/zhouhaoyi/Informer2020/issues/38",
    ),
    _inside(
        "memory-trimmed-to-the-target",
        "cross-length",
        "decoder_layer",
        "return multi_head(Z, M, memory_mask, h=h, **layer",
        "return multi_head(Z, M[:, : Z.shape[1]], None if memory_mask is None else memory_mask[..., : Z.shape[1]], h=h, **layer",
        "a memory longer than the target",
        "https://github.com/mead-ml/mead-baseline/pull/759",
        "https://github.com/NVIDIA/FasterTransformer/issues/270",
    ),
    _inside(
        "memory-trimmed-to-a-window",
        "cross-length",
        "decoder_layer",
        "return multi_head(Z, M, memory_mask, h=h, **layer",
        "return multi_head(Z, M[:, -4:], None if memory_mask is None else memory_mask[..., -4:], h=h, **layer",
        "a memory of more than 4 words",
        "https://github.com/huggingface/transformers/pull/46111",
    ),
    Fault(
        id="one-added-to-every-seen-score",
        fault_class="causal-constant-offset",
        twin="attention",
        steps=("attention",),
        right=_HIDE,
        wrong="scores = (scores + 1.0).masked_fill(~mask, -math.inf)",
        shows="never",
        breaks=(),
        reports=("https://github.com/tinygrad/tinygrad/pull/2425",),
        equivalent="softmax(s + c) = softmax(s): every seen score of a row gets the same constant, and the hidden ones stay −inf",
    ),
)

FAULTS = CAUSAL + REACHING
