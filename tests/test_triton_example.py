"""`examples/triton_attention.py`, verified where Triton is installed: its interpreter needs no GPU."""

import importlib.util
from pathlib import Path

import pytest

from veriformer import verify

KERNEL = Path(__file__).resolve().parents[1] / "examples" / "triton_attention.py"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed: pip install triton")
def test_the_flash_attention_in_triton_is_verified_by_its_interpreter(monkeypatch):
    """It agrees with the oracle, at any sizes; what has a mask is declined."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    found = verify(f"{KERNEL}:attention", dtype="float32", claims="A2", examples=3)

    found.assert_ok()
    assert "PASS" in {str(each.verdict) for each in found}
