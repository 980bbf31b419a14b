"""Faults of the whole: what is tied, which row is read, what a token is compared with."""

from properties.evaluation.detection.fault import Fault

_W = 'W = parameters["target_embedding"].mT if parameters.get("W_out") is None else parameters["W_out"]'

FAULTS = (
    Fault(
        "tied-although-it-has-its-own",
        "tie-state",
        "model",
        ("transformer",),
        _W,
        'W = parameters["target_embedding"].mT',
        "an output matrix that is not the embedding",
        ("T1", "O1"),
        ("https://github.com/huggingface/transformers/pull/42612",),
    ),
    Fault(
        "tied-to-what-it-was",
        "tie-state",
        "model",
        ("transformer",),
        _W,
        'W = transformer.__dict__.setdefault("tied", parameters["target_embedding"].clone()).mT if parameters.get("W_out") is None '
        'and transformer.__dict__.get("tied", parameters["target_embedding"]).shape == parameters["target_embedding"].shape '
        'else parameters["target_embedding"].mT if parameters.get("W_out") is None else parameters["W_out"]',
        "tied, and asked again with another embedding of the same shape",
        ("T1", "D1"),
        ("https://github.com/facebookresearch/lingua/issues/74",),
    ),
    Fault(
        "last-row-of-the-buffer",
        "last-token-index",
        "model",
        ("generation",),
        "chosen = logits[:, i].argmax(dim=-1)",
        "chosen = logits[:, -1].argmax(dim=-1)",
        "two tokens or more to write: the last row is that of a padding token",
        ("G1",),
        ("https://github.com/guillaume-be/rust-bert/pull/86", "https://github.com/huggingface/transformers/issues/14521"),
    ),
    Fault(
        "last-real-word-by-counting",
        "last-token-index",
        "model",
        ("generation",),
        "chosen = logits[:, i].argmax(dim=-1)",
        "chosen = logits[torch.arange(b), ((tokens != eos).sum(dim=-1) - 1).clamp(min=0)].argmax(dim=-1)",
        "a start token that is the end token too",
        ("G1",),
        ("https://github.com/zankner/CLoud/issues/5",),
    ),
    Fault(
        "target-shifted-once-more",
        "loss-shift",
        "model",
        ("transformer",),
        "return decode(target, M, source_mask, target_mask, parameters, scale_embedding, **choices)",
        "return decode(target.roll(1, dims=-1), M, source_mask, target_mask, parameters, scale_embedding, **choices)",
        "two different words or more",
        ("T1", "O2"),
        (
            "https://github.com/huggingface/transformers/issues/47394",
            "https://github.com/huggingface/transformers/issues/46901",
            "https://github.com/Project-MONAI/GenerativeModels/issues/314",
        ),
    ),
    Fault(
        "row-boundary-leaks",
        "loss-shift",
        "model",
        ("transformer",),
        "return decode(target, M, source_mask, target_mask, parameters, scale_embedding, **choices)",
        "return decode(target.flatten().roll(1).reshape(target.shape), M, source_mask, target_mask, parameters, scale_embedding, "
        "**choices)",
        "two different words or more",
        ("T1", "O2", "T3"),
        ("https://github.com/huggingface/transformers/issues/47394",),
    ),
)
