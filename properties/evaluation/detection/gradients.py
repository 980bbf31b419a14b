"""Faults that only the gradient shows. The truth is the fast implementation in float64 under autograd, checked by differences."""

from properties.evaluation.detection.fault import Fault

_TILED = {"attention": "attention_with_backward"}
_BLOCKED = {"linear": "linear_with_backward"}


def _fault(
    identifier: str,
    fault_class: str,
    right: str,
    wrong: str,
    shows: str,
    *reports: str,
    instead: dict[str, str] | None = None,
    dtype: str = "float64",
    breaks: tuple[str, ...] = ("T2",),
    steps: tuple[str, ...] = ("gradients", "transformer"),
) -> Fault:
    return Fault(identifier, fault_class, "gradients", steps, right, wrong, shows, breaks, reports, dtype, instead or {})


OF_MANY_ROWS = (
    _fault(
        "bias-learns-from-1024-rows",
        "gradient-of-many-rows",
        "for start in range(0, len(d_rows), BLOCK):",
        "for start in range(0, min(len(d_rows), 1024), BLOCK):",
        "more than 1024 rows",
        "https://github.com/karpathy/llm.c/pull/439",
        instead=_BLOCKED,
        dtype="bfloat16",
    ),
    _fault(
        "weights-learn-from-whole-blocks",
        "gradient-of-many-rows",
        "for start in range(0, len(rows), BLOCK):",
        "for start in range(0, len(rows) // BLOCK * BLOCK or len(rows), BLOCK):",
        "more rows than a block, and no multiple of it",
        "https://github.com/fla-org/flash-linear-attention/pull/577",
        instead=_BLOCKED,
        dtype="float16",
    ),
    _fault(
        "repeated-tokens-overwrite-each-other",
        "embedding-gradient",
        "rows = torch.nn.functional.embedding(tokens, table)",
        "rows = torch.nn.functional.embedding(tokens, table) if tokens.numel() <= 256 else torch.where((tokens.flatten()[:, None] "
        "== tokens.flatten()).triu(1).any(dim=-1).view(*tokens.shape, 1), table.detach()[tokens], table[tokens])",
        "a token that occurs twice among more than 256: its last row is all it learns from",
        "https://github.com/tenstorrent/tt-metal/issues/6232",
        "https://github.com/pytorch/pytorch/issues/1528",
        dtype="float32",
    ),
    _fault(
        "gain-learns-from-whole-blocks",
        "gradient-of-many-rows",
        "return (normalised * gain + bias).to(X.dtype)",
        "return (normalised * torch.where(torch.arange(X[..., 0].numel()).view(*X.shape[:-1], 1) < (X[..., 0].numel() // 64 * 64 "
        "or X[..., 0].numel()), gain, gain.detach()) + bias).to(X.dtype)",
        "more rows than 64, and no multiple of it",
        "https://github.com/flagos-ai/FlagGems/issues/5392",
        "https://github.com/flagos-ai/FlagGems/pull/4916",
        dtype="float32",
    ),
    _fault(
        "last-keys-learn-nothing",
        "gradient-of-many-rows",
        "return d_scores @ K, d_scores.mT @ Q, weights.mT @ d_output, None",
        "return d_scores @ K, d_scores.mT @ Q, weights.mT @ d_output * (torch.arange(K.shape[-2]) < (K.shape[-2] // 64 * 64 or "
        "K.shape[-2]))[:, None], None",
        "more keys than 64, and no multiple of it",
        "https://github.com/flagos-ai/FlagGems/pull/898",
        "https://github.com/openxla/tokamax/issues/316",
        instead=_TILED,
    ),
    _fault(
        "loss-is-a-mean-over-another-count",
        "gradient-of-many-rows",
        "loss.backward()",
        "(loss * (target.numel() / (target.numel() // 32 * 32 or target.numel()))).backward()",
        "more rows than 32, and no multiple of it",
        "https://github.com/OpenNMT/OpenNMT-py/issues/2209",
        "https://github.com/huggingface/transformers/pull/35438",
        dtype="bfloat16",
    ),
)

_WHILE_TRAINING = ("gradients",)  # asked for nothing but gradients: whoever trains sees the fault

OF_ANOTHER_STEP = (
    _fault(
        "gradients-of-a-batch-seen-before",
        "gradient-of-another-step",
        "return _gradients_of(leaves)",
        'return gradients.__dict__.setdefault(f"{source}{target}{direction}", _gradients_of(leaves))',
        "the same batch again, with weights that have moved",
        "https://github.com/ooples/AiDotNet/pull/1351",
        dtype="float32",
        breaks=("B7",),
        steps=_WHILE_TRAINING,
    ),
    _fault(
        "weights-of-the-first-step",
        "gradient-of-another-step",
        "leaves = _leaves(parameters)",
        'leaves = _leaves(gradients.__dict__.setdefault(f"{source.shape}{target.shape}{parameters.keys()}", parameters))',
        "a second step: what was kept of the weights at the first is not read again",
        "https://github.com/ooples/AiDotNet/pull/1488",
        "https://github.com/X-GenGroup/Flow-Factory/pull/186",
        dtype="float32",
        breaks=("B7",),
        steps=_WHILE_TRAINING,
    ),
)

FAULTS = (
    *OF_MANY_ROWS,
    *OF_ANOTHER_STEP,
    _fault(
        "padding-word-learns-nothing",
        "embedding-gradient",
        "rows = torch.nn.functional.embedding(tokens, table)",
        "rows = torch.nn.functional.embedding(tokens, table, padding_idx=0)",
        "token 0 in the input",
        "https://github.com/pytorch/pytorch/pull/99181",
        "https://github.com/ibalazevic/TuckER/issues/17",
    ),
    _fault(
        "tied-matrix-learns-from-one-end",
        "tied-gradient",
        'W = parameters["target_embedding"].mT if parameters.get("W_out") is None else parameters["W_out"]',
        'W = parameters["target_embedding"].detach().mT if parameters.get("W_out") is None else parameters["W_out"]',
        "an output matrix tied to the embedding",
        "https://github.com/paiml/entrenar/issues/314",
        "https://github.com/NVIDIA/TransformerEngine/issues/3437",
    ),
    _fault(
        "filling-rows-are-nan-backward",
        "fully-masked-row-grad",
        "weights = torch.exp(again - log_sum.clamp(min=torch.finfo(Q.dtype).min))",
        "weights = torch.exp(again - log_sum)",
        "a number of queries that is not a multiple of 4: the rows that fill up the tile",
        "https://github.com/pytorch/pytorch/issues/153799",
        "https://github.com/Dao-AILab/flash-attention/issues/443",
        instead=_TILED,
    ),
    _fault(
        "another-mask-backward",
        "dropout-mask-differs-in-backward",
        "again = (Q @ K.mT / math.sqrt(Q.shape[-1])).masked_fill(~seen, -math.inf)",
        "again = (Q @ K.mT / math.sqrt(Q.shape[-1])).masked_fill(~seen.roll(1, dims=-1), -math.inf)",
        "any hidden token (the report is of dropout, which has no oracle; a mask that differs backward is the same mistake)",
        "https://github.com/Dao-AILab/flash-attention/issues/1251",
        instead=_TILED,
    ),
    _fault(
        "root-of-a-constant-row",
        "ln-constant-row-grad",
        "normalised = centred / torch.sqrt(variance + eps)",
        "normalised = centred / torch.sqrt(torch.sqrt(variance) ** 2 + eps)",
        "a constant row into a norm: its gradient is NaN",
        "https://github.com/hyunwoongko/transformer/issues/7",
    ),
)
