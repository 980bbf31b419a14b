"""Faults of the embedding and of positions."""

from properties.evaluation.detection.fault import Fault

_PAIR = "frequencies = 10000.0 ** (-pair / d_model)"
_WAVES = "waves = torch.stack([angles.sin(), angles.cos()], dim=-1)"
_PLACES = "places = positions.to(torch.float64)"
_FLAT = "return waves.flatten(-2)"
_PLACES_OF = "return torch.arange(tokens.shape[-1]).expand(tokens.shape)"


def _encoding(
    identifier: str, fault_class: str, right: str, wrong: str, shows: str, *reports: str, dtype: str = "float32"
) -> Fault:
    """A fault of the sines and cosines."""
    return Fault(
        identifier,
        fault_class,
        "embedding",
        ("positional_encoding",),
        right,
        wrong,
        shows,
        ("PE1", "PE3", "PE4", "PE5", "PE6", "PE7"),
        reports,
        dtype,
    )


def _place(identifier: str, fault_class: str, wrong: str, shows: str, *reports: str) -> Fault:
    """A wrong place given to a token, inside the whole model."""
    return Fault(identifier, fault_class, "model", ("transformer",), _PLACES_OF, wrong, shows, ("T1", "T3", "E3"), reports)


ENCODINGS = (
    _encoding(
        "exponent-doubled",
        "pe-formula",
        _PAIR,
        "frequencies = 10000.0 ** (-2 * pair / d_model)",
        "four features or more, from position 1",
        "https://github.com/shenweichen/DeepCTR/issues/379",
        "https://github.com/Kyubyong/transformer/issues/38",
        "https://github.com/jadore801120/attention-is-all-you-need-pytorch/issues/32",
    ),
    _encoding(
        "cosine-of-the-next-frequency",
        "pe-formula",
        _WAVES,
        "waves = torch.stack([angles.sin(), (places[..., None] * 10000.0 ** (-(pair + 1) / d_model)).cos()], dim=-1)",
        "any width, from position 1",
        "https://github.com/luhengshiwo/LLMForEverybody/issues/106",
        "https://github.com/SamLynnEvans/Transformer/issues/25",
    ),
    _encoding(
        "sines-then-cosines",
        "pe-layout-concat",
        _FLAT,
        "return waves.mT.flatten(-2)",
        "four features or more",
        "https://github.com/tatp22/multidim-positional-encoding/issues/20",
        "https://github.com/allenai/allennlp/issues/2993",
        "https://github.com/tensorflow/tensorflow/issues/37191",
    ),
    _encoding(
        "positions-in-bfloat16",
        "pe-low-precision",
        _PLACES,
        "places = positions.to(torch.bfloat16).to(torch.float64)",
        "positions above 256",
        "https://github.com/NVIDIA/Megatron-LM/issues/535",
        "https://github.com/EleutherAI/gpt-neox/issues/1003",
        dtype="bfloat16",
    ),
    _encoding(
        "frequencies-in-bfloat16",
        "pe-low-precision",
        _PAIR,
        "frequencies = (10000.0 ** (-pair / d_model)).to(torch.bfloat16).to(torch.float64)",
        "four features or more; in bfloat16 from larger positions",
        "https://github.com/huggingface/transformers/issues/25681",
        dtype="bfloat16",
    ),
    _encoding(
        "table-in-bfloat16",
        "pe-low-precision",
        _FLAT,
        "return waves.flatten(-2).to(torch.bfloat16).to(torch.float64)",
        "float32, from position 1",
        "https://github.com/KellerJordan/modded-nanogpt/issues/39",
    ),
    _encoding(
        "table-of-64-clamped",
        "pe-table-limit",
        _PLACES,
        "places = positions.to(torch.float64).clamp(max=63)",
        "more than 64 tokens",
        "https://github.com/OpenNMT/CTranslate2/issues/1157",
        "https://github.com/facebookresearch/fairseq/issues/119",
    ),
    _encoding(
        "table-of-512-wraps",
        "pe-table-limit",
        _PLACES,
        "places = positions.to(torch.float64) % 512",
        "more than 512 tokens",
        "https://github.com/OpenNMT/CTranslate2/issues/1157",
    ),
)

PLACES = (
    _place(
        "places-count-real-words",
        "left-pad-positions",
        "return ((torch.ones_like(tokens) if real is None else real).cumsum(dim=-1) - 1).clamp(min=0)",
        "padding tokens in front of real ones: we count every place, the reports count real tokens, and the two must not mix",
        "https://github.com/unslothai/unsloth/issues/3699",
        "https://github.com/ndif-team/nnsight/pull/673",
    ),
    _place(
        "places-of-the-longest-sentence",
        "left-pad-positions",
        "return (torch.arange(tokens.shape[-1]) - (0 if real is None else (~real).sum(dim=-1).min())).expand(tokens.shape)",
        "padding tokens in every sequence",
        "https://github.com/huggingface/transformers/issues/26380",
    ),
    _place(
        "places-count-by-word-0",
        "positions-coupled-to-pad-id",
        "return ((tokens != 0).cumsum(dim=-1) - 1).clamp(min=0)",
        "token 0 anywhere but at the end",
        "https://github.com/facebookresearch/fairseq/issues/1559",
    ),
    _place(
        "places-start-behind-the-pad-id",
        "positions-coupled-to-pad-id",
        "return (torch.arange(tokens.shape[-1]) + 1).expand(tokens.shape)",
        "any input",
        "https://github.com/facebookresearch/fairseq/issues/1177",
    ),
)

EMBEDDINGS = (
    Fault(
        "factor-in-bfloat16",
        "embedding-scale",
        "embedding",
        ("embedding",),
        "factor = math.sqrt(table.shape[-1])",
        "factor = torch.tensor(math.sqrt(table.shape[-1])).bfloat16().item()",
        "a width whose root has more than 8 significant bits",
        ("E4",),
        ("https://github.com/huggingface/transformers/pull/29402",),
    ),
    Fault(
        "target-embedded-without-factor",
        "embedding-scale",
        "model",
        ("transformer",),
        'rows = embedding(target, table=parameters["target_embedding"], scale=scale_embedding)',
        'rows = embedding(target, table=parameters["target_embedding"], scale=False)',
        "the factor √d_model switched on",
        ("D1", "T1"),
        ("https://github.com/vllm-project/vllm/pull/48010",),
    ),
)

FAULTS = ENCODINGS + PLACES + EMBEDDINGS
