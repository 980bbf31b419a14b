"""Faults that only the gradient shows. The truth is the fast implementation in float64 under autograd, checked by differences."""

from properties.faults.fault import Fault

_TILED = {"attention": "attention_with_backward"}


def _fault(
    identifier: str,
    fault_class: str,
    right: str,
    wrong: str,
    shows: str,
    *reports: str,
    instead: dict[str, str] | None = None,
) -> Fault:
    steps = ("gradients", "transformer")
    return Fault(identifier, fault_class, "gradients", steps, right, wrong, shows, ("T2",), reports, "float64", instead or {})


FAULTS = (
    _fault(
        "padding-word-learns-nothing",
        "embedding-gradient",
        "rows = torch.nn.functional.embedding(tokens, table)",
        "rows = torch.nn.functional.embedding(tokens, table, padding_idx=0)",
        "word 0 in the input",
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
        "any hidden word (the report is of dropout, which has no oracle; a mask that differs backward is the same mistake)",
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
