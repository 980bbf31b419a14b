"""A small model of Hugging Face with weights of its own."""

import pytest
import torch


def hugging_face_model(kind: str) -> torch.nn.Module:
    """`Marian` or `Bart`, of two layers a side; the test is skipped where transformers is not installed."""
    transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
    sizes = {"vocab_size": 40, "d_model": 32, "pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1, "decoder_start_token_id": 2}
    for stack in ("encoder", "decoder"):
        sizes |= {f"{stack}_layers": 2, f"{stack}_attention_heads": 4, f"{stack}_ffn_dim": 64}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, activation_function="gelu", dropout=0.0)
    return getattr(transformers, {"Marian": "MarianMTModel", "Bart": "BartForConditionalGeneration"}[kind])(config).eval()
