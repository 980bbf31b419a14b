"""Faults of the feed-forward step."""

from properties.evaluation.detection.fault import Fault


def _fault(identifier: str, fault_class: str, right: str, wrong: str, shows: str, *reports: str) -> Fault:
    return Fault(identifier, fault_class, "feed_forward", ("feed_forward",), right, wrong, shows, ("F1",), reports)


FAULTS = (
    _fault(
        "gelu-by-tanh",
        "gelu-variant",
        'if activation == "gelu":',
        'if activation == "gelu_exact":',
        "exact GELU: at most 5e-4 away",
        "https://github.com/kyutai-labs/pocket-tts/pull/278",
        "https://github.com/huggingface/candle/pull/900",
    ),
    _fault(
        "gelu-flag-swapped",
        "gelu-variant",
        'if activation == "gelu":',
        'if activation == "gelu_tanh":',
        "either GELU: at most 5e-4 away",
        "https://github.com/tenstorrent/tt-metal/issues/1262",
    ),
    _fault(
        "activation-ignored",
        "ffn-arg-ignored",
        'if activation == "relu":',
        "if activation:",
        "any activation but ReLU",
        "https://github.com/NVlabs/Forecasting-Model-Search/pull/6",
    ),
)
