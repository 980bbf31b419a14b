"""The contract card as a whole: what it declares, what it costs, its command, and probes that crash or hang."""

import json
import re
import textwrap
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rounding_kernel import Rounding

from properties.card import questions
from properties.card.card import contract_card, conventions_of, options_shown
from properties.conventions import declarations
from properties.implementations.contract import Contract
from properties.implementations.conventions import Conventions
from properties.implementations.impl import Impl
from properties.implementations.registry import built_in
from reports.card_records import ContractCard, schema
from veriformer.cli import main
from veriformer.isolation.in_process import InProcess
from veriformer.show_card import declaration


def test_what_a_card_declares_can_be_pasted():
    """It is read as a class's attributes are, and the card of who declares it has no mismatch."""
    toy = Rounding(stores="weights")
    first = contract_card(toy, ("float32", "bfloat16"))
    said: dict = {}
    exec(declaration(first), said)  # noqa: S102 (as a user would paste it)

    declarations.take(toy, said["conventions"], said["contract"])
    again = contract_card(toy, ("float32", "bfloat16"))

    assert said["contract"] == {"bfloat16": {"mode": "fused", "cast_weights": True}}
    assert said["conventions"]["fully_masked_row"] == "nan"
    assert again.mismatches == []
    assert toy.contract
    toy.contract, toy.conventions = None, Conventions()
    Contract(dtype="bfloat16", **said["contract"]["bfloat16"])


def test_a_contract_that_promises_more_than_is_found_is_a_mismatch():
    """A narrower sum; weights that are rounded though declared kept."""
    toy = Rounding("bfloat16", stores="weights scores")
    declarations.take(toy, None, {"float32": {"accumulation": "float32"}, "bfloat16": {"mode": "fused"}})

    mismatches = contract_card(toy, ("float32", "bfloat16")).mismatches

    assert "contract: float32: accumulation=float32, but Q·Kᵀ adds up in bfloat16" in mismatches
    assert "contract: bfloat16: mode=fused, but scores are rounded to bfloat16" in mismatches


def test_a_card_takes_seconds():
    """A warm one of PyTorch's own functions, on a busy machine too; and it is a record that the schema describes."""
    began = time.process_time()
    card = contract_card(built_in("torch.sdpa"), ("float32", "bfloat16"))
    spent = time.process_time() - began

    assert spent < 5
    assert msgspec.json.decode(msgspec.json.encode(card), type=ContractCard) == card
    assert card.mismatches == []
    assert {row.name: row.choice for row in card.conventions}["causal_alignment"] == "top_left"
    assert schema()["$defs"].keys() >= {"ContractCard", "CardConvention", "CardNumber", "CardInvariance", "CardTaken"}


FRAGILE = """
    import os, time
    import numpy as np

    def attention(Q, K, V, mask=None, *, causal=False, softcap=None):
        if causal and K.shape[-2] > 1:
            os._exit(3)
        if softcap and K.shape[-2] > 1:
            time.sleep(60)
        scores = Q @ K.swapaxes(-1, -2) / Q.shape[-1] ** 0.5
        if mask is not None:
            scores = np.where(mask, scores, -np.inf)
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            return weights / weights.sum(axis=-1, keepdims=True) @ V
"""


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """A user's folder with a kernel that crashes for one option and hangs for another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "mine.py").write_text(textwrap.dedent(FRAGILE))
    return ["card", "mine:attention", "--arrays=numpy", "--dtype=float32", "--max-time=2"]


def test_a_probe_that_crashes_or_hangs_is_a_line_and_the_rest_goes_on(fragile):
    """The exit code is 0: nothing was declared."""
    said = CliRunner().invoke(main, [*fragile, "--json"])

    card = json.loads(said.stdout)
    problems = {row["name"]: row["problem"] for row in card["conventions"] if row["problem"]}
    assert said.exit_code == 0, said.output
    assert problems == {"causal_alignment": "crash", "causal": "crash", "softcap": "timeout", "softcap_and_mask": "timeout"}
    assert card["options"] == ["causal", "softcap"]
    assert [row["holds"] for row in card["invariance"] if row["name"] == "repetition"] == [True]


def test_a_declaration_that_is_contradicted_is_exit_code_1(fragile):
    """In the words of the verdict; what is found is printed all the same, and may be pasted."""
    said = CliRunner().invoke(main, [*fragile, "--like=torch"])

    assert said.exit_code == 1
    assert "CONVENTION_MISMATCH fully_masked_row: declared zeros, but the probe shows nan (float32)" in said.stdout
    assert "nan, declared zeros" in said.stdout
    assert '"fully_masked_row": "nan"' in said.stdout
    assert re.fullmatch(r"\d+\.\d s of probes, \d+\.\d s in all", said.stdout.splitlines()[-1])

    declared = CliRunner().invoke(main, [*fragile, "--declare"])

    assert declared.exit_code == 0
    assert declared.stdout.startswith("conventions = {")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere:attention"], "no module named 'nowhere'"),
        (["mine:attentio"], "mine has no attribute 'attentio'"),
        (["mine:attention", "--as=atention"], "did you mean attention?"),
        (["mine:attention", "--dtype=bfloat16"], "supports float64, float32, float16, got bfloat16"),
        (["optimised"], "did you mean optimized?"),
    ],
)
def test_a_target_that_is_none_is_one_line_and_exit_code_2(fragile, arguments, complaint):
    """As for `verify`."""
    said = CliRunner().invoke(main, ["card", "--arrays=numpy", *arguments])

    assert said.exit_code == 2
    assert complaint in said.stderr.strip().splitlines()[-1]
    assert said.stdout == ""


def test_the_page_shows_what_is_found():
    """The conventions of its kernel; how this processor adds up is its own affair."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "card.md").read_text(encoding="utf-8")
    kernel: dict = {}
    exec(page.split("```python\n")[1].split("```")[0], kernel)  # noqa: S102 (our own page)
    told = page.split("```text\n")[1].split("```")[0]

    rows, asked = conventions_of(Impl(InProcess("kernel", kernel["attention"], "attention", "torch"), "float32"))

    for row in (*rows, *options_shown(asked, questions.options_of(asked))):
        assert re.search(rf"^ {row.name} +{re.escape(row.choice)} .*{re.escape(row.how)}", told, re.MULTILINE), row.name
